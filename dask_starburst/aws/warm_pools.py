"""Warm pools of Auto Scaling groups: instances that have booted once and are stopped until they are needed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from dask_starburst.aws.autoscaling import GroupSeen, describe
from dask_starburst.aws.session import AWS
from dask_starburst.errors import StarburstError

#: A deletion takes as long as an instance takes to terminate (seconds).
_PATIENCE = 120.0
_PAUSE = 1.0


async def put(aws: AWS, name: str) -> None:
    """Give a group a warm pool of stopped instances, as many as its maximum leaves above its desired capacity.

    Neither MinSize nor MaxGroupPreparedCapacity: with them its size would not go by the group's maximum, and
    the lease, which sets that to zero, would leave it alone
    (docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutWarmPool.html).
    """
    await aws.call("autoscaling", "PutWarmPool", AutoScalingGroupName=name, PoolState="Stopped", MinSize=0)


async def delete(aws: AWS, name: str) -> None:
    """Delete the warm pool of a group with all that it has; fine when there is none."""
    try:
        await aws.call("autoscaling", "DeleteWarmPool", AutoScalingGroupName=name, ForceDelete=True)
    except StarburstError:
        # AWS's words about one that is not there are not documented: so look.
        found = (await describe(aws, [name], instances=False)).get(name)
        if found is not None and found.stopped is not None and not found.warm_pool_goes:
            raise


async def delete_all(aws: AWS, groups: Iterable[GroupSeen]) -> None:
    """Delete the warm pools of the groups that have one."""
    await asyncio.gather(*(delete(aws, group.name) for group in groups if group.stopped is not None))


async def settled(aws: AWS, name: str) -> GroupSeen:
    """Return a group once the deletion of an earlier warm pool is over, or has taken too long."""
    deadline = aws.now() + _PATIENCE
    while True:
        group = (await describe(aws, [name]))[name]
        if not group.warm_pool_goes or aws.now() > deadline:
            return group
        await asyncio.sleep(_PAUSE)


async def order(aws: AWS, name: str, desired: int, maximum: int) -> None:
    """Order instances, and say in the same call how many a group may have: the rest are in its warm pool."""
    await aws.call(
        "autoscaling",
        "UpdateAutoScalingGroup",
        AutoScalingGroupName=name,
        DesiredCapacity=desired,
        MaxSize=maximum,
    )


async def limit(aws: AWS, name: str, maximum: int) -> None:
    """Say how many instances a group may have, those of its warm pool included."""
    await aws.call("autoscaling", "UpdateAutoScalingGroup", AutoScalingGroupName=name, MaxSize=maximum)
