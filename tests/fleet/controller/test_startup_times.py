"""Which startups are measured, and which are not."""

from __future__ import annotations

from dask_starburst.fleet.controller.startup_times import StartupClock
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.adaptive import StartupTimes
from dask_starburst.plan.loop.state import Instance, Observed, Worker, WorkerState
from tests.support.placements import HEAD, SPOT

S = WorkerState


def seen(launched: float) -> Observed:
    return Observed(instances={"i-1": Instance("i-1", SPOT, "c7g.xlarge", "arn:1", launched=launched)})


def worker(state: WorkerState, placement: Placement = SPOT) -> Worker:
    return Worker("a", placement, state, instance="arn:1" if state is S.READY else None)


def test_the_startup_time_runs_from_the_capacity_request_to_the_registered_worker():
    clock = StartupClock()
    clock.note(worker(S.CAPACITY), Observed(), 100.0)
    clock.note(worker(S.STARTED), Observed(), 140.0)
    assert clock.snapshot(150.0) == StartupTimes((), 50.0)
    clock.note(worker(S.READY), seen(launched=106.0), 155.0)
    assert clock.snapshot(200.0) == StartupTimes((55.0,), 0.0)


def test_a_worker_on_a_warm_instance_does_not_count_as_a_startup():
    clock = StartupClock()
    clock.polled(98.0)
    clock.note(worker(S.CAPACITY), Observed(), 100.0)
    clock.note(worker(S.READY), seen(launched=20.0), 105.0)
    assert clock.snapshot(200.0) == StartupTimes()


def test_an_instance_that_appears_at_the_first_poll_after_its_request_counts_as_a_startup():
    clock = StartupClock()
    clock.polled(98.6)
    clock.note(worker(S.CAPACITY), Observed(), 110.0)
    clock.note(worker(S.READY), seen(launched=98.0), 125.0)  # 98.7, in whole seconds
    assert clock.snapshot(200.0) == StartupTimes((15.0,), 0.0)


def test_a_failed_attempt_does_not_count_and_the_next_is_measured_from_its_own_request():
    clock = StartupClock()
    clock.note(worker(S.CAPACITY), Observed(), 100.0)
    clock.note(worker(S.FAILED), Observed(), 220.0)
    assert clock.snapshot(230.0) == StartupTimes()
    clock.note(worker(S.CAPACITY), Observed(), 230.0)
    clock.note(worker(S.READY), seen(launched=235.0), 280.0)
    assert clock.snapshot(300.0) == StartupTimes((50.0,), 0.0)


def test_the_scheduler_does_not_count_as_a_startup():
    clock = StartupClock()
    clock.note(worker(S.CAPACITY, HEAD), Observed(), 100.0)
    assert clock.snapshot(200.0) == StartupTimes()
