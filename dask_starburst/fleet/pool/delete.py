"""Delete a pool's resources, in the order that AWS requires; the claim last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from dask_starburst.aws import autoscaling, ec2, ecs, ssm
from dask_starburst.aws.faults import BUSY, code_of
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError, StarburstError
from dask_starburst.fleet.pool import claims
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.pool import PoolNames

#: An instance takes one or two minutes to terminate, and ECS notices it later.
PATIENCE = 600.0
POLL = 1.0


async def stop(aws: AWS, pool: str) -> None:
    """Empty every group of a pool, and keep it empty."""
    groups = (await autoscaling.tagged(aws, MANAGED_TAG, pool)).get(pool, [])
    await asyncio.gather(*(autoscaling.set_zero(aws, group.name) for group, _ in groups))


async def remove(aws: AWS, names: PoolNames, session: str) -> None:
    """Delete every resource of a pool that `session` has claimed.

    Idempotent: resources that are gone are skipped. The claim is deleted last, so that an interrupted deletion is
    found and resumed.

    Raises
    ------
    AWSError
        Another session has claimed the pool, or AWS was busy with it for too long.
    """
    pool = names.pool
    steps: tuple[Callable[[], Awaitable[None]], ...] = (
        lambda: stop(aws, pool),
        lambda: _stop_tasks(aws, pool),
        lambda: _remove_providers(aws, pool),
        lambda: _remove_groups(aws, pool),
        lambda: ec2.remove_launch_templates(aws, MANAGED_TAG, pool),
        lambda: ecs.remove_cluster(aws, pool),
        lambda: ecs.deregister_definitions(aws, f"{pool}-"),
        lambda: ec2.remove_security_groups(aws, MANAGED_TAG, pool),
        lambda: ssm.remove(aws, names.secret),
        lambda: claims.remove(aws, names),
    )
    deadline = asyncio.get_running_loop().time() + PATIENCE
    for step in steps:
        await _retry_while_busy(aws, names, session, step, deadline)


async def _retry_while_busy(
    aws: AWS, names: PoolNames, session: str, step: Callable[[], Awaitable[None]], deadline: float
) -> None:
    while True:
        # Another deletion may have finished first, and a new cluster may have claimed the pool since.
        if not (await claims.series(aws, names)).is_held_by(session):
            raise AWSError(f"pool {names.pool} was claimed by another session while it was deleted; deletion stopped.")
        try:
            return await step()
        except StarburstError as error:
            if code_of(error) not in BUSY or asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(POLL)


async def _stop_tasks(aws: AWS, pool: str) -> None:
    if await ecs.cluster_providers(aws, pool) is None:
        return
    tasks = await ecs.running(aws, pool)
    await asyncio.gather(*(ecs.stop_task(aws, pool, task, "pool removed") for task in tasks))


async def _remove_providers(aws: AWS, pool: str) -> None:
    attached = await ecs.cluster_providers(aws, pool)
    groups = (await autoscaling.tagged(aws, MANAGED_TAG, pool)).get(pool, [])
    if attached:
        await ecs.detach_providers(aws, pool)
    # An interrupted deletion may have detached them already; they have the names of the groups.
    await ecs.remove_providers(aws, sorted({*(attached or ()), *(group.name for group, _ in groups)}))


async def _remove_groups(aws: AWS, pool: str) -> None:
    groups = (await autoscaling.tagged(aws, MANAGED_TAG, pool)).get(pool, [])
    await asyncio.gather(*(autoscaling.remove_group(aws, group.name) for group, _ in groups))
    if groups:
        raise AWSError(f"the groups of pool {pool} are still being deleted.", code="ScalingActivityInProgress")
