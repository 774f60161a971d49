"""Warm pools as the clean-up meets them: there, on their way out, or not there at all."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from dask_starburst.aws import warm_pools
from dask_starburst.aws.session import AWS
from dask_starburst.discovery import find
from dask_starburst.errors import StarburstError
from dask_starburst.fleet import removal
from dask_starburst.local import LocalAWS
from tests.evidence import wait_until

ARM = "/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"
Run = Callable[[Callable[[AWS], Awaitable[Any]]], Any]


@pytest.fixture
def group(aws: LocalAWS) -> Iterator[str]:
    """Make a group that may have two instances, and bear our tag."""
    name = f"starburst-{uuid.uuid4().hex[:8]}-0"
    client, ec2 = aws.client("autoscaling"), aws.client("ec2")
    image = aws.client("ssm").get_parameter(Name=ARM)["Parameter"]["Value"]
    data = {"ImageId": image, "InstanceType": "c7g.large"}
    ec2.create_launch_template(LaunchTemplateName=name, LaunchTemplateData=data)
    client.create_auto_scaling_group(
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=2,
        LaunchTemplate={"LaunchTemplateName": name},
        VPCZoneIdentifier=ec2.describe_subnets()["Subnets"][0]["SubnetId"],
        Tags=[{"Key": "starburst:pool", "Value": name}],
    )
    yield name
    client.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)


@pytest.fixture
def run(aws: LocalAWS) -> Run:
    def run(work: Callable[[AWS], Awaitable[Any]]) -> Any:
        async def ask() -> Any:
            ours = AWS(session=aws.session())
            try:
                return await work(ours)
            finally:
                ours.close()

        return asyncio.run(ask())

    return run


def test_stopping_a_pool_ends_what_is_stopped_and_its_warm_pool(aws: LocalAWS, run: Run, group: str) -> None:
    run(lambda ours: warm_pools.put(ours, group))
    describe = aws.client("autoscaling").describe_warm_pool
    wait_until(lambda: len(describe(AutoScalingGroupName=group)["Instances"]) == 2, 60, "two are prepared")
    [pool] = [p for p in run(find) if p.name == group]
    assert (pool.stopped, pool.running) == (2, 0)
    run(lambda ours: removal.stop(ours, group))
    assert run(lambda ours: warm_pools.settled(ours, group)).stopped is None
    run(lambda ours: warm_pools.put(ours, group))  # and so there may be another


def test_deleting_what_is_not_there_is_no_error(run: Run, group: str) -> None:
    run(lambda ours: warm_pools.delete(ours, group))
    run(lambda ours: warm_pools.delete(ours, "starburst-none"))


def test_a_refusal_is_one_if_the_warm_pool_stays(aws: LocalAWS, run: Run, group: str) -> None:
    run(lambda ours: warm_pools.put(ours, group))
    text = "is not authorized to perform: autoscaling:DeleteWarmPool"
    aws.inject("autoscaling:DeleteWarmPool", "AccessDenied", text, status=403)
    with pytest.raises(StarburstError, match="DeleteWarmPool"):
        run(lambda ours: warm_pools.delete(ours, group))
