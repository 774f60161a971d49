"""Observe the state of the pool in AWS, with no more calls than `plan.loop.polling` requires."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from dask_starburst.aws import autoscaling, ecs, faults
from dask_starburst.errors import AWSUnavailable, LeaseExpired
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import Refusal, remember
from dask_starburst.plan.loop.polling import (
    FULL_REFRESH_POLLS,
    TASK_CHECK_POLLS,
    UNSEEN_GRACE,
    Connected,
    booting,
    differing,
    instances_may_have_changed,
    join_instances,
    join_tasks,
    unverified,
)
from dask_starburst.plan.loop.reconcile import unconfirmed
from dask_starburst.plan.loop.state import Name, Observed, ScalingGroup, Task, Worker

#: The error of our estimate of AWS's clock (seconds).
_SLACK = 2.0


class Observer:
    """Polls AWS for one pool, and remembers when it queried what.

    Parameters
    ----------
    pool : Pool
        The pool that this session has checked out.
    poll : float
        Seconds between two polls while something is under way.
    """

    def __init__(self, pool: Pool, poll: float) -> None:
        self._pool = pool
        self._names = dict(zip(pool.group_names, pool.placements, strict=True))
        self._sweep_every = FULL_REFRESH_POLLS * poll
        self._patience = TASK_CHECK_POLLS * poll
        self._swept = float("-inf")
        self._described: dict[str, float] = {}
        self._explained: dict[Placement, float] = {}
        # Ignore failures in the pool from before this session claimed it.
        self._began = pool.aws.now() - _SLACK
        self._failed: dict[Placement, float] = {}
        self._missed: float | None = None
        self._ids: dict[str, str] = {}

    def invalidate(self) -> None:
        """Force a full refresh at the next poll, because a response was lost."""
        self._swept = float("-inf")

    async def poll(
        self, before: Observed, workers: Collection[Worker], members: frozenset[Name], now: float
    ) -> Observed:
        """Return the state of the pool.

        Parameters
        ----------
        before : Observed
            The previous state, with the actions in flight since.
        workers : collection of Worker
            All requested workers.
        members : frozenset of names
            The workers that have connected to the scheduler.
        now : float
            Seconds, AWS's clock.

        Raises
        ------
        LeaseExpired
            The groups were emptied by their lease, or stopped by a user.
        """
        sweep = now - self._swept >= self._sweep_every
        whole = sweep or instances_may_have_changed(before, workers, members)
        groups = await autoscaling.describe(self._pool.aws, self._names, instances=whole)
        self._check_open(groups, now)
        if whole:
            present = [
                (i, self._names[g.name], kind, leaving) for g in groups.values() for i, kind, leaving in g.instances
            ]
        else:
            present = [(i.id, i.placement, i.type, i.terminating) for i in before.instances.values()]
        known = replace(before, instances=join_instances(present, None, before, now), members=members)
        connected, tasks, draining = await asyncio.gather(
            self._connected(sweep or booting(known.instances.values())),
            self._tasks(known, workers, sweep, now),
            self._draining(before, sweep),
        )
        seen = Observed(
            groups={self._names[g.name]: self._group(g) for g in groups.values()},
            instances=join_instances(present, connected, before, now),
            tasks=tasks,
            members=members,
            refusals=before.refusals,
            draining=draining,
        )
        if sweep:
            self._swept = now
        return await self._explain(replace(seen, in_flight=unconfirmed(before.in_flight, seen)), now)

    async def _connected(self, needed: bool) -> Connected | None:
        if not needed:
            return None
        aws, cluster = self._pool.aws, self._pool.name
        arns = frozenset(await ecs.connected_instances(aws, cluster))
        known = {arn: instance for arn, instance in self._ids.items() if arn in arns}  # without those that are gone
        self._ids = known | await ecs.instance_ids(aws, cluster, arns - known.keys())
        return Connected(arns, self._ids)

    async def _draining(self, before: Observed, needed: bool) -> frozenset[str]:
        if not needed:
            return before.draining
        return frozenset(await ecs.draining_instances(self._pool.aws, self._pool.name))

    async def _tasks(self, known: Observed, workers: Collection[Worker], sweep: bool, now: float) -> dict[str, Task]:
        pool = self._pool
        requested = unverified(workers, known, self._described, now, self._patience)
        if sweep:
            requested |= differing(known, await ecs.running(pool.aws, pool.name, pool.session))
        answered = await ecs.tasks(pool.aws, pool.name, requested)
        placed = {w.task: w.accepted or w.since for w in workers if w.task}
        tasks = join_tasks(known.tasks, requested, answered, placed, now)
        self._described = {arn: at for arn, at in self._described.items() if arn in tasks} | dict.fromkeys(
            requested, now
        )
        return tasks

    async def _explain(self, observed: Observed, now: float) -> Observed:
        """Add the launches that AWS refused, for the groups that lack instances."""
        short = [
            place
            for place, group in observed.groups.items()
            if now - self._explained.get(place, 0.0) >= self._patience and _alive(observed, place) < group.desired
        ]
        found = await asyncio.gather(*map(self._failures, short))
        self._explained |= dict.fromkeys(short, now)
        new = [refusal for some in found for refusal in some]
        return replace(observed, refusals=remember(observed.refusals, new, observed.youngest, now))

    async def _failures(self, placement: Placement) -> list[Refusal]:
        since = self._failed.get(placement, self._began)
        texts = await autoscaling.failures(self._pool.aws, self._pool.names.group(placement), since)
        self._failed[placement] = max((at for _, at in texts), default=since)
        return [faults.launch_refusal(placement, text, at) for text, at in texts]

    def _check_open(self, groups: Mapping[str, autoscaling.GroupSeen], now: float) -> None:
        missing = [name for name in self._names if name not in groups]
        self._missed = (self._missed or now) if missing else None
        closed = [name for name in self._names if name in groups and groups[name].maximum == 0]
        if missing and not closed and self._missed is not None and now - self._missed < UNSEEN_GRACE:
            raise AWSUnavailable(f"Auto Scaling group {missing[0]} is not visible at the moment.")
        if closed := closed or missing:
            raise LeaseExpired(
                f"Auto Scaling group {closed[0]} is closed: its lease expired because neither this computer"
                " (it slept, or had no network) nor the scheduler renewed it, or a user stopped the pool. Start a"
                " new cluster; a longer keep.lease survives longer sleep."
            )

    def _group(self, seen: autoscaling.GroupSeen) -> ScalingGroup:
        placement = self._names[seen.name]
        return ScalingGroup(placement, seen.desired, seen.types, self._pool.allowed(placement))


def _alive(observed: Observed, placement: Placement) -> int:
    return sum(i.placement == placement and not i.terminating for i in observed.instances.values())
