"""The small clusters that questions are asked with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from dask_starburst.aws import autoscaling, ecs
from dask_starburst.cluster.starburst import StarburstCluster
from dask_starburst.fleet.pool import discovery
from dask_starburst.plan.requests.garbage import PoolFound
from dask_starburst.verify.model import Context

#: Every resource of a verification has these tags, so its pool is its own, and the user's Name is asked for.
TAGS = {"Name": "starburst verify", "starburst-verify": "yes"}
#: Seconds that instances of the first cluster stay for the next questions. AWS terminates them then in any case.
WARM = 900.0
#: US dollars. No question is asked with less left of the cap: half an hour of the two instances costs less.
LEAST = 0.05


@asynccontextmanager
async def small_cluster(context: Context, **settings: Any) -> AsyncIterator[StarburstCluster]:
    """Start a cluster with one on-demand worker under what is left of the cap; add its cost at the end."""
    keep: Any = {"idle_timeout": "10 minutes", "warm_timeout": WARM, **settings.pop("keep", {})}
    cluster = StarburstCluster(
        **context.where,
        asynchronous=True,
        quiet=True,
        n_workers=1,
        worker={"nthreads": 1},
        spot={"policy": "on-demand"},
        money={"max_total_cost": context.left},
        keep=keep,
        tags=TAGS,
        **settings,
    )
    try:
        async with cluster:
            await cluster.wait_for_workers(1)
            context.pool = cluster.report().pool
            context.pools.add(context.pool)
            yield cluster
    finally:
        context.spent += cluster.cost.usd
        context.simulated = context.simulated or cluster.cost.simulated


async def until(condition: Callable[[], bool], seconds: float, poll: float = 1.0) -> bool:
    """Wait until a condition holds, for at most `seconds`; return whether it does."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while not condition():
        if loop.time() > deadline:
            return False
        await asyncio.sleep(poll)
    return True


async def pool_found(context: Context) -> PoolFound:
    """Return the pool of the verification."""
    return await discovery.find_one(context.aws, context.pool)


async def workers_group(context: Context) -> autoscaling.GroupSeen:
    """Return the Auto Scaling group of the workers in the pool of the verification."""
    found = await pool_found(context)
    names = [group.name for group in found.groups if not group.name.endswith("-head")]
    return (await autoscaling.describe(context.aws, names))[names[0]]


async def warm_hosts(context: Context) -> list[ecs.Host]:
    """Return the instances of the pool that are ready and have no task."""
    return [host for host in await ecs.hosts(context.aws, context.pool) if host.ready and host.empty]
