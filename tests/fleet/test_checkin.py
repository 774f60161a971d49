"""The release of a session's pool while AWS fails: it is tried again, or its lease ends it, and both are said."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dask_starburst.events import EventLog, PoolKeptWarm, PoolLeft
from dask_starburst.fleet.blueprint import Blueprint
from dask_starburst.fleet.checkin import Release
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool.checkout import Checkout
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.fleet.pool.pool import Pool, claim, owns
from dask_starburst.local import faults
from tests.support.pools import POLL, Pools

WARM = {"warm_timeout": 600}
DENIED = "User is not authorized to perform this"


@pytest.fixture(autouse=True)
def _no_faults_left(pools: Pools) -> Iterator[None]:
    yield
    pools.local.play([faults.Clear()])


class Session:
    """A session with a pool that has two instances, and the release of it."""

    def __init__(self, pools: Pools, plan: Blueprint, pool: Pool) -> None:
        self.pools, self.pool, self.events = pools, pool, EventLog(quiet=True)
        self.checkout = Checkout(pools.aws, "session", pools.patience, pool.names, making=True)
        self.controller: Any = SimpleNamespace(error=None, roster=SimpleNamespace(scheduler=None))
        self.settings = plan.settings
        self.lease = Lease(1800.0, pools.aws.now())

    @classmethod
    async def running(cls, pools: Pools, close: float = 20, **settings: Any) -> Session:
        plan = pools.blueprint(timeouts={"close": close, "poll": POLL}, **settings)
        pool = replace(await pools.checked_out(plan), keeps="keep" in settings)
        await pools.filled(pool, 1)
        return cls(pools, plan, pool)

    async def end(self, **options: Any) -> list[str]:
        emit, controller = self.events.emit, cast(Any, self.controller)
        pool = options.pop("pool", self.pool)
        release = Release(self.pools.aws, self.settings, emit, self.checkout, pool, controller, self.lease)
        return await release.run(options.pop("may_stay", True), lambda: True)

    def said(self) -> list[type]:
        return [type(event) for event in self.events]

    async def is_free_and_empty(self) -> bool:
        claimed = await claims.read(self.pools.aws, self.pool.names)
        return claimed is None and not await self.pools.staying(self.pool)


def test_a_pool_is_released_empty_and_this_needs_no_words(pools: Pools) -> None:
    async def story() -> None:
        session = await Session.running(pools)
        assert await session.end() == []
        assert await session.is_free_and_empty()
        assert session.said() == []

    asyncio.run(story())


def test_with_warm_timeout_it_is_kept_and_its_price_is_said(pools: Pools) -> None:
    async def story() -> None:
        session = await Session.running(pools, keep=WARM)
        await session.end()
        assert len(await pools.staying(session.pool)) == 2
        [event] = session.events
        assert isinstance(event, PoolKeptWarm)
        assert (event.instances, "an hour" in event.kept) == (2, True)

    asyncio.run(story())


@pytest.mark.parametrize("why", ["it may not stay", "its cluster failed"])
def test_it_is_not_kept_warm_after_a_failure_or_if_the_caller_forbids_it(pools: Pools, why: str) -> None:
    async def story() -> None:
        session = await Session.running(pools, keep=WARM)
        session.controller.error = OSError("the scheduler was lost") if why == "its cluster failed" else None
        await session.end(may_stay=why != "it may not stay")
        assert await session.is_free_and_empty()

    asyncio.run(story())


def test_a_pool_that_another_session_has_claimed_is_not_touched(pools: Pools) -> None:
    """This computer slept, the lease expired, and another cluster uses the pool now."""

    async def story() -> None:
        session = await Session.running(pools)
        await claims.free(pools.aws, session.pool.names)
        assert await claim(pools.aws, session.pool.names, "another", "arn")
        assert await session.end() == []
        assert len(await pools.staying(session.pool)) == 2
        assert await owns(pools.aws, session.pool.names, "another")

    asyncio.run(story())


def test_a_release_is_repeated_while_aws_fails(pools: Pools) -> None:
    async def story() -> None:
        session = await Session.running(pools)
        await asyncio.to_thread(pools.local.play, [faults.Error(action="autoscaling:UpdateAutoScalingGroup", count=4)])
        assert await session.end() == []
        assert await session.is_free_and_empty()
        assert session.said() == []

    asyncio.run(story())


def test_a_release_that_aws_denies_is_said_at_once_with_the_end_of_the_lease(pools: Pools) -> None:
    async def story() -> None:
        session = await Session.running(pools)
        error = faults.Error(
            action="autoscaling:UpdateAutoScalingGroup", code="AccessDenied", message=DENIED, status=403, count=2
        )
        await asyncio.to_thread(pools.local.play, [error])
        assert await session.end() == []
        [event] = session.events
        assert isinstance(event, PoolLeft)
        assert "autoscaling:UpdateAutoScalingGroup" in event.why
        assert event.lease is not None
        assert event.lease == pytest.approx(pools.aws.now() + 1800, abs=10)
        # A scheduled action has whole seconds.
        assert min(await pools.leases(session.pool)) <= math.ceil(event.lease), "AWS empties it then"

    asyncio.run(story())


def test_a_release_ends_within_its_timeout_although_aws_fails_for_longer(pools: Pools) -> None:
    async def story() -> None:
        session = await Session.running(pools, close=1)
        await asyncio.to_thread(pools.local.play, [faults.Error(action="ssm:GetParametersByPath", seconds=600)])
        async with asyncio.timeout(30):
            await session.end()
        assert session.said() == [PoolLeft]

    asyncio.run(story())


def test_a_pool_that_cannot_be_kept_warm_is_emptied(pools: Pools, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        session = await Session.running(pools, keep=WARM)
        pools.local.inject("autoscaling:CreateOrUpdateTags", "AccessDenied", DENIED, status=403)
        await session.end()
        assert await session.is_free_and_empty()

    asyncio.run(story())
    assert "keeping the pool warm failed" in caplog.text


def test_a_session_that_only_claimed_a_pool_gives_it_back_untouched(pools: Pools) -> None:
    async def story() -> None:
        session = await Session.running(pools)
        session.checkout.making = False
        await session.end(pool=None)
        assert await claims.read(pools.aws, session.pool.names) is None
        assert len(await pools.staying(session.pool)) == 2

    asyncio.run(story())


def test_a_session_that_failed_while_it_created_its_pool_leaves_nothing_billed(pools: Pools) -> None:
    async def story() -> None:
        session = await Session.running(pools)
        await session.end(pool=None)
        assert await session.is_free_and_empty()

    asyncio.run(story())


def test_a_session_without_a_pool_has_nothing_to_release(pools: Pools) -> None:
    async def story() -> None:
        session = await Session.running(pools)
        session.checkout.names = None
        assert await session.end(pool=None) == []
        assert session.said() == []
        assert len(await pools.staying(session.pool)) == 2

    asyncio.run(story())
