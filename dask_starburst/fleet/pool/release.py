"""Giving a pool back empty: the bill first, then what is only untidy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from dask_starburst.aws import autoscaling, ec2, ecs, ssm
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import end, together
from dask_starburst.errors import StarburstError
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.pool import LEASE_ACTION, PoolNames
from dask_starburst.plan.requests.reuse import WARM_TAG

logger = logging.getLogger(__name__)

#: The longest pause between two polls (seconds); each is longer than the one before.
_LONGER, _LONGEST = 1.5, 1.0
#: Seconds that tasks have to end by themselves, after their scheduler has closed its workers and itself.
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
    """End everything that runs in a pool, and wait until none of it is billed any more.

    EC2 bills an instance until it is ``shutting-down`` (EC2 User Guide, "Instance state changes"), and its tasks end
    with it: not one of them has to be stopped.

    Parameters
    ----------
    aws : AWS
        The account.
    pool : str
        Checked out by us.
    groups : sequence of str
        The names of its Auto Scaling groups.
    patience, poll : float
        Seconds to wait at most, and between the first two polls.
    tidying : callable
        What costs nothing is taken back meanwhile, once the groups are at zero.
    gone : callable
        The groups whose instances have to be terminated altogether, as of now.

    Returns
    -------
    list of str
        The instances that were still billed at the end; AWS goes on terminating them by itself.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    # Each is tried, whatever becomes of the others.
    zeroed = await asyncio.gather(*(autoscaling.set_zero(aws, name) for name in groups), return_exceptions=True)
    for failed in filter(None, zeroed):
        raise failed
    tidied = asyncio.ensure_future(tidying())
    try:
        while left := await _left(aws, pool, groups, gone()):
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
    """Empty a pool that was made, and free it: the claim goes last. See `empty`."""
    groups = [pool.names.group(group) for group in pool.groups]

    async def tidying() -> None:
        # What the lease would do has been done.
        leases = [autoscaling.drop_lease(pool.aws, group, LEASE_ACTION) for group in groups]
        marks = [autoscaling.untag(pool.aws, groups, WARM_TAG)] if pool.keeps else []
        await together(_own(pool), *leases, *marks)

    left = await empty(pool.aws, pool.name, groups, patience, poll, tidying=tidying, gone=gone)
    await ssm.remove(pool.aws, pool.names.claim)
    return left


async def give_back_warm(pool: Pool) -> None:
    """Free a pool that keeps its instances, and its lease with them; the claim goes last."""
    await _own(pool)
    await ssm.remove(pool.aws, pool.names.claim)


async def _own(pool: Pool) -> None:
    """Take back what is the session's own: its certificates, and the way in."""
    await together(
        ssm.remove(pool.aws, pool.names.secret),
        ec2.dismiss_callers(pool.aws, pool.head_security_group),
    )


async def _left(aws: AWS, pool: str, groups: Sequence[str], gone: Collection[str]) -> list[str]:
    billed = await ec2.billed(aws, MANAGED_TAG, pool)
    if billed or not groups:
        return billed
    # EC2 may not show yet what Auto Scaling has just launched.
    seen = (await autoscaling.describe(aws, groups)).values()
    return [i for group in seen for i, _, leaving in group.instances if not leaving or group.name in gone]


async def undo(aws: AWS, names: PoolNames, entrance: str | None, patience: float, poll: float) -> list[str]:
    """Take back what was made of a claimed pool before its making failed: what runs in it, and the way in.

    Parameters
    ----------
    aws : AWS
        The account.
    names : PoolNames
        Of the pool; its claim is ours.
    entrance : str or None
        The security group that may admit a caller by now.
    patience, poll : float
        Seconds to wait at most, and between the first two polls.

    Returns
    -------
    list of str
        As of `empty`.
    """
    # By tag: which groups there are depends on how far the making came.
    found = (await autoscaling.tagged(aws, MANAGED_TAG, names.pool)).get(names.pool, [])
    groups = [group.name for group, _ in found]

    async def tidying() -> None:
        leases = [autoscaling.drop_lease(aws, group, LEASE_ACTION) for group in groups]
        entrances = [ec2.dismiss_callers(aws, entrance)] if entrance is not None else []
        await together(ssm.remove(aws, names.secret), *entrances, *leases)

    left = await empty(aws, names.pool, groups, patience, poll, tidying=tidying)
    await ssm.remove(aws, names.claim)
    return left


async def end_tasks(pool: Pool, poll: float, *, at_once: bool) -> None:
    """See the tasks of a pool end whose instances stay, and stop those that do not end by themselves.

    `at_once`: no scheduler has told them to end.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (0.0 if at_once else _GRACE)
    while tasks := await ecs.running(pool.aws, pool.name):
        if loop.time() >= deadline:
            await together(*(ecs.stop_task(pool.aws, pool.name, task, "cluster closed") for task in tasks))
            return
        await asyncio.sleep(poll)


async def attempt(what: str, work: Awaitable[object]) -> bool:
    """Do one part of a clean-up and go on with the next if it fails; whether it worked."""
    try:
        await work
    except StarburstError as error:
        logger.error("%s failed: %s", what, error)
        return False
    return True
