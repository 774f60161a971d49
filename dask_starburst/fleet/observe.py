"""Asking AWS how the pool stands, and joining the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from dask_starburst.aws import autoscaling, ecs
from dask_starburst.errors import LeaseExpired
from dask_starburst.fleet.pool import Pool
from dask_starburst.plan.reconcile import settle
from dask_starburst.plan.state import Action, Group, Instance, Observed, Task

#: ECS is eventually consistent: a task may be unknown for a moment after RunTask returned it.
UNSEEN_GRACE = 30.0


async def observe(
    pool: Pool,
    before: Observed,
    known: Mapping[str, float],
    members: frozenset[str],
    now: float,
) -> Observed:
    """Return how the pool stands.

    Parameters
    ----------
    pool : Pool
        Ours.
    before : Observed
        What was seen last, with what was asked since.
    known : mapping of str to float
        The tasks of our workers, by ARN, and when each was placed.
    members : frozenset of str
        The workers that the scheduler knows.
    now : float
        Seconds, AWS's clock.

    Raises
    ------
    LeaseExpired
        The groups were emptied by their lease, or by somebody else.
    """
    names = {pool.names.group(group): group for group in pool.groups}
    groups, tasks, containers = await asyncio.gather(
        autoscaling.describe(pool.aws, names),
        ecs.tasks(pool.aws, pool.name, pool.session, known),
        ecs.container_instances(pool.aws, pool.name),
    )
    _check_open(pool, groups)
    tasks |= _not_visible_yet(before.tasks, tasks, known, now)
    instances = _instances(names, groups, containers, tasks, before.instances, now)
    seen = Observed(
        groups={names[g.name]: _group(names[g.name], g, before) for g in groups.values()},
        instances=instances,
        tasks=tasks,
        members=members,
    )
    return replace(seen, asked=settle(before.asked, seen))


async def failures(pool: Pool, observed: Observed) -> Observed:
    """Add AWS's own words about launches that failed, for the groups that lack instances."""
    short = [g for g in observed.groups.values() if _alive(observed, g.name) < g.desired]
    found = await asyncio.gather(*(autoscaling.last_failure(pool.aws, pool.names.group(g.name)) for g in short))
    groups = dict(observed.groups)
    for group, failure in zip(short, found, strict=True):
        if failure is not None:
            groups[group.name] = replace(group, failure=failure.text, failed_at=failure.at)
    return replace(observed, groups=groups)


def add_task(observed: Observed, task: Task) -> Observed:
    """Return what is observed with a task that RunTask has just returned."""
    return replace(observed, tasks={**observed.tasks, task.arn: task})


def ask(observed: Observed, actions: Iterable[Action], now: float) -> Observed:
    """Return what is observed with what is being asked for."""
    return replace(observed, asked={**observed.asked, **dict.fromkeys(actions, now)})


def unask(observed: Observed, action: Action) -> Observed:
    """Return what is observed without something that was asked for and refused, or answered."""
    return replace(observed, asked={a: t for a, t in observed.asked.items() if a != action})


def _check_open(pool: Pool, groups: Mapping[str, autoscaling.GroupSeen]) -> None:
    closed = [name for name in map(pool.names.group, pool.groups) if _closed(groups.get(name))]
    if closed:
        raise LeaseExpired(
            f"Auto Scaling group {closed[0]} is closed: its lease ran out because neither this computer"
            " (it slept, or had no network) nor the scheduler renewed it, or somebody stopped it. Start a"
            " new cluster; a longer lease= survives longer sleep."
        )


def _closed(group: autoscaling.GroupSeen | None) -> bool:
    return group is None or group.maximum == 0


def _group(group: str, seen: autoscaling.GroupSeen, before: Observed) -> Group:
    old = before.groups.get(group, Group(group, 0))
    return replace(old, desired=seen.desired)


def _alive(observed: Observed, group: str) -> int:
    return sum(i.group == group and not i.terminating for i in observed.instances.values())


def _not_visible_yet(
    before: Mapping[str, Task], seen: Mapping[str, Task], known: Mapping[str, float], now: float
) -> dict[str, Task]:
    return {
        arn: before[arn]
        for arn, placed in known.items()
        if arn not in seen and arn in before and now - placed < UNSEEN_GRACE
    }


def _instances(
    names: Mapping[str, str],
    groups: Mapping[str, autoscaling.GroupSeen],
    containers: Mapping[str, ecs.ContainerInstance],
    tasks: Mapping[str, Task],
    before: Mapping[str, Instance],
    now: float,
) -> dict[str, Instance]:
    busy = {t.instance for t in tasks.values() if not t.stopped}
    found = {}
    for group in groups.values():
        for instance, kind, leaving in group.instances:
            old = before.get(instance)
            old = old or Instance(instance, names[group.name], kind, launched=now, idle_since=now)
            container = containers.get(instance)
            connected = container is not None and container.connected
            arn = container.arn if container else old.arn  # ECS forgets before EC2 does
            found[instance] = replace(
                old,
                arn=arn,
                connected=connected,
                seen=old.seen or connected,
                terminating=leaving,
                idle_since=now if arn in busy and arn else old.idle_since,
            )
    return found
