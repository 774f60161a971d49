"""A pool is deleted in the order that AWS requires, and nothing else is."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dask_starburst.aws import ssm
from dask_starburst.errors import AWSError, PermissionDenied
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool.delete import remove, stop
from dask_starburst.fleet.pool.pool import Pool, claim, owns
from tests.support.cluster_asserts import objects
from tests.support.pools import Pools


async def of(pools: Pools, pool: Pool) -> dict[str, list[Any]]:
    """Return the resources of one pool by kind, without the kinds of which it has none."""
    found = await asyncio.to_thread(objects, pools.local)
    ours = {kind: [each for each in some if pool.name in str(each)] for kind, some in found.items()}
    return {kind: some for kind, some in ours.items() if some}


def test_everything_of_a_pool_goes_and_nothing_of_another_one(pools: Pools) -> None:
    async def story() -> None:
        pool, other = await pools.checked_out(), await pools.checked_out()
        await pools.filled(pool, 1)
        await pools.filled(other, 1)
        await ssm.put_secret(pools.aws, pool.names.secret, "certificates")
        before = await of(pools, other)
        assert (await of(pools, pool)).keys() == before.keys()
        await remove(pools.aws, pool.names, "session")
        assert await of(pools, pool) == {}
        assert await of(pools, other) == before
        assert len(await pools.staying(other)) == 2

    asyncio.run(story())


def test_a_deletion_that_aws_refuses_midway_is_resumed(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        await pools.filled(pool, 1)
        denied = "You are not authorized to perform this operation."
        pools.local.inject("ec2:DeleteLaunchTemplate", "UnauthorizedOperation", denied, status=403)
        with pytest.raises(PermissionDenied):
            await remove(pools.aws, pool.names, "session")
        left = await of(pools, pool)
        assert "templates" in left
        assert await owns(pools.aws, pool.names, "session"), "the claim goes last"
        await remove(pools.aws, pool.names, "session")
        assert await of(pools, pool) == {}

    asyncio.run(story())


def test_a_resource_that_is_busy_is_waited_for(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        pools.local.inject("ecs:DeleteCluster", "UpdateInProgressException", "There is an update in progress")
        await remove(pools.aws, pool.names, "session")
        assert await of(pools, pool) == {}

    asyncio.run(story())


def test_a_deletion_stops_when_another_session_has_claimed_the_pool(pools: Pools) -> None:
    """An earlier deletion may have finished, and a cluster may have created the pool again."""

    async def story() -> None:
        pool = await pools.checked_out()

        def claimed_again() -> None:
            client = pools.local.client("ssm")
            client.put_parameter(Name=f"{pool.names.claim}/2", Value=value, Type="String")

        value = '{"session": "next", "owner": "bob", "since": 0}'
        pools.just_before("DeleteLaunchTemplate", claimed_again)
        with pytest.raises(AWSError, match="claimed by another session while it was deleted; deletion stopped"):
            await remove(pools.aws, pool.names, "session")
        assert await owns(pools.aws, pool.names, "next")
        assert "security groups" in await of(pools, pool)

    asyncio.run(story())


def test_a_session_without_the_claim_deletes_nothing(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        before = await of(pools, pool)
        with pytest.raises(AWSError, match="deletion stopped"):
            await remove(pools.aws, pool.names, "another")
        await claims.free(pools.aws, pool.names)
        with pytest.raises(AWSError, match="deletion stopped"):
            await remove(pools.aws, pool.names, "session")
        assert await claim(pools.aws, pool.names, "session", "arn")
        after = await of(pools, pool)
        assert {**after, "parameters": []} == {**before, "parameters": []}

    asyncio.run(story())


def test_a_stopped_pool_stays_empty(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        await pools.filled(pool, 2)
        await stop(pools.aws, pool.name)
        groups = [await pools.group(pool, each) for each in pool.placements]
        assert [(group.desired, group.maximum) for group in groups] == [(0, 0)] * 2
        await pools.empty(pool)

    asyncio.run(story())
