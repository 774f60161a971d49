"""The loop of a controller stops when it is stopped."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dask_starburst.errors import AWSError, SchedulerFailed
from dask_starburst.events import EventLog
from dask_starburst.fleet.controller.launch import Launcher
from dask_starburst.fleet.controller.loop import Controller, SchedulerClient
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.loop.state import Limits
from dask_starburst.plan.requests.pool import PoolNames
from tests.support.placements import HEAD, ONLY_SPOT, SPOT


class NoAWS:
    """Refuses every call immediately."""

    def __init__(self) -> None:
        self.leases = 0

    def now(self) -> float:
        return 1000.0

    async def call(self, service: str, operation: str, **_: Any) -> dict[str, Any]:
        self.leases += operation == "PutScheduledUpdateGroupAction"
        raise AWSError(f"{service}:{operation} is refused.")

    async def pages(self, service: str, operation: str, key: str, **_: Any) -> list[Any]:
        raise AWSError(f"{service}:{operation} is refused.")


class NoDask:
    """A scheduler that does not exist."""

    def members(self) -> frozenset[str]:
        return frozenset()

    async def unrunnable(self) -> dict[str, str]:
        return {}

    async def lease(self) -> float:
        return 0.0

    async def notices(self, after: int) -> list[Any]:
        await asyncio.Event().wait()
        return []


def a_controller(lease: Lease | None = None) -> tuple[Controller, NoAWS]:
    aws, emit = NoAWS(), EventLog().emit
    spec = SimpleNamespace(placements=(HEAD, SPOT))
    pool = Pool(cast(Any, aws), cast(Any, spec), PoolNames("starburst-test-0"), "session", "sg-1")
    launcher = Launcher({}, 8786, {})
    limits = Limits(placements=ONLY_SPOT)
    dask = cast(SchedulerClient, NoDask())
    return Controller(pool, launcher, dask, emit, limits, lease or Lease(1800, 1000.0), 3600.0), aws


async def ended(work: Any) -> bool:
    """Whether a coroutine ends, with a generous timeout."""
    done, _ = await asyncio.wait([asyncio.ensure_future(work)], timeout=90)
    return bool(done)


async def some_steps(steps: int) -> None:
    for _ in range(steps):
        await asyncio.sleep(0)


@pytest.mark.parametrize("steps", range(5))
def test_a_controller_that_is_stopped_while_it_is_woken_stops(steps):
    """`asyncio.wait_for` of Python 3.11 discards the cancellation when the event that it waits for is set already."""

    async def work() -> bool:
        controller, _ = a_controller()
        controller.start()
        await some_steps(50)  # then it sleeps, for an hour
        controller.wake()
        await some_steps(steps)
        return await ended(controller.stop())

    assert asyncio.run(work())


def test_stopping_a_controller_ends_the_callers_of_until():
    async def work() -> None:
        controller, _ = a_controller()
        controller.start()
        waiting = asyncio.ensure_future(controller.until(lambda: False))
        await some_steps(50)
        await controller.stop()
        assert await ended(asyncio.wait([waiting]))
        await waiting

    with pytest.raises(SchedulerFailed, match="closed before"):
        asyncio.run(work())


def test_a_stopped_controller_starts_no_background_task():
    async def work() -> int:
        controller, _ = a_controller()
        controller.start()
        await controller.stop()
        controller._background.spawn(asyncio.sleep(3600))
        await asyncio.sleep(0)
        return len(asyncio.all_tasks())

    assert asyncio.run(work()) == 1  # this one


def test_a_lease_is_not_renewed_while_the_cluster_closes():
    async def work(closing: bool) -> int:
        lease = Lease(1800, -500.0)  # due
        lease.closing = closing
        controller, aws = a_controller(lease)
        controller.start()
        await some_steps(50)
        await controller.stop()
        return aws.leases

    assert asyncio.run(work(closing=False)) > 0
    assert asyncio.run(work(closing=True)) == 0
