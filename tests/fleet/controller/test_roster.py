"""The roster: requests, what is known of them, and that others hear of each change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.groups import DEFAULT, HEAD_PLACEMENT
from dask_starburst.plan.loop.interruptions import Succession
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.state import (
    SCHEDULER,
    Instance,
    Limits,
    Observed,
    Retire,
    RunTask,
    SetDesired,
    Task,
    Worker,
    WorkerState,
)
from tests.support.placements import ON_DEMAND, ONLY_SPOT, SPOT

S = WorkerState
NOW = 1000.0
LIMITS = Limits(placements=ONLY_SPOT)
READY = Worker(0, SPOT, S.READY, since=900.0, task="t-0", instance="arn:i-0")
FAILED = Worker(0, SPOT, S.FAILED, since=NOW - 301, attempt=2, launch=4, reason="no capacity")
HERE = Instance("i-0", SPOT, "c7g.xlarge", "arn:i-0", connected=True, seen=True)


class Listener:
    """A roster, and the changes and requests that it announces."""

    def __init__(self, *workers: Worker, observed: Observed | None = None) -> None:
        self.changes: list[tuple[Worker, Worker]] = []
        self.requests = 0
        self.roster = Roster(LIMITS, lambda: NOW, workers, observed)
        self.roster.listen(lambda old, new: self.changes.append((old, new)))
        self.roster.on_request(self._on_request)

    def _on_request(self) -> None:
        self.requests += 1


def states(listener: Listener) -> list[tuple[WorkerState, WorkerState]]:
    return [(old.state, new.state) for old, new in listener.changes]


def test_a_request_wakes_the_loop_and_gets_the_preferred_placement_of_its_group():
    listener = Listener()
    listener.roster.request(0, DEFAULT)
    listener.roster.request(SCHEDULER, "head")
    assert listener.requests == 2
    assert listener.roster.workers[0] == Worker(0, SPOT, since=NOW, not_before=NOW)
    assert listener.roster.scheduler == Worker(SCHEDULER, HEAD_PLACEMENT, since=NOW, not_before=NOW)


def test_a_worker_that_is_requested_again_before_it_has_gone_continues():
    listener = Listener(READY)
    listener.roster.cancel(0)
    listener.roster.request(0, DEFAULT)
    assert listener.roster.workers[0] == READY
    assert [new.requested for _, new in listener.changes] == [False, True]


def test_a_cancelled_worker_that_was_never_launched_is_dropped():
    listener = Listener()
    listener.roster.request(0, DEFAULT)
    listener.roster.cancel(0)
    listener.roster.track(NOW)
    assert listener.roster.workers == {}


def test_cancelling_an_unknown_worker_does_nothing():
    listener = Listener(READY)
    listener.roster.cancel(7)
    assert (listener.requests, listener.changes) == (0, [])


def test_launch_numbers_continue_after_those_of_dropped_workers():
    """ECS remembers their client tokens, and would answer with the old task."""
    roster = Listener(Worker(0, SPOT, S.STOPPED, launch=7, requested=False)).roster
    roster.track(NOW)
    roster.request(0, DEFAULT)
    assert roster.workers[0].launch == 8


def test_only_the_roster_can_write_the_workers():
    roster = Listener(READY).roster
    with pytest.raises(TypeError):
        roster.workers[0] = READY  # type: ignore[index]  # this is what it refuses


def test_the_memory_of_a_roster_does_not_grow_with_ended_workers():
    roster = Listener().roster
    sizes = []
    for number in range(300):
        roster.request(number, DEFAULT)
        roster.cancel(number)
        roster.track(NOW + number)
        sizes.append(sum(len(each) for each in vars(roster).values() if isinstance(each, dict | list | set)))
    assert max(sizes) == sizes[0]


# -- workers that were given up -------------------------------------------------------------------


def test_requesting_failed_workers_again_gives_them_a_new_set_of_attempts_at_once():
    listener = Listener(replace(FAILED, since=NOW))
    assert [w.name for w in listener.roster.failed()] == [0]
    listener.roster.retry_failed()
    fresh = listener.roster.workers[0]
    assert (fresh.state, fresh.attempt, fresh.launch, fresh.reason) == (S.REQUESTED, 0, 5, "")


@pytest.mark.parametrize(("passed", "state"), [(299, S.FAILED), (301, S.REQUESTED)])
def test_work_for_failed_workers_retries_those_that_have_rested(passed: float, state: WorkerState):
    listener = Listener(replace(FAILED, since=NOW - passed, unserved=True))
    listener.roster.retry_rested()
    assert listener.roster.workers[0].state is state
    assert listener.requests == (state is S.REQUESTED)


def test_the_message_of_a_failed_worker_is_forgotten_with_its_launch():
    roster = Listener(FAILED).roster
    assert roster.reason_of(FAILED) is None
    roster.explain(FAILED, "worker 0 failed")
    roster.explain(replace(FAILED, name=1), "worker 1 was cancelled meanwhile")
    assert roster.reason_of(FAILED) == "worker 0 failed"
    assert roster.reason_of(replace(FAILED, launch=5)) is None
    assert roster.reason_of(replace(FAILED, name=1)) is None


def test_workers_without_an_instance_on_its_way_are_free_to_cancel():
    waiting, coming = Worker(1, SPOT), Worker(2, SPOT, S.CAPACITY)
    assert Listener(FAILED, waiting, coming).roster.unordered() == {0, 1}


# -- what AWS and Dask answer ---------------------------------------------------------------------

RUN = RunTask(0, SPOT, 3, "i-0")
WAITING = Worker(0, SPOT, S.CAPACITY, since=900.0, launch=3, reason="earlier")
TASK = Task("t-0", 0, 3, "PENDING", "arn:i-0")


def test_a_task_that_runtask_returned_belongs_to_the_worker_that_waits_for_it():
    roster = Listener(WAITING).roster
    roster.place([TASK], NOW)
    worker = roster.workers[0]
    assert (worker.state, worker.task, worker.instance, worker.reason) == (S.PLACED, "t-0", "arn:i-0", "")
    assert roster.observed.tasks == {"t-0": TASK}
    assert [process.task for process in roster.launched] == ["t-0"]


@pytest.mark.parametrize("now", [replace(WAITING, launch=4), replace(WAITING, state=S.STOPPED)], ids=["new", "gone"])
def test_a_task_whose_worker_no_longer_waits_is_known_but_belongs_to_none(now: Worker):
    listener = Listener(now)
    listener.roster.place([TASK], NOW)
    assert listener.changes == []
    assert "t-0" in listener.roster.observed.tasks, "`step` stops it"


def test_only_waiting_workers_hear_that_there_is_no_capacity_and_an_outage_restarts_their_timeout():
    listener = Listener(WAITING, replace(READY, name=1))
    listener.roster.not_served(listener.roster.at(SPOT), "denied", NOW, outage=False)
    assert listener.roster.workers[0] == replace(WAITING, reason="denied")
    listener.roster.not_served(listener.roster.at(SPOT), "throttled", NOW, outage=True)
    assert listener.roster.workers[0] == replace(WAITING, reason="throttled", since=NOW)
    assert listener.roster.workers[1] == replace(READY, name=1)


def test_an_action_without_a_visible_effect_leaves_in_flight_when_it_may_be_repeated():
    roster = Listener().roster
    refused, lost, fresh = SetDesired(SPOT, 7), RunTask(0, SPOT, 1, "i-0"), SetDesired(SPOT, 2)
    roster.mark_in_flight([refused, lost], now=0.0)
    roster.mark_in_flight([], now=19.0)
    assert roster.observed.in_flight == {refused: 0.0, lost: 0.0}
    roster.mark_in_flight([fresh], now=20.0)
    assert roster.observed.in_flight == {fresh: 20.0}
    roster.clear_in_flight({fresh})
    assert roster.observed.in_flight == {}


def test_an_instance_on_which_ecs_refused_a_task_is_tried_last():
    roster = Listener(observed=Observed(instances={"i-0": HERE})).roster
    roster.refuse_instances(["i-0", "i-gone"], NOW)
    assert roster.observed.instances == {"i-0": replace(HERE, refused_at=NOW)}


def test_the_time_in_which_aws_could_not_be_polled_does_not_count():
    listener = Listener(WAITING)
    listener.roster.delayed(50.0)
    assert listener.roster.workers[0].since == 950.0


def test_listeners_see_the_roster_after_the_change():
    seen = []
    listener = Listener(READY, observed=Observed(tasks={}))
    listener.roster.listen(lambda old, new: seen.append(listener.roster.workers[0] is new))
    listener.roster.track(NOW)
    assert states(listener)[0][0] is S.READY
    assert seen
    assert all(seen)


def test_the_budget_marks_exactly_the_workers_that_have_to_wait():
    roster = Listener(WAITING, replace(WAITING, name=1, over_budget=True)).roster
    roster.set_over_budget({0})
    assert {name: worker.over_budget for name, worker in roster.workers.items()} == {0: True, 1: False}


# -- what happens while a poll is under way -------------------------------------------------------


def test_what_happens_during_a_poll_is_not_lost_by_its_answer():
    """A Spot notice and Dask's answers arrive between two calls of a poll, which knows nothing of them."""
    retire, order = Retire(0), SetDesired(SPOT, 1)
    before = Observed(instances={"i-0": HERE}, in_flight={retire: 0.0, order: 0.0})
    roster = Listener(READY, observed=before).roster
    refusal = Refusal(SPOT, "capacity", "a Spot interruption of i-0", NOW, "c7g.xlarge")
    roster.cordon("i-0")
    roster.refuse(refusal)
    roster.clear_in_flight({retire})
    roster.observe(replace(before, members=frozenset({0})), before)
    assert roster.observed.instances["i-0"].cordoned
    assert roster.observed.refusals == (refusal,)
    assert roster.observed.in_flight == {order: 0.0}
    assert roster.observed.members == {0}


