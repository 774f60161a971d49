"""Release pools with warm instances, and claim them for the next cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import count

from dask_starburst.aws import autoscaling, ecs
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import together
from dask_starburst.fleet.pool import claims, release
from dask_starburst.fleet.pool.pool import Pool, claim
from dask_starburst.plan.groups import HEAD_PLACEMENT, Placement
from dask_starburst.plan.requests.claims import held
from dask_starburst.plan.requests.garbage import GroupFound
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.pool import LEASE_ACTION, PoolNames, PoolSpec
from dask_starburst.plan.requests.reuse import SPEC_TAG, WARM_TAG, Candidate, Kept, preferred

#: Seconds for which the instances of a pool that has just been claimed may be idle: well above a start's first tasks.
_TAKEOVER = 120.0


async def free_pools(aws: AWS, spec: PoolSpec, workers: int) -> Iterator[Candidate]:
    """Return the unclaimed pools of this specification, the best for `workers` workers first; endless.

    Pools with warm instances come first, then existing empty pools, then pools that do not exist yet.
    """
    claimed, tagged = await asyncio.gather(claims.everywhere(aws), autoscaling.tagged(aws, SPEC_TAG, spec.digest))
    taken = held(claimed)
    pools: dict[str, list[autoscaling.GroupSeen]] = {}
    for group, _ in tagged.get(spec.digest, []):
        pools.setdefault(group.tags[MANAGED_TAG], []).append(group)
    there = {name: _candidate(name, groups) for name, groups in pools.items()}
    order = preferred((c for c in there.values() if c.name not in taken), workers, aws.now())
    return _candidates(spec, order, taken, there.keys())


async def claim_best(
    aws: AWS,
    spec: PoolSpec,
    workers: int,
    session: str,
    arn: str,
    patience: Patience,
    on_attempt: Callable[[PoolNames], None],
) -> Candidate:
    """Claim the best unclaimed pool; two sessions that claim at the same moment get different pools.

    `on_attempt` is called with each name before the claim, because Ctrl-C may interrupt the claim.
    """
    for found in await free_pools(aws, spec, workers):
        names = PoolNames(found.name)
        on_attempt(names)
        if await patience(partial(claim, aws, names, session, arn)):
            return found
    raise AssertionError("free_pools does not end")


def _candidates(spec: PoolSpec, order: list[Candidate], taken: set[str], there: Container[str]) -> Iterator[Candidate]:
    yield from order
    for slot in count():
        name = spec.pool_name(slot)
        if name not in there and name not in taken:
            yield Candidate(name)


def _candidate(name: str, groups: list[autoscaling.GroupSeen]) -> Candidate:
    ends = [float(group.tags[WARM_TAG]) for group in groups if group.desired and WARM_TAG in group.tags]
    return Candidate(
        name,
        instances=sum(len(group.staying) for group in groups),
        workers=sum(len(group.staying) for group in groups if group.name != PoolNames(name).group(HEAD_PLACEMENT)),
        until=min(ends, default=None),
    )


async def extend_lease(aws: AWS, pool: str, until: float) -> None:
    """Extend the lease of a pool that has just been claimed with its instances, before anything else.

    From now on its instances are kept only until they have their tasks: an instance that has been idle for a while
    would terminate itself at once without the tag.
    """
    groups = [group for group, _ in (await autoscaling.tagged(aws, MANAGED_TAG, pool)).get(pool, []) if group.desired]
    await together(*(autoscaling.put_lease(aws, group.name, LEASE_ACTION, until) for group in groups))
    marked = [group.name for group in groups if WARM_TAG in group.tags]
    if marked:
        await autoscaling.tag(aws, marked, WARM_TAG, f"{aws.now() + _TAKEOVER:.0f}")


async def keep(
    pool: Pool,
    seconds: float,
    patience: float,
    poll: float,
    *,
    ended: bool = True,
    most: Mapping[Placement, int] | None = None,
) -> Kept | None:
    """Release the pool with its ready instances, for the next cluster within `seconds`.

    The lease is shortened first, so that AWS empties the pool even if this process dies. Instances that have not
    connected, or whose task does not end, are terminated.

    Parameters
    ----------
    pool : Pool
        A pool that this session has checked out.
    seconds : float
        How long it is kept.
    patience, poll : float
        Seconds to wait at most for the tasks to end, and between two polls.
    ended : bool
        Whether the scheduler has closed its workers and itself.
    most : mapping of Placement to int, optional
        Number of instances of each placement to keep at most; all by default.

    Returns
    -------
    Kept or None
        None if no instance can be kept; the pool is still claimed by this session.
    """
    pool = replace(pool, keeps=True)
    await pool.renew(pool.aws.now() + seconds)
    await release.end_tasks(pool, poll, at_once=not ended)
    ready = await _ready_instances(pool, patience, poll)
    if not ready:
        return None
    # Again: the scheduler may have renewed the lease until its task ended.
    until = pool.aws.now() + seconds
    await pool.renew(until)
    limits = dict.fromkeys(pool.placements, len(ready)) if most is None else most
    groups = await together(*(_trim(pool, placement, ready, limits[placement]) for placement in pool.placements))
    await release.release_warm(pool)
    return Kept(tuple(groups), until)


async def _ready_instances(pool: Pool, patience: float, poll: float) -> set[str]:
    """Wait until no ready instance has a task; return the ready instances without one."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        ready = [host for host in await ecs.hosts(pool.aws, pool.name) if host.ready]
        if all(host.empty for host in ready) or loop.time() > deadline:
            return {host.instance for host in ready if host.empty}
        await asyncio.sleep(poll)


async def _trim(pool: Pool, placement: Placement, ready: set[str], most: int) -> GroupFound:
    """Keep at most `most` ready instances of a group; terminate the others, and set its desired capacity."""
    aws, name = pool.aws, pool.names.group(placement)
    seen = (await autoscaling.describe(aws, [name]))[name]
    kept = dict([one for one in seen.staying if one[0] in ready][:most])
    # By id: AWS would choose among all instances if only the desired capacity were lowered.
    await autoscaling.terminate_present(aws, name, [i for i, _ in seen.staying if i not in kept])
    await pool.resize(placement, len(kept))
    return GroupFound(name, len(kept), seen.spot, tuple(kept.values()), None, len(kept), region=aws.region)
