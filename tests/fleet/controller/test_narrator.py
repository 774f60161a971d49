"""What a user hears of changes: one event for each that matters, none for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from dask_starburst.errors import SchedulerFailed, StarburstError
from dask_starburst.events import (
    Event,
    EventLog,
    InstanceConnected,
    InstanceLaunched,
    InstanceTerminated,
    LaunchFailed,
    TaskRefused,
    WorkerDelayed,
    WorkerFallback,
    WorkerLost,
    WorkerReady,
    WorkerRetiring,
    WorkerRetried,
    WorkerStartFailed,
    WorkerStopped,
)
from dask_starburst.fleet.controller.narrator import Narrator
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.state import SCHEDULER, Instance, Limits, Observed, Worker, WorkerState
from tests.support.no_capacity import NoCapacity
from tests.support.placements import HEAD, ON_DEMAND, SPOT, WITH_FALLBACK

S = WorkerState
NOW = 1000.0
HERE = Instance("i-0", SPOT, "c7g.xlarge", "arn:i-0", connected=True, seen=True)
READY = Worker(0, SPOT, S.READY, since=940.0, task="t-0", instance="arn:i-0")


class Told:
    """A narrator, what it has emitted, and how the cluster failed."""

    def __init__(self, *workers: Worker, lines: tuple[str, ...] = ()) -> None:
        self.events, self.errors = EventLog(now=lambda: 0.0), list[StarburstError]()
        self.notified = 0
        observed = Observed(instances={"i-0": HERE})
        self.roster = Roster(Limits(placements=WITH_FALLBACK), lambda: NOW, workers, observed)
        capacity, emit = NoCapacity(lines=lines), self.events.emit
        self.narrator = Narrator(self.roster, capacity, emit, self.run, self.errors.append, self.explained)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    async def explained(self) -> None:
        self.notified += 1


def told(old: Worker, new: Worker, **how: Any) -> list[Event]:
    """Return the events of one change."""
    here = Told(new, **how)
    here.narrator.worker_changed(old, new)
    return list(here.events)


@pytest.mark.parametrize(
    ("new", "event"),
    [
        ({"state": S.RETIRING}, WorkerRetiring(name=0)),
        ({"state": S.STOPPED}, WorkerStopped(name=0, instance="i-0")),
        ({"state": S.LOST, "reason": "Host EC2 terminated."}, WorkerLost),
        ({"state": S.REQUESTED, "reason": "Host EC2 terminated."}, WorkerLost),
    ],
    ids=["retiring", "stopped", "lost", "lost and requested again"],
)
def test_the_end_of_a_worker_is_emitted(new: dict[str, Any], event: Event | type[Event]):
    (found,) = told(READY, replace(READY, **new))
    assert found == event if isinstance(event, Event) else type(found) is event


def test_a_worker_that_is_up_is_emitted_with_its_instance_and_the_seconds_since_its_last_change():
    started = replace(READY, state=S.STARTED)
    assert told(started, replace(READY, since=NOW)) == [WorkerReady(name=0, instance="i-0", seconds=60.0)]


def test_a_lost_worker_names_the_instance_that_it_was_on():
    (lost,) = told(READY, Worker(0, SPOT, S.CAPACITY, launch=1, reason="OutOfMemoryError (exit code 137)"))
    assert isinstance(lost, WorkerLost)
    assert (lost.instance, lost.reason) == ("i-0", "OutOfMemoryError (exit code 137)")


@pytest.mark.parametrize(
    "new",
    [
        replace(READY, absent_since=NOW),
        replace(READY, requested=False),
        replace(READY, over_budget=True),
        replace(READY, since=950.0),
    ],
    ids=["absent", "cancelled", "over budget", "delayed"],
)
def test_what_is_no_change_of_state_is_not_emitted(new: Worker):
    assert told(READY, new) == []


@pytest.mark.parametrize(
    ("old", "new"), [(S.REQUESTED, S.CAPACITY), (S.CAPACITY, S.PLACED), (S.PLACED, S.STARTED), (S.RETIRING, S.DRAINED)]
)
def test_steps_between_are_not_emitted(old: WorkerState, new: WorkerState):
    assert told(Worker(0, SPOT, old), Worker(0, SPOT, new)) == []


def test_a_worker_that_was_never_launched_ends_silently():
    assert told(Worker(0, SPOT), Worker(0, SPOT, S.STOPPED, requested=False)) == []


def test_a_fallback_names_both_placements():
    waiting = Worker(0, SPOT, S.CAPACITY)
    (event,) = told(waiting, Worker(0, ON_DEMAND, S.REQUESTED, reason="no Spot capacity"))
    assert event == WorkerFallback(name=0, placement="on-demand", before="spot", reason="no Spot capacity")


def test_a_passing_fault_delays_a_worker():
    placed = Worker(0, SPOT, S.PLACED)
    again = Worker(0, SPOT, S.REQUESTED, transient_failures=1, reason="CannotPullContainerError: timeout")
    assert told(placed, again) == [WorkerDelayed(name=0, reason="CannotPullContainerError: timeout")]


def test_another_round_of_attempts_is_emitted():
    given_up = Worker(0, SPOT, S.FAILED, attempt=2)
    assert told(given_up, Worker(0, SPOT, S.REQUESTED, rounds=1)) == [WorkerRetried(name=0)]


# -- failed starts ---------------------------------------------------------------------------------

STARTED = Worker(0, SPOT, S.STARTED, task="t-0", launch=1)


def test_a_failed_attempt_quotes_the_log_of_its_process():
    here = Told(STARTED, lines=("Traceback", "ImportError: No module named numpy"))
    here.narrator.worker_changed(STARTED, Worker(0, SPOT, S.REQUESTED, attempt=1, launch=2, reason="exit code 1"))
    (event,) = here.events
    assert isinstance(event, WorkerStartFailed)
    assert not event.final
    assert "attempt 1 of 3, retrying" in event.text
    assert "No module named numpy" in event.text
    assert here.notified == 1, "whoever waits for workers checks again"


def test_the_last_failed_attempt_is_kept_as_the_reason_of_the_worker():
    final = Worker(0, SPOT, S.FAILED, attempt=2, task="t-0", launch=3, reason="exit code 1")
    here = Told(final)
    here.narrator.worker_changed(replace(STARTED, attempt=2, launch=3), final)
    (event,) = here.events
    assert isinstance(event, WorkerStartFailed)
    assert event.final
    assert here.roster.reason_of(final) == event.text
    assert "still counts as requested" in event.text
    assert here.errors == []


def test_a_scheduler_that_does_not_start_ends_the_cluster():
    started = Worker(SCHEDULER, HEAD, S.STARTED, attempt=2, task="t-0")
    failed = replace(started, state=S.FAILED, reason="exit code 1")
    here = Told(failed)
    here.narrator.worker_changed(started, failed)
    (error,) = here.errors
    assert isinstance(error, SchedulerFailed)
    assert str(error).startswith("the scheduler failed to start")


def test_no_log_is_read_for_an_attempt_without_a_task():
    waiting = Worker(0, SPOT, S.CAPACITY)
    here = Told(waiting, lines=("of another process",))
    here.narrator.worker_changed(waiting, Worker(0, SPOT, S.REQUESTED, attempt=1, reason="no instance within 120 s"))
    (event,) = here.events
    assert "of another process" not in event.message


def test_the_loss_of_the_scheduler_is_left_to_the_loop_which_ends_the_cluster():
    up = Worker(SCHEDULER, HEAD, S.READY, task="t-0")
    assert told(up, replace(up, state=S.LOST)) == []


# -- instances -------------------------------------------------------------------------------------


def seen(*instances: Instance, refusals: tuple[Refusal, ...] = ()) -> Observed:
    return Observed(instances={i.id: i for i in instances}, refusals=refusals)


BOOTING = replace(HERE, arn=None, connected=False, seen=False)


@pytest.mark.parametrize(
    ("before", "after", "kinds"),
    [
        (seen(), seen(BOOTING), [InstanceLaunched]),
        (seen(), seen(replace(BOOTING, terminating=True)), []),
        (seen(BOOTING), seen(HERE), [InstanceConnected]),
        (seen(replace(HERE, connected=False)), seen(HERE), []),
        (seen(HERE), seen(replace(HERE, terminating=True)), [InstanceTerminated]),
        (seen(HERE), seen(), [InstanceTerminated]),
        (seen(replace(HERE, terminating=True)), seen(), []),
        (seen(HERE), seen(HERE), []),
    ],
    ids=["launched", "ended at once", "connected", "reconnected", "terminating", "vanished", "gone", "same"],
)
def test_an_instance_is_launched_connected_and_terminated_once(
    before: Observed, after: Observed, kinds: list[type[Event]]
):
    here = Told()
    here.narrator.state_changed(before, after)
    assert [type(event) for event in here.events] == kinds


def test_an_instance_of_a_warm_pool_is_launched_warm():
    here = Told()
    here.narrator.state_changed(seen(), seen(HERE))
    (event,) = here.events
    assert isinstance(event, InstanceLaunched)
    assert event.warm


def test_the_same_refusal_of_a_launch_is_emitted_once():
    first = Refusal(SPOT, "capacity", "There is no Spot capacity", 1.0, "c7g.xlarge")
    here = Told()
    here.narrator.state_changed(seen(), seen(refusals=(first,)))
    here.narrator.state_changed(seen(refusals=(first,)), seen(refusals=(replace(first, at=9.0),)))
    (event,) = here.events
    assert isinstance(event, LaunchFailed)
    assert "There is no Spot capacity" in event.text


def test_a_task_that_ecs_refuses_after_it_had_accepted_it_is_emitted_once_for_each_reason():
    waiting = Worker(0, SPOT, S.CAPACITY, since=940.0, task="t-0", instance="arn:i-0", accepted=950.0)
    refused = Worker(0, SPOT, S.CAPACITY, since=940.0, launch=1, reason="ECS refused its task: RESOURCE:MEMORY")
    assert told(waiting, refused) == [TaskRefused(name=0, reason=refused.reason, passing=True)]
    assert told(replace(waiting, reason=refused.reason), refused) == []
    assert told(waiting, replace(waiting, state=S.PLACED, accepted=None)) == []
