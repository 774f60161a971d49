"""What is found in an account by tags and claims, and what of it may be stopped and deleted by whom."""

from __future__ import annotations

import asyncio

import pytest

from dask_starburst.aws import ssm
from dask_starburst.errors import BadArgument
from dask_starburst.fleet.pool import claims, discovery, reuse
from dask_starburst.fleet.pool.pool import Pool, claim, owns
from dask_starburst.plan.requests.claims import Claim
from dask_starburst.plan.requests.garbage import CLAIM_GRACE, Garbage, PoolFound
from dask_starburst.plan.requests.pool import PoolNames
from tests.support.pools import POLL, Pools

WARM = 600.0


@pytest.fixture(autouse=True)
def _user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ann")


async def found(pools: Pools, pool: Pool) -> PoolFound:
    return await discovery.find_one(pools.aws, pool.name)


async def running(pools: Pools, workers: int = 1) -> Pool:
    """Return a pool that a cluster of this user uses."""
    pool = await pools.checked_out()
    await pools.filled(pool, workers)
    return pool


async def kept(pools: Pools) -> Pool:
    """Return a free pool with ready instances."""
    pool = await running(pools)
    assert await reuse.keep(pool, WARM, 5.0, POLL) is not None
    return pool


async def claimed_by(pools: Pools, pool: Pool, owner: str, since: float, *, cleaning: bool = False) -> None:
    """Let another user hold the claim of a pool."""
    await claims.free(pools.aws, pool.names)
    assert await claims.take(pools.aws, pool.names, Claim("other", owner, "arn:other", since, cleaning))


def test_a_running_pool_is_shown_with_its_owner_instances_price_and_lease(pools: Pools) -> None:
    async def story() -> None:
        pool = await found(pools, await running(pools, 2))
        assert pool.claim is not None
        assert (pool.state, pool.claim.owner, pool.running, pool.desired, pool.warm) == ("in use", "ann", 3, 3, 2)
        assert pool.lease == pytest.approx(pools.aws.now() + 1800, abs=30)
        assert pool.usd_per_hour is not None
        assert pool.usd_per_hour > 0

    asyncio.run(story())


def test_a_pool_whose_client_is_gone_is_expired_once_its_lease_has_ended(pools: Pools) -> None:
    async def story() -> None:
        pool = await running(pools)
        assert (await found(pools, pool)).state == "in use"
        await asyncio.to_thread(pools.local.advance, 1800 + 60)
        assert (await found(pools, pool)).state == "expired"

    asyncio.run(story())


