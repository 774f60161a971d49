"""A pool is released empty: what is billed ends first, and the claim goes last."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from dask_starburst.aws import autoscaling, ssm
from dask_starburst.errors import AWSError, PermissionDenied
from dask_starburst.fleet.pool import claims, release
from dask_starburst.fleet.pool.pool import Pool, owns
from dask_starburst.plan.requests.pool import LEASE_ACTION
from tests.support.placements import HEAD
from tests.support.pools import POLL, Pools

PATIENCE = 5.0
DENIED = "User is not authorized to perform this"


async def billed(pools: Pools, pool: Pool) -> set[str]:
    """Return the instances of a pool that EC2 bills."""
    ours = [{"Name": "tag:starburst:pool", "Values": [pool.name]}]
    states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping"]}]
    found = await asyncio.to_thread(pools.local.client("ec2").describe_instances, Filters=ours + states)
    return {instance["InstanceId"] for r in found["Reservations"] for instance in r["Instances"]}


def test_an_emptied_pool_costs_nothing_and_is_free(pools: Pools) -> None:
    async def story() -> None:
        pool = replace(await pools.checked_out(), keeps=True)
        await ssm.put_secret(pools.aws, pool.names.secret, "certificates")
        assert len(await pools.filled(pool, 2)) == 3
        assert await release.empty_pool(pool, PATIENCE, POLL) == []
        assert await billed(pools, pool) == set()
        assert await pools.leases(pool) == []
        assert await pools.kept_until(pool) == {}
        assert await ssm.read(pools.aws, pool.names.secret) == ssm.FORGOTTEN
        assert await claims.read(pools.aws, pool.names) is None

    asyncio.run(story())


def test_a_group_that_aws_refuses_to_empty_does_not_keep_the_others_and_the_pool_stays_claimed(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        await pools.filled(pool, 2)
        pools.local.inject("autoscaling:UpdateAutoScalingGroup", "AccessDenied", DENIED, status=403)
        with pytest.raises(PermissionDenied):
            await release.empty_pool(pool, PATIENCE, POLL)
        sizes = [(await pools.group(pool, each)).desired for each in pool.placements]
        assert sorted(sizes)[0] == 0, "the other group is at zero"
        assert await owns(pools.aws, pool.names, "session")
        assert None not in [await autoscaling.lease_end(pools.aws, n, LEASE_ACTION) for n in pool.group_names]
        assert await release.empty_pool(pool, PATIENCE, POLL) == [], "a repetition releases it"
        assert await billed(pools, pool) == set()

    asyncio.run(story())


def test_what_is_still_billed_at_the_end_is_returned(pools: Pools) -> None:
    """An instance that AWS does not terminate in time, here since it belongs to no group any more."""

    async def story() -> None:
        pool = await pools.checked_out()
        await pools.filled(pool, 1)
        [(stray, _)] = (await pools.group(pool)).staying
        client = pools.local.client("ec2")
        tags = [{"Key": "starburst:pool", "Value": pool.name}]
        [image] = {i["ImageId"] for r in client.describe_instances()["Reservations"] for i in r["Instances"]}
        found = client.run_instances(
            ImageId=image,
            MinCount=1,
            MaxCount=1,
            InstanceType="t4g.small",
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        other = found["Instances"][0]["InstanceId"]
        assert await release.empty_pool(pool, 0.2, POLL) == [other]
        assert stray not in await billed(pools, pool)
        client.terminate_instances(InstanceIds=[other])

    asyncio.run(story())


def test_a_pool_that_was_never_complete_is_undone_by_its_tags(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        await pools.filled(pool, 1)
        client = pools.local.client("autoscaling")
        client.delete_auto_scaling_group(AutoScalingGroupName=pool.names.group(HEAD), ForceDelete=True)
        left = await release.undo(pools.aws, pool.names, pool.head_security_group, PATIENCE, POLL)
        assert left == []
        assert await billed(pools, pool) == set()
        assert await claims.read(pools.aws, pool.names) is None
        assert pools.ingress(pool.head_security_group) == []

    asyncio.run(story())


def test_a_pool_of_which_nothing_was_created_is_undone(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        client = pools.local.client("autoscaling")
        for name in pool.group_names:
            client.delete_auto_scaling_group(AutoScalingGroupName=name, ForceDelete=True)
        assert await release.undo(pools.aws, pool.names, None, PATIENCE, POLL) == []
        assert await claims.read(pools.aws, pool.names) is None

    asyncio.run(story())


def test_a_failed_step_of_a_clean_up_is_logged_and_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    async def refused() -> None:
        raise AWSError("AWS denies it")

    async def story() -> tuple[bool, bool]:
        return await release.attempt("emptying", refused()), await release.attempt("waiting", asyncio.sleep(0))

    assert asyncio.run(story()) == (False, True)
    assert "emptying failed: AWS denies it" in caplog.text
