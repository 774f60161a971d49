"""The loop of a controller stops when it is stopped, and goes on at once where there is more to do."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import pytest

from dask_starburst.errors import SchedulerFailed
from dask_starburst.events import EventLog
from dask_starburst.fleet.capacity.interface import Ran, Report
from dask_starburst.fleet.controller.loop import Controller
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.state import (
    Action,
    Instance,
    Limits,
    Name,
    Observed,
    RunTask,
    ScalingGroup,
    Task,
    Worker,
)
from tests.support.no_capacity import NoCapacity, NoDask
from tests.support.placements import ONLY_SPOT, SPOT


def a_controller(lease: Lease | None = None) -> tuple[Controller, NoCapacity]:
    capacity, limits = NoCapacity(), Limits(placements=ONLY_SPOT)
    lease = lease or Lease(1800, capacity.time)
    return Controller(capacity, NoDask(), EventLog().emit, limits, lease, 3600.0), capacity


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
        controller, capacity = a_controller(lease)
        controller.start()
        await some_steps(50)
        await controller.stop()
        return len(capacity.renewals)

    assert asyncio.run(work(closing=False)) > 0
    assert asyncio.run(work(closing=True)) == 0


class Ready(NoCapacity):
    """Has an instance for each of three workers, and starts every task."""

    async def observe(
        self, before: Observed, workers: Collection[Worker], members: frozenset[Name], now: float
    ) -> Observed:
        here = [Instance(f"i-{n}", SPOT, "c7g.xlarge", f"arn:i-{n}", connected=True, seen=True) for n in range(3)]
        return replace(before, groups={SPOT: ScalingGroup(SPOT, 3)}, instances={i.id: i for i in here})

    async def prepare(self, observed: Observed) -> None:
        """Nothing is missing."""

    async def renew(self, until: float) -> None:
        """Succeed."""

    async def apply(self, actions: Iterable[Action], observed: Observed, report: Report) -> None:
        for run in actions:
            if isinstance(run, RunTask):
                task = Task(f"t-{run.worker}", run.worker, run.launch, "PENDING", f"arn:{run.instance}")
                report(Ran((run,), (task,), ()))


def test_tasks_that_one_decision_may_not_start_are_started_by_the_next_without_a_pause():
    async def work() -> None:
        capacity, limits = Ready(), Limits(placements=ONLY_SPOT, starts=1)
        lease = Lease(1800, capacity.time)
        controller = Controller(capacity, NoDask(), EventLog().emit, limits, lease, 3600.0)
        for name in range(3):
            controller.roster.request(name, DEFAULT)
        controller.start()
        async with asyncio.timeout(90):
            await controller.until(lambda: len(controller.roster.observed.tasks) == 3)
        await controller.stop()

    asyncio.run(work())
