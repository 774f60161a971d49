"""Giving a pool back empty: the bill first, then what is only untidy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from dask_starburst.aws import autoscaling, ec2, ecs, ssm
from dask_starburst.errors import StarburstError
from dask_starburst.fleet.pool import Pool
from dask_starburst.plan.pool import LEASE_ACTION
from dask_starburst.plan.warm import WARM_TAG

logger = logging.getLogger(__name__)


async def empty(pool: Pool, patience: float, poll: float) -> list[str]:
    """End everything that runs in the pool and wait until it has.

    Parameters
    ----------
    pool : Pool
        Checked out by us.
    patience, poll : float
        Seconds to wait at most, and between looks.

    Returns
    -------
    list of str
        What was still there at the end; AWS goes on terminating it by itself.
    """
    names = [pool.names.group(group) for group in pool.groups]
    await asyncio.gather(*(autoscaling.set_zero(pool.aws, name) for name in names))
    await attempt("deleting the warm pool", pool.drop_stopped())
    await stop_tasks(pool)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while left := await _left(pool, names):
        if loop.time() > deadline:
            break
        await asyncio.sleep(poll)
    return left


async def give_back(pool: Pool, *, warm: bool = False) -> None:
    """Take back what belonged to this session, the claim last: then the pool is free.

    `warm`: its lease stays, because instances do.
    """
    names = pool.names
    groups = [names.group(group) for group in pool.groups]
    leases = () if warm else [autoscaling.drop_lease(pool.aws, group, LEASE_ACTION) for group in groups]
    if pool.keeps and not warm:
        await autoscaling.untag(pool.aws, groups, WARM_TAG)
    await asyncio.gather(
        ssm.remove(pool.aws, names.secret),
        ec2.dismiss_callers(pool.aws, pool.head_security_group),
        *leases,
    )
    await ssm.remove(pool.aws, names.claim)


async def stop_tasks(pool: Pool) -> None:
    """Stop every task of the pool; they end a little later."""
    tasks = await ecs.running(pool.aws, pool.name)
    await asyncio.gather(*(ecs.stop_task(pool.aws, pool.name, task, "cluster closed") for task in tasks))


async def _left(pool: Pool, names: list[str]) -> list[str]:
    groups, tasks = await asyncio.gather(autoscaling.describe(pool.aws, names), ecs.running(pool.aws, pool.name))
    instances = [i for group in groups.values() for i, _, _ in group.instances]
    stopped = [f"stopped instances of {group.name}" for group in groups.values() if group.stopped]
    return [*instances, *stopped, *tasks]


async def attempt(what: str, work: Awaitable[object]) -> bool:
    """Do one part of a clean-up and go on with the next if it fails; whether it worked."""
    try:
        await work
    except StarburstError as error:
        logger.error("%s failed: %s", what, error)
        return False
    return True
