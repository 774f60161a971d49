"""Pools that are given back warm, and taken so by the next cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count

from dask_starburst.aws import autoscaling, ecs, ssm
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import together
from dask_starburst.errors import StarburstError
from dask_starburst.fleet.pool import release
from dask_starburst.fleet.pool.pool import Pool, claim
from dask_starburst.plan.loop.state import HEAD
from dask_starburst.plan.requests.garbage import CLAIMS, GroupFound
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.pool import LEASE_ACTION, PoolNames, PoolSpec
from dask_starburst.plan.requests.reuse import SPEC_TAG, WARM_TAG, Candidate, Kept, preferred


async def free_pools(aws: AWS, spec: PoolSpec, wanted: int) -> Iterator[Candidate]:
    """Return the pools of this specification that nobody has claimed, the best for `wanted` workers first; endless.

    Those with warm instances first, then those that there are, then those that are still to be made.
    """
    taken, tagged = await asyncio.gather(ssm.names_below(aws, CLAIMS), autoscaling.tagged(aws, SPEC_TAG, spec.digest))
    pools: dict[str, list[autoscaling.GroupSeen]] = {}
    for group, _ in tagged.get(spec.digest, []):
        pools.setdefault(group.tags[MANAGED_TAG], []).append(group)
    there = {name: _candidate(name, groups) for name, groups in pools.items()}
    order = preferred((c for c in there.values() if PoolNames(c.name).claim not in taken), wanted, aws.now())
    return _endless(spec, order, taken, there.keys())


async def claim_best(
    aws: AWS, spec: PoolSpec, wanted: int, session: str, arn: str, trying: Callable[[PoolNames], None]
) -> Candidate:
    """Claim the best pool that nobody has; two who ask at the same moment get two.

    `trying` hears each name before it may be ours: Ctrl-C may come between.
    """
    for found in await free_pools(aws, spec, wanted):
        names = PoolNames(found.name)
        trying(names)
        if await claim(aws, names, session, arn):
            return found
    raise AssertionError("free_pools does not end")


def _endless(spec: PoolSpec, order: list[Candidate], taken: set[str], there: Container[str]) -> Iterator[Candidate]:
    yield from order
    for slot in count():
        name = spec.pool_name(slot)
        if name not in there and PoolNames(name).claim not in taken:
            yield Candidate(name)


def _candidate(name: str, groups: list[autoscaling.GroupSeen]) -> Candidate:
    ends = [float(group.tags[WARM_TAG]) for group in groups if group.desired and WARM_TAG in group.tags]
    return Candidate(
        name,
        instances=sum(len(group.staying) for group in groups),
        workers=sum(len(group.staying) for group in groups if group.name != PoolNames(name).group(HEAD)),
        until=min(ends, default=None),
    )


async def hold(aws: AWS, pool: str, until: float) -> None:
    """Put the end of a pool off that has just been claimed with its instances, before anything else."""
    groups = [group for group, _ in (await autoscaling.tagged(aws, MANAGED_TAG, pool)).get(pool, []) if group.desired]
    await together(*(autoscaling.put_lease(aws, group.name, LEASE_ACTION, until) for group in groups))
    marked = [group.name for group in groups if WARM_TAG in group.tags]
    if marked:
        await autoscaling.untag(aws, marked, WARM_TAG)


async def keep(pool: Pool, seconds: float, patience: float, poll: float, *, ended: bool = True) -> Kept | None:
    """Give the pool back with the instances that take tasks, for whoever comes within `seconds`.

    The lease is shortened before anything else, so that AWS empties the pool whatever becomes of us.
    What has not connected, or does not get rid of its task, is terminated.

    Parameters
    ----------
    pool : Pool
        Checked out by us.
    seconds : float
        How long it is kept.
    patience, poll : float
        Seconds to wait at most for the tasks to end, and between looks.
    ended : bool
        Whether the scheduler has closed its workers and itself.

    Returns
    -------
    Kept or None
        None: there is nothing to be kept, and the pool is still ours.
    """
    pool = replace(pool, keeps=True)
    await pool.renew(pool.aws.now() + seconds)
    await release.end_tasks(pool, poll, at_once=not ended)
    ready = await _emptied(pool, patience, poll)
    if not ready:
        return None
    # Again, because the scheduler may have renewed it as long as it was there.
    until = pool.aws.now() + seconds
    await pool.renew(until)
    groups = await together(*(_cut(pool, group, ready) for group in pool.groups))
    await release.give_back_warm(pool)
    return Kept(tuple(groups), until)


async def _emptied(pool: Pool, patience: float, poll: float) -> set[str]:
    """Return the instances that take tasks and have none, once all of them have none."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        ready = [host for host in await ecs.hosts(pool.aws, pool.name) if host.ready]
        if all(host.empty for host in ready) or loop.time() > deadline:
            return {host.instance for host in ready if host.empty}
        await asyncio.sleep(poll)


async def _cut(pool: Pool, group: str, ready: set[str]) -> GroupFound:
    """Take from a group what is not ready, and what it has ordered beyond that."""
    aws, name = pool.aws, pool.names.group(group)
    seen = (await autoscaling.describe(aws, [name]))[name]
    kept = [kind for instance, kind in seen.staying if instance in ready]
    for part in autoscaling.batches([instance for instance, _ in seen.staying if instance not in ready]):
        # One that has just gone by itself makes AWS refuse; the size that follows is right in any case.
        with suppress(StarburstError):
            await autoscaling.terminate(aws, name, part)
    await autoscaling.resize(aws, name, len(kept))
    return GroupFound(name, len(kept), seen.spot, tuple(kept), None, len(kept), region=aws.region)