# -- interruptions --------------------------------------------------------------------------------


def test_a_worker_that_is_held_stays_until_it_is_released():
    listener = Listener(READY)
    one = Succession(0, 1, ON_DEMAND)
    listener.roster.hold(0)
    listener.roster.succeed(one)
    listener.roster.cancel(0)
    assert [w.name for w in listener.roster.workers.values() if w.requested] == [0]
    assert listener.roster.successions == (one,)
    listener.roster.end_succession(one)
    listener.roster.release(0)
    listener.roster.cancel(0)
    assert not listener.roster.workers[0].requested
    assert not listener.roster.successions


def test_a_worker_whose_instance_aws_takes_is_not_requested_any_more():
    roster = Listener(READY).roster
    roster.leave(READY, NOW + 120)
    assert roster.workers[0] == replace(READY, requested=False, notice=NOW + 120)
    roster.leave(replace(READY, name=5), NOW)  # it has ended meanwhile
    assert 5 not in roster.workers


def test_cordoning_an_instance_that_is_gone_does_nothing():
    roster = Listener(observed=Observed(instances={"i-0": HERE})).roster
    roster.cordon("i-1")
    assert roster.observed.instances == {"i-0": HERE}


def test_the_instance_of_a_worker_is_found_by_its_container_instance():
    roster = Listener(READY, observed=Observed(instances={"i-0": HERE})).roster
    assert roster.instance_of(READY) is HERE
    assert roster.instance_of(replace(READY, instance="arn:other")) is None
    assert roster.instance_of(Worker(0, SPOT)) is None
