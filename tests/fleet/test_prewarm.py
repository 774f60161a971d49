"""Instances that are launched before a cluster needs them."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from dask_starburst.errors import CapacityUnavailable, QuotaExceeded
from dask_starburst.fleet.blueprint import Blueprint
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool.discovery import find
from dask_starburst.fleet.pool.reuse import keep
from dask_starburst.fleet.prewarm import prewarm
from dask_starburst.local import faults
from dask_starburst.plan.requests.garbage import PoolFound
from dask_starburst.plan.requests.reuse import Kept
from tests.support.placements import HEAD, ON_DEMAND, SPOT
from tests.support.pools import POLL, Pools, eventually

WARM = 600.0


async def prewarmed(pools: Pools, plan: Blueprint, workers: int, said: list[str]) -> Kept:
    name, kept = await prewarm(pools.aws, plan, workers, WARM, said.append)
    assert name.startswith("starburst-")
    return kept


async def first_pool(pools: Pools, plan: Blueprint) -> PoolFound:
    """Return the first pool of a blueprint, as AWS describes it."""
    name = plan.spec(pools.account).pool_name(0)
    return next(pool for pool in await find(pools.aws, count_warm=True) if pool.name == name)


async def costs_nothing(pools: Pools, plan: Blueprint) -> None:
    """Wait until the first pool of a blueprint is free and has no instances."""

    async def empty() -> bool:
        pool = await first_pool(pools, plan)
        return (pool.state, pool.running, pool.desired, pool.lease) == ("free", 0, 0, None)

    await eventually(empty, "the pool is free and empty")


def test_one_instance_a_worker_and_one_for_the_scheduler_wait_in_a_free_pool(pools: Pools) -> None:
    async def story() -> None:
        plan, said = pools.blueprint(), list[str]()
        kept = await prewarmed(pools, plan, 2, said)
        assert kept.instances == 3
        assert said[-1] == "3 of 3 instances are ready"
        pool = await first_pool(pools, plan)
        assert (pool.state, pool.running, pool.warm) == ("free", 3, 2)
        assert pool.lease == pytest.approx(kept.until, abs=1)

    asyncio.run(story())


def test_every_type_of_the_group_may_be_launched_although_a_cluster_had_excluded_some(pools: Pools) -> None:
    async def story() -> None:
        plan = pools.blueprint()
        pool = await pools.checked_out(plan)
        await pool.set_types(SPOT, pool.allowed(SPOT)[-1:])
        await claims.free(pools.aws, pool.names)
        await prewarmed(pools, plan, 1, [])
        group = await pools.group(pool)
        assert group.types == pool.allowed(SPOT)
        assert [kind for _, kind in group.staying] != [pool.allowed(SPOT)[-1]]

    asyncio.run(story())


def test_a_warm_pool_is_topped_up_or_reduced_to_what_is_asked_for(pools: Pools) -> None:
    async def story() -> None:
        plan = pools.blueprint()
        sizes = []
        for workers in (1, 3, 2):
            await prewarmed(pools, plan, workers, [])
            pool = await first_pool(pools, plan)
            sizes.append((pool.running, pool.warm))
        assert sizes == [(2, 1), (4, 3), (3, 2)]

    asyncio.run(story())


def test_ready_instances_of_another_market_do_not_count_for_those_that_still_start(pools: Pools) -> None:
    async def story() -> None:
        plan = pools.blueprint(spot={"policy": "spot_with_fallback"})
        pool = await pools.checked_out(plan)
        await pool.open(3, pools.aws.now() + 1800, pools.patience)
        await asyncio.gather(pool.set_desired(HEAD, 1), pool.set_desired(ON_DEMAND, 2))
        await pools.ready(pool, 3)
        assert await keep(pool, WARM, 5.0, POLL) is not None
        await asyncio.to_thread(pools.local.play, [faults.SlowBoot(seconds=1.0, group="*-spot")])
        kept = await prewarmed(pools, plan, 1, [])
        assert {group.name.removeprefix(f"{pool.name}-"): group.desired for group in kept.groups} == {
            str(HEAD): 1,
            str(SPOT): 1,
            str(ON_DEMAND): 0,
        }

    asyncio.run(story())


def test_above_the_quota_nothing_is_launched_and_the_pool_stays_free(pools: Pools) -> None:
    async def story() -> None:
        plan = pools.blueprint()
        pool = await pools.checked_out(plan)
        await claims.free(pools.aws, pool.names)
        await asyncio.to_thread(pools.local.play, [faults.Quota(market="spot", vcpus=3)])
        with pytest.raises(QuotaExceeded, match="Nothing was launched"):
            await prewarmed(pools, plan, 2, [])
        await asyncio.to_thread(pools.local.play, [faults.Quota(market="spot", vcpus=None)])
        await costs_nothing(pools, plan)

    asyncio.run(story())


def test_without_a_ready_instance_in_time_the_pool_is_emptied_and_the_reason_is_said(pools: Pools) -> None:
    async def story() -> None:
        plan = pools.blueprint(timeouts={"capacity": 1, "connect": 1, "poll": 0.05, "close": 10})
        said: list[str] = []
        await asyncio.to_thread(pools.local.play, [faults.AgentNever(count=2)])
        with pytest.raises(CapacityUnavailable, match=r"no instance of pool .* connected to ECS within 2 s"):
            await prewarmed(pools, plan, 1, said)
        assert said[-1] == "0 of 2 instances are ready"
        await costs_nothing(pools, plan)

    asyncio.run(story())


def test_what_aws_said_about_a_missing_instance_is_reported_and_the_others_are_kept(pools: Pools) -> None:
    async def story() -> None:
        plan, said = pools.blueprint(timeouts={"capacity": 1, "connect": 1, "poll": 0.05}), list[str]()
        await asyncio.to_thread(pools.local.play, [faults.Refuses(market="spot", seconds=600)])
        kept = await prewarmed(pools, plan, 1, said)
        await asyncio.to_thread(pools.local.play, [faults.Clear()])
        assert [(group.name.rpartition("-")[2], group.desired) for group in kept.groups] == [("head", 1), ("spot", 0)]
        assert any(line.startswith("AWS failed to launch an instance: ") and "capacity" in line for line in said)

    asyncio.run(story())


def test_ctrl_c_while_instances_start_leaves_nothing_running(pools: Pools) -> None:
    async def story() -> None:
        plan, said = pools.blueprint(timeouts={"close": 10, "poll": 0.05}), list[str]()
        await asyncio.to_thread(pools.local.play, [faults.AgentNever(count=2)])
        warming = asyncio.ensure_future(prewarmed(pools, plan, 1, said))

        async def launched() -> bool:
            return "0 of 2 instances are ready" in said

        await eventually(launched, "its instances were requested")
        warming.cancel()
        with suppress(asyncio.CancelledError):
            await warming
        assert warming.cancelled()
        await costs_nothing(pools, plan)

    asyncio.run(story())


def test_two_prewarmings_at_the_same_time_fill_different_pools(pools: Pools) -> None:
    async def story() -> None:
        plan = pools.blueprint()
        both = await asyncio.gather(*(prewarm(pools.aws, plan, 1, WARM, lambda text: None) for _ in range(2)))
        assert len({name for name, _ in both}) == 2
        assert [kept.instances for _, kept in both] == [2, 2]
        assert HEAD in plan.spec(pools.account).placements

    asyncio.run(story())
