"""Release a pool empty: terminate the billed instances first, then clean up what costs nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from dask_starburst.aws import autoscaling, ec2, ecs, ssm
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import end, together
from dask_starburst.errors import StarburstError
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.pool import LEASE_ACTION, PoolNames
from dask_starburst.plan.requests.reuse import WARM_TAG

logger = logging.getLogger(__name__)

#: Each pause between two polls is this factor longer than the one before, up to this many seconds.
_LONGER, _LONGEST = 1.5, 1.0
#: Seconds that tasks have to end after their scheduler has closed its workers and itself.
_GRACE = 10.0


async def empty(
    aws: AWS,
    pool: str,
    groups: Sequence[str],
    patience: float,
    poll: float,
    *,
    tidying: Callable[[], Awaitable[object]],
    gone: Callable[[], Collection[str]] = tuple,
) -> list[str]:
    """Terminate every instance of a pool, and wait until none is billed any more.

    EC2 bills an instance until it is ``shutting-down`` (EC2 User Guide, "Instance state changes"). Tasks end with their
    instances and need not be stopped.

    Parameters
    ----------
    aws : AWS
        The account.
    pool : str
        A pool that this session has checked out.
    groups : sequence of str
        The names of its Auto Scaling groups.
    patience, poll : float
        Seconds to wait at most, and between the first two polls.
    tidying : callable
        Cleans up what costs nothing; runs once the groups are at zero.
    gone : callable
        Returns the groups whose instances must be completely terminated, not only shutting down.

    Returns
    -------
    list of str
        The instances that were still billed at the end; AWS continues to terminate them.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    # Try each of them, even if others fail.
    zeroed = await asyncio.gather(*(autoscaling.set_zero(aws, name) for name in groups), return_exceptions=True)
    for failed in filter(None, zeroed):
        raise failed
    tidied = asyncio.ensure_future(tidying())
    try:
        while left := await _still_billed(aws, pool, groups, gone()):
            if loop.time() + poll > deadline:
                break
            await asyncio.sleep(poll)
            poll = max(poll, min(_LONGER * poll, _LONGEST))
        await tidied
    finally:
        await end([tidied])
    return left


async def empty_pool(
    pool: Pool, patience: float, poll: float, gone: Callable[[], Collection[str]] = tuple
) -> list[str]:
    """Empty a pool and free it; free the claim last. See `empty`."""
    groups = list(pool.group_names)

    async def tidying() -> None:
        # The groups are at zero already, so the leases are not needed.
        leases = [autoscaling.drop_lease(pool.aws, group, LEASE_ACTION) for group in groups]
        marks = [autoscaling.untag(pool.aws, groups, WARM_TAG)] if pool.keeps else []
        await together(_remove_session_objects(pool), *leases, *marks)

    left = await empty(pool.aws, pool.name, groups, patience, poll, tidying=tidying, gone=gone)
    await claims.free(pool.aws, pool.names)
    return left


async def release_warm(pool: Pool) -> None:
    """Free a pool that keeps its instances and its lease; free the claim last."""
    await _remove_session_objects(pool)
    await claims.free(pool.aws, pool.names)


async def _remove_session_objects(pool: Pool) -> None:
    """Delete what belongs to the session: its certificates and the caller's ingress rule."""
    group = pool.head_security_group
    dismissing = [ec2.dismiss_callers(pool.aws, group)] if group else []
    await together(ssm.forget(pool.aws, pool.names.secret), *dismissing)


async def _still_billed(aws: AWS, pool: str, groups: Sequence[str], gone: Collection[str]) -> list[str]:
    billed = await ec2.billed(aws, MANAGED_TAG, pool)
    if billed or not groups:
        return billed
    # EC2 may not show yet the instances that Auto Scaling has just launched.
    seen = (await autoscaling.describe(aws, groups)).values()
    return [i for group in seen for i, _, leaving in group.instances if not leaving or group.name in gone]


async def undo(aws: AWS, names: PoolNames, entrance: str | None, patience: float, poll: float) -> list[str]:
    """Undo a start that failed while it created a claimed pool: terminate instances, revoke the ingress rule.

    Parameters
    ----------
    aws : AWS
        The account.
    names : PoolNames
        Names of the pool, which this session has claimed.
    entrance : str or None
        The security group whose ingress rule may already admit the caller.
    patience, poll : float
        Seconds to wait at most, and between the first two polls.

    Returns
    -------
    list of str
        As for `empty`.
    """
    # By tag: which groups exist depends on how far the creation came.
    found = (await autoscaling.tagged(aws, MANAGED_TAG, names.pool)).get(names.pool, [])
    groups = [group.name for group, _ in found]

    async def tidying() -> None:
        leases = [autoscaling.drop_lease(aws, group, LEASE_ACTION) for group in groups]
        entrances = [ec2.dismiss_callers(aws, entrance)] if entrance is not None else []
        # Without groups there is no pool, and a secret without a pool is garbage.
        secret = ssm.forget(aws, names.secret) if groups else ssm.remove(aws, names.secret)
        await together(secret, *entrances, *leases)

    left = await empty(aws, names.pool, groups, patience, poll, tidying=tidying)
    await claims.free(aws, names)
    return left


async def end_tasks(pool: Pool, poll: float, *, at_once: bool) -> None:
    """Wait until the tasks of a pool that keeps its instances end; stop those that do not end in time.

    `at_once`: stop them without waiting, because no scheduler has told them to end.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (0.0 if at_once else _GRACE)
    while tasks := await ecs.running(pool.aws, pool.name):
        if loop.time() >= deadline:
            await together(*(ecs.stop_task(pool.aws, pool.name, task, "cluster closed") for task in tasks))
            return
        await asyncio.sleep(poll)


async def attempt(what: str, work: Awaitable[object]) -> bool:
    """Run one step of a clean-up; log its failure and return whether it succeeded."""
    try:
        await work
    except StarburstError as error:
        logger.error("%s failed: %s", what, error)
        return False
    return True
