"""Pools that keep their instances for the next cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from dask_starburst.aws import ecs, ssm
from dask_starburst.errors import PermissionDenied
from dask_starburst.fleet.pool import claims, discovery, reuse
from dask_starburst.fleet.pool.pool import Pool, claim
from dask_starburst.local import faults
from dask_starburst.plan.requests.pool import PoolNames
from tests.support.placements import HEAD, SPOT
from tests.support.pools import POLL, Pools, eventually

WARM = 600.0
PATIENCE = 5.0


async def kept_pool(pools: Pools, workers: int = 2) -> Pool:
    """Return a pool that a session has released with its ready instances."""
    pool = await pools.checked_out()
    await pools.filled(pool, workers)
    assert await reuse.keep(pool, WARM, PATIENCE, POLL) is not None
    return pool


async def claimed_again(pools: Pools, pool: Pool) -> Pool:
    """Check out a pool that is kept, as a session does that does not keep it afterwards."""
    assert await claim(pools.aws, pool.names, "next", "arn")
    await reuse.extend_lease(pools.aws, pool.name, pools.aws.now() + 1800)
    return await pools.make(pool.spec, pool.names, "next")


async def disconnect(pools: Pools, pool: Pool, instances: Iterable[str]) -> None:
    """Disconnect the ECS agents of these instances."""
    await asyncio.to_thread(pools.local.play, [faults.AgentLost(instance=one) for one in instances])

    async def gone() -> bool:
        return not {*instances} & {host.instance for host in await ecs.hosts(pools.aws, pool.name) if host.ready}

    await eventually(gone, "the agents are disconnected")


def ends_itself(pools: Pools, instance: str) -> None:
    """Terminate an instance as the reaper on it does."""
    group = pools.local.client("autoscaling")
    group.terminate_instance_in_auto_scaling_group(InstanceId=instance, ShouldDecrementDesiredCapacity=True)


def test_a_kept_pool_is_free_and_its_instances_and_lease_stay(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        await ssm.put_secret(pools.aws, pool.names.secret, "certificates")
        instances = await pools.filled(pool, 2)
        before = pools.aws.now()
        kept = await reuse.keep(pool, WARM, PATIENCE, POLL)
        assert kept is not None
        assert kept.instances == 3
        assert before + WARM <= kept.until <= pools.aws.now() + WARM
        assert await pools.staying(pool) == instances
        assert await pools.leases(pool) == pytest.approx([kept.until] * len(pool.group_names), abs=1)
        assert await pools.kept_until(pool) == {name: pytest.approx(kept.until, abs=1) for name in pool.group_names}
        assert await claims.read(pools.aws, pool.names) is None
        assert await ssm.read(pools.aws, pool.names.secret) == ssm.FORGOTTEN
        assert pools.ingress(pool.head_security_group) == []

    asyncio.run(story())


def test_an_instance_without_a_connected_agent_is_terminated_instead_of_a_ready_one(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        instances = await pools.filled(pool, 2)
        newest = (await pools.group(pool)).staying[-1][0]
        await disconnect(pools, pool, [newest])
        kept = await reuse.keep(pool, WARM, PATIENCE, POLL)
        assert kept is not None
        assert kept.instances == 2
        assert await pools.staying(pool) == instances - {newest}
        assert (await pools.group(pool)).desired == 1

    asyncio.run(story())


def test_no_ready_instance_is_lost_when_another_one_terminates_at_the_same_moment(pools: Pools) -> None:
    """AWS refuses the whole call then; lowering the desired capacity would let AWS choose a ready instance."""

    async def story() -> None:
        pool = await pools.checked_out()
        await pools.filled(pool, 3)
        ready, faulty, ending = [instance for instance, _ in (await pools.group(pool)).staying]
        await disconnect(pools, pool, [faulty, ending])
        pools.just_before("TerminateInstanceInAutoScalingGroup", lambda: ends_itself(pools, ending))
        assert await reuse.keep(pool, WARM, PATIENCE, POLL) is not None
        assert [instance for instance, _ in (await pools.group(pool)).staying] == [ready]

    asyncio.run(story())


def test_a_pool_whose_faulty_instance_cannot_be_terminated_stays_claimed(pools: Pools) -> None:
    """The release is repeated, or empties the pool: no instance that AWS chooses is terminated instead."""

    async def story() -> None:
        pool = await pools.checked_out()
        instances = await pools.filled(pool, 2)
        await disconnect(pools, pool, [(await pools.group(pool)).staying[-1][0]])
        refused = "You are not authorized"
        pools.local.inject("autoscaling:TerminateInstanceInAutoScalingGroup", "AccessDenied", refused, status=403)
        with pytest.raises(PermissionDenied):
            await reuse.keep(pool, WARM, PATIENCE, POLL)
        assert await pools.staying(pool) == instances
        assert await claims.read(pools.aws, pool.names) is not None

    asyncio.run(story())


def test_a_pool_without_a_ready_instance_is_not_kept(pools: Pools) -> None:
    async def story() -> None:
        pool = await pools.checked_out()
        await disconnect(pools, pool, await pools.filled(pool, 1))
        assert await reuse.keep(pool, WARM, PATIENCE, POLL) is None
        assert await claims.read(pools.aws, pool.names) is not None, "its session still has to empty it"

    asyncio.run(story())


def test_a_kept_pool_may_launch_every_type_again(pools: Pools) -> None:
    """A session excludes types that failed; AWS replaces an unhealthy instance of the kept pool from all of them."""

    async def story() -> None:
        pool = await pools.checked_out()
        await pools.filled(pool, 1)
        await pool.set_types(SPOT, pool.allowed(SPOT)[-1:])
        assert await reuse.keep(pool, WARM, PATIENCE, POLL) is not None
        assert (await pools.group(pool)).types == pool.allowed(SPOT)

    asyncio.run(story())


def test_idle_instances_of_a_claimed_pool_outlive_the_start_but_not_its_cluster(pools: Pools) -> None:
    """Without the tag an instance that was idle for long would terminate itself before its first task."""

    async def story() -> None:
        pool = await claimed_again(pools, await kept_pool(pools))
        now, kept = pools.aws.now(), await pools.kept_until(pool)
        assert kept.keys() == {pool.names.group(HEAD), pool.names.group(SPOT)}
        assert all(now + 60 < until < now + 180 for until in kept.values())
        assert min(await pools.leases(pool)) == pytest.approx(now + 1800, abs=5)

    asyncio.run(story())


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped by its user", "emptied by its lease"])
def test_new_instances_of_a_pool_that_was_kept_do_not_stay_idle(pools: Pools, stopped: bool) -> None:
    async def story() -> None:
        pool = await kept_pool(pools)
        if stopped:
            await discovery.stop(pools.aws, await discovery.find_one(pools.aws, pool.name))
        else:
            await asyncio.to_thread(emptied_by_lease, pools, pool)
        again = await claimed_again(pools, pool)
        await again.open(3, pools.aws.now() + 1800, pools.patience)
        assert await pools.kept_until(again) == {}

    asyncio.run(story())


def emptied_by_lease(pools: Pools, pool: Pool) -> None:
    """Execute the leases of a pool early, with the tags that say how long its instances were to be kept."""
    client = pools.local.client("autoscaling")
    for name in pool.group_names:
        client.update_auto_scaling_group(AutoScalingGroupName=name, MinSize=0, MaxSize=0, DesiredCapacity=0)


def test_the_smallest_kept_pool_with_enough_workers_is_claimed_first(pools: Pools) -> None:
    async def story() -> list[int]:
        plan = pools.blueprint()
        spec, made = plan.spec(pools.account), []
        for slot, workers in enumerate((3, 1, 2)):
            names = PoolNames(spec.pool_name(slot))
            assert await claim(pools.aws, names, "session", "arn")
            pool = await pools.make(spec, names, "session")
            await pools.filled(pool, workers)
            assert await reuse.keep(pool, WARM, PATIENCE, POLL) is not None
            made.append(pool.name)
        tried: list[PoolNames] = []
        claimed = [
            await reuse.claim_best(pools.aws, spec, 2, f"{n}", "arn", pools.patience, tried.append) for n in range(4)
        ]
        assert [names.pool for names in tried] == [one.name for one in claimed], "no claim was refused"
        assert [one.workers for one in claimed] == [2, 3, 1, 0]
        return [made.index(one.name) if one.name in made else -1 for one in claimed]

    assert asyncio.run(story()) == [2, 0, 1, -1], "then a pool that does not exist yet"


def test_sessions_that_claim_at_the_same_time_get_different_pools(pools: Pools) -> None:
    async def story() -> None:
        spec = pools.blueprint().spec(pools.account)
        claims = (
            reuse.claim_best(pools.aws, spec, 1, f"{n}", "arn", pools.patience, lambda names: None) for n in range(4)
        )
        found = await asyncio.gather(*claims)
        assert len({one.name for one in found}) == 4

    asyncio.run(story())


def test_a_pool_whose_instances_are_about_to_terminate_is_not_claimed(pools: Pools) -> None:
    async def story() -> None:
        pool = await kept_pool(pools, 1)
        await asyncio.to_thread(pools.local.advance, WARM - 10)
        found = await reuse.claim_best(pools.aws, pool.spec, 1, "next", "arn", pools.patience, lambda names: None)
        assert found.name != pool.name
        assert found.instances == 0

    asyncio.run(story())