def test_a_new_claim_counts_as_in_use_before_it_has_a_lease(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        assert (await found(pools, pool)).state == "in use"
        await asyncio.to_thread(pools.local.advance, CLAIM_GRACE + 1)
        assert (await found(pools, pool)).state == "expired"

    asyncio.run(story())


def test_an_unknown_pool_is_an_error_that_names_the_region(pools: Pools) -> None:
    with pytest.raises(BadArgument, match="'starburst-none-0' does not exist in us-east-1"):
        asyncio.run(discovery.find_one(pools.aws, "starburst-none-0"))


def test_the_owner_stops_a_running_pool_which_stays_claimed(pools: Pools) -> None:
    async def story() -> None:
        pool = await running(pools)
        await discovery.stop(pools.aws, await found(pools, pool))
        await pools.empty(pool)
        assert await owns(pools.aws, pool.names, "session"), "its cluster still has to end"

    asyncio.run(story())


def test_a_pool_of_another_user_is_not_stopped(pools: Pools) -> None:
    async def story() -> None:
        pool = await running(pools)
        await claimed_by(pools, pool, "bob", pools.aws.now())
        with pytest.raises(BadArgument, match=r"in use by bob \(arn:other\); you are ann .* Only its owner"):
            await discovery.stop(pools.aws, await found(pools, pool))
        assert len(await pools.staying(pool)) == 2

    asyncio.run(story())


def test_the_same_user_name_with_other_credentials_is_another_user(pools: Pools) -> None:
    async def story() -> None:
        pool = await running(pools)
        await claimed_by(pools, pool, "ann", pools.aws.now())
        with pytest.raises(BadArgument, match="Only its owner can stop it"):
            await discovery.may_stop(pools.aws, await found(pools, pool))

    asyncio.run(story())


def test_a_warm_pool_is_stopped_by_anyone_and_free_afterwards(pools: Pools) -> None:
    async def story() -> None:
        pool = await kept(pools)
        assert (await found(pools, pool)).warm == 1
        await discovery.stop(pools.aws, await found(pools, pool))
        await pools.empty(pool)
        now = await found(pools, pool)
        assert (now.state, now.desired, now.lease) == ("free", 0, None)

    asyncio.run(story())


def test_a_warm_pool_that_a_cluster_has_just_claimed_is_not_stopped(pools: Pools) -> None:
    async def story() -> None:
        pool = await kept(pools)
        before = await found(pools, pool)
        assert await claim(pools.aws, pool.names, "next", "arn")
        with pytest.raises(BadArgument, match="has just been checked out by a new cluster; nothing was stopped"):
            await discovery.stop(pools.aws, before)
        assert len(await pools.staying(pool)) == 2

    asyncio.run(story())


def test_a_pool_in_use_is_not_deleted(pools: Pools) -> None:
    async def story() -> None:
        pool = await running(pools)
        with pytest.raises(BadArgument, match="in use by ann; close its cluster, or stop the pool, first"):
            await discovery.delete(pools.aws, pool.name)
        assert len(await pools.staying(pool)) == 2

    asyncio.run(story())


def test_a_pool_that_is_gone_already_is_not_an_error(pools: Pools) -> None:
    assert asyncio.run(discovery.delete(pools.aws, "starburst-none-0")) is False


def test_a_pool_that_was_claimed_since_it_was_listed_is_not_collected(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        await claims.free(pools.aws, pool.names)
        [listed] = [each for each in await discovery.garbage(pools.aws) if each.name == pool.name]
        assert listed.why == "free and unused"
        assert await claim(pools.aws, pool.names, "next", "arn")
        assert await discovery.collect(pools.aws, listed) is False
        assert (await found(pools, pool)).state == "in use"

    asyncio.run(story())


def test_certificates_that_a_new_cluster_has_written_since_they_were_listed_are_not_collected(pools: Pools) -> None:
    """A pool that was deleted is created again under the same name, and its certificates too."""

    async def story() -> None:
        names = PoolNames("starburst-00000000-7")
        await ssm.put_secret(pools.aws, names.secret, "left by a deleted pool")
        [listed] = [each for each in await discovery.garbage(pools.aws) if each.name == names.secret]
        assert listed == Garbage(names.secret, "parameter without a pool")
        assert await claim(pools.aws, names, "next", "arn")
        await ssm.put_secret(pools.aws, names.secret, "of the new cluster")
        assert await discovery.collect(pools.aws, listed) is False
        assert await ssm.read(pools.aws, names.secret) == "of the new cluster"

    asyncio.run(story())


def test_certificates_without_a_pool_are_collected(pools: Pools) -> None:
    async def story() -> None:
        name = PoolNames("starburst-00000000-8").secret
        await ssm.put_secret(pools.aws, name, "left by a deleted pool")
        [listed] = [each for each in await discovery.garbage(pools.aws) if each.name == name]
        assert await discovery.collect(pools.aws, listed) is True
        assert await ssm.read(pools.aws, name) is None

    asyncio.run(story())


def test_an_interrupted_deletion_is_collected(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        await claimed_by(pools, pool, "bob", pools.aws.now(), cleaning=True)
        [listed] = [each for each in await discovery.garbage(pools.aws) if each.name == pool.name]
        assert listed.why == "deletion was interrupted"
        assert await discovery.collect(pools.aws, listed) is True
        assert pool.name not in {each.name for each in await discovery.find(pools.aws)}

    asyncio.run(story())
