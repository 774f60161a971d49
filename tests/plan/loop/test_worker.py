"""The state machine of a worker: the transition table, and the rules that choose a transition."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import pytest

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import Kind, Refusal
from dask_starburst.plan.loop.state import Instance, Limits, Observed, ScalingGroup, Task, Worker, WorkerState
from dask_starburst.plan.loop.transitions import TRANSITIONS, move, placed, refused
from dask_starburst.plan.loop.worker import fell_back, track
from tests.support.placements import HEAD, ON_DEMAND, SPOT, WITH_FALLBACK

S = WorkerState
NOW = 1000.0
LIMITS = Limits()
ENDS = frozenset({S.STOPPED, S.LOST, S.FAILED})


def worker(state: WorkerState, **more: object) -> Worker:
    """Return worker ``a``, in its state for a second, with a task if the state has one."""
    with_task = {"task": "t", "instance": "arn:i"} if state in (S.PLACED, S.STARTED, S.READY, S.RETIRING) else {}
    return Worker("a", SPOT, state, **({"since": NOW - 1} | with_task | more))  # type: ignore[arg-type]  # by name


def task(status: str = "RUNNING", arn: str = "t", **more: object) -> Task:
    return Task(arn, **({"worker": "a", "launch": 0, "status": status, "instance": "arn:i"} | more))  # type: ignore[arg-type]  # any field


def seen(*tasks: Task, members: Iterable[str] = (), **more: object) -> Observed:
    return Observed(tasks={t.arn: t for t in tasks}, members=frozenset(members), **more)  # type: ignore[arg-type]  # any field


def state(tracked: Worker, observed: Observed, limits: Limits = LIMITS) -> WorkerState:
    return track(tracked, observed, NOW, limits).state


# -- the transition table -------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), list(product(S, S)), ids=lambda s: s.name)
def test_every_transition_is_accepted_or_rejected_by_the_table(before: WorkerState, after: WorkerState):
    old = worker(before, reason="old")
    if after in TRANSITIONS[before]:
        assert move(old, after, NOW) == replace(old, state=after, since=NOW)
        assert move(old, after, NOW, "new").reason == "new"
    else:
        with pytest.raises(ValueError, match=f"^a: {before.name} -> {after.name} is not a valid transition$"):
            move(old, after, NOW)


def reachable(start: WorkerState) -> set[WorkerState]:
    found, border = {start}, [start]
    while border:
        new = TRANSITIONS[border.pop()] - found
        found |= new
        border += new
    return found


def test_every_state_has_a_row_and_is_reachable():
    assert set(TRANSITIONS) == set(S)
    assert reachable(S.REQUESTED) == set(S)


def test_every_state_can_reach_stopped():
    assert all(S.STOPPED in reachable(s) for s in S)


def test_a_retiring_worker_can_only_return_by_a_new_request():
    before_an_end = {S.RETIRING, S.DRAINED}
    for s in before_an_end:
        assert TRANSITIONS[s] <= before_an_end | ENDS


def test_a_worker_without_a_task_cannot_be_lost():
    assert {s for s in S if S.LOST in TRANSITIONS[s]} == {S.READY}


# -- starting -------------------------------------------------------------------------------------


def test_a_requested_worker_waits_for_capacity_immediately():
    assert state(worker(S.REQUESTED), seen()) is S.CAPACITY


def test_a_request_after_a_failure_waits_for_its_backoff():
    assert state(worker(S.REQUESTED, not_before=NOW + 1), seen()) is S.REQUESTED
    assert state(worker(S.REQUESTED, not_before=NOW), seen()) is S.CAPACITY


def test_a_requested_worker_waits_until_the_scheduler_forgets_its_predecessor():
    assert state(worker(S.REQUESTED), seen(members="a")) is S.REQUESTED


def test_a_live_process_of_the_same_launch_is_the_worker_itself():
    assert state(worker(S.REQUESTED), seen(task(), members="a")) is S.READY


def test_a_task_whose_run_task_response_was_lost_is_adopted():
    adopted = track(worker(S.CAPACITY), seen(task("PENDING")), NOW, LIMITS)
    assert (adopted.state, adopted.task, adopted.instance) == (S.PLACED, "t", "arn:i")


@pytest.mark.parametrize(
    "other",
    [task("STOPPED"), task(launch=1), task(worker="b")],
    ids=["a stopped one", "one of another launch", "one of another worker"],
)
def test_no_other_task_is_adopted(other: Task):
    assert state(worker(S.CAPACITY), seen(other)) is S.CAPACITY


def test_a_placed_task_starts_when_its_container_runs():
    started = track(worker(S.PLACED, since=NOW - 50), seen(task()), NOW, LIMITS)
    assert started.state is S.STARTED
    assert started.since == NOW - 50  # the deadline to join counts from the placement


def test_a_task_that_is_still_pending_is_waited_for():
    old = worker(S.PLACED)
    assert track(old, seen(task("PENDING")), NOW, LIMITS) is old


@pytest.mark.parametrize("before", [S.PLACED, S.STARTED])
def test_a_worker_that_joined_is_ready_even_if_ecs_does_not_report_running_yet(before: WorkerState):
    assert state(worker(before), seen(task("PENDING"), members="a")) is S.READY


def test_placing_a_worker_clears_the_reason_of_earlier_attempts():
    assert placed(worker(S.CAPACITY, reason="OutOfMemory"), task(), NOW).reason == ""


# -- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waited", "failed"), [(120.0, False), (120.1, True)])
def test_waiting_for_capacity_has_a_deadline(waited: float, failed: bool):
    after = track(worker(S.CAPACITY, since=NOW - waited), seen(), NOW, LIMITS)
    assert (after.attempt == 1) is failed
    assert after.state is (S.REQUESTED if failed else S.CAPACITY)
    if failed:
        assert after.reason == "no instance within 120 s"


@pytest.mark.parametrize(("launched", "waits"), [(NOW - 120, True), (NOW - 121, False)])
def test_an_instance_that_is_still_booting_is_waited_for(launched: float, waits: bool):
    booting = Instance("i", SPOT, "c7g.xlarge", launched=launched)
    after = state(worker(S.CAPACITY, since=NOW - 300), seen(instances={"i": booting}))
    assert after is (S.CAPACITY if waits else S.REQUESTED)


@pytest.mark.parametrize("other", [{"placement": ON_DEMAND}, {"terminating": True}])
def test_an_instance_of_another_group_or_terminating_is_not_waited_for(other: dict[str, object]):
    booting = replace(Instance("i", SPOT, "c7g.xlarge", launched=NOW), **other)  # type: ignore[arg-type]  # by name
    assert state(worker(S.CAPACITY, since=NOW - 300), seen(instances={"i": booting})) is S.REQUESTED


# -- what AWS refuses ------------------------------------------------------------------------------


FALLBACK = Limits(placements=WITH_FALLBACK)


def refusing(*refusals: Refusal, allowed: tuple[str, ...] = ("a.large", "b.large")) -> Observed:
    groups = {name: ScalingGroup(name, 1, allowed, allowed) for name in (SPOT, ON_DEMAND)}
    return seen(groups=groups, refusals=refusals)


def refusal(kind: Kind = "capacity", type: str = "", placement: Placement = SPOT) -> Refusal:
    return Refusal(placement, kind, f"no {type or placement}", NOW - 100, type)


def test_the_message_of_aws_explains_missing_capacity():
    after = track(worker(S.CAPACITY, since=NOW - 121), refusing(refusal()), NOW, LIMITS)
    assert (after.attempt, after.reason) == (1, "no spot")


def test_one_failed_type_of_two_does_not_close_the_group():
    after = track(worker(S.CAPACITY, since=NOW - 119), refusing(refusal(type="a.large")), NOW, FALLBACK)
    assert (after.state, after.placement) == (S.CAPACITY, SPOT)


@pytest.mark.parametrize("refusals", [(refusal(),), (refusal(type="a.large"), refusal(type="b.large"))])
@pytest.mark.parametrize(("waited", "placement"), [(60.0, SPOT), (60.1, ON_DEMAND)])
def test_a_worker_falls_back_when_its_group_has_had_no_capacity_for_a_while(
    refusals: tuple[Refusal, ...], waited: float, placement: Placement
):
    old = worker(S.CAPACITY, since=NOW - waited)
    after = track(old, refusing(*refusals), NOW, FALLBACK)
    assert (after.state, after.placement, after.attempt) == (S.CAPACITY, placement, 0)
    assert fell_back(old, after, FALLBACK) is (placement == ON_DEMAND)


def test_a_worker_falls_back_when_no_instance_launches_and_aws_gives_no_reason():
    assert track(worker(S.CAPACITY, since=NOW - 121), refusing(), NOW, FALLBACK).placement == ON_DEMAND


def test_a_new_request_goes_to_a_group_with_capacity():
    assert track(worker(S.REQUESTED), refusing(refusal()), NOW, FALLBACK).placement == ON_DEMAND
    assert track(worker(S.REQUESTED), refusing(), NOW, FALLBACK).placement == SPOT
    everywhere = refusing(refusal(), refusal(placement=ON_DEMAND))
    assert track(worker(S.REQUESTED), everywhere, NOW, FALLBACK).placement == SPOT


def test_an_attempt_fails_in_the_last_fallback_group():
    last = replace(worker(S.CAPACITY, since=NOW - 121), placement=ON_DEMAND)
    after = track(last, refusing(refusal(), refusal(placement=ON_DEMAND)), NOW, FALLBACK)
    assert (after.state, after.attempt, after.reason) == (S.REQUESTED, 1, "no on-demand")


def test_a_replaced_worker_starts_in_the_first_fallback_group():
    lost = replace(worker(S.READY), placement=ON_DEMAND)
    assert track(lost, refusing(), NOW, FALLBACK).placement == SPOT


@pytest.mark.parametrize("kind", ["quota", "fault"])
def test_a_quota_or_request_fault_is_reported_within_a_minute(kind: Kind):
    observed, now, tried = refusing(refusal(kind)), NOW, Worker("a", SPOT, since=NOW, not_before=NOW)
    while tried.state is not S.FAILED:
        tried = track(tried, observed, now, LIMITS)
        now += 0.25
    assert now - NOW < 70
    assert (tried.attempt, tried.reason) == (2, "no spot")


def test_a_worker_that_failed_for_lack_of_an_instance_is_retried_later():
    failed = worker(S.FAILED, attempt=2, since=NOW - 300, unserved=True)
    assert track(failed, refusing(), NOW, LIMITS) is failed
    after = track(failed, refusing(), NOW + 1, LIMITS)
    assert (after.state, after.attempt) == (S.CAPACITY, 0)
    costly = replace(failed, unserved=False)
    assert track(costly, refusing(), NOW + 1, LIMITS) is costly


@pytest.mark.parametrize("before", [S.PLACED, S.STARTED])
@pytest.mark.parametrize(("waited", "failed"), [(180.0, False), (180.1, True)])
def test_joining_has_a_deadline(before: WorkerState, waited: float, failed: bool):
    after = track(worker(before, since=NOW - waited), seen(task()), NOW, LIMITS)
    assert (after.state is S.REQUESTED) is failed
    assert after.reason == ("did not join within 180 s" if failed else "")


@pytest.mark.parametrize(("waited", "after"), [(120.0, S.RETIRING), (120.1, S.DRAINED)])
def test_retiring_has_a_deadline(waited: float, after: WorkerState):
    assert state(worker(S.RETIRING, since=NOW - waited, requested=False), seen(task(), members="a")) is after


@pytest.mark.parametrize(("away", "after"), [(60.0, S.READY), (60.1, S.CAPACITY)])
def test_absence_has_a_deadline(away: float, after: WorkerState):
    assert state(worker(S.READY, absent_since=NOW - away), seen(task())) is after


def test_absence_starts_when_first_observed_and_ends_when_the_worker_returns():
    away = track(worker(S.READY), seen(task()), NOW, LIMITS)
    assert (away.state, away.absent_since) == (S.READY, NOW)
    back = track(away, seen(task(), members="a"), NOW + 59, LIMITS)
    assert back.absent_since is None


# -- losses and failures --------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [[], [task("STOPPED")]], ids=["vanished", "stopped"])
def test_a_lost_worker_is_replaced_immediately_under_its_name_by_a_new_launch(tasks: list[Task]):
    after = track(worker(S.READY, attempt=2, launch=4), seen(*tasks), NOW, LIMITS)
    assert (after.state, after.attempt, after.launch, after.task) == (S.CAPACITY, 0, 5, None)
    assert after.reason


def test_a_lost_worker_that_is_not_requested_is_not_replaced():
    assert state(worker(S.LOST, requested=False), seen()) is S.STOPPED


def test_a_lost_scheduler_is_not_replaced():
    lost = track(Worker("scheduler", HEAD, S.READY, task="t"), seen(), NOW, LIMITS)
    assert lost.state is S.LOST
    assert track(lost, seen(), NOW + 1000, LIMITS) is lost


def test_a_scheduler_that_failed_to_start_is_retried():
    head = Worker("scheduler", HEAD, S.PLACED, since=NOW, task="t")
    assert state(head, seen(task("STOPPED", worker="scheduler"))) is S.REQUESTED


@pytest.mark.parametrize("before", [S.PLACED, S.STARTED])
def test_a_task_that_ends_before_it_joins_is_retried_with_growing_backoff(before: WorkerState):
    over = seen(task("STOPPED", reason="CannotPullContainerError", exit_code=1))
    for attempt, pause in enumerate([2.0, 4.0]):
        after = track(worker(before, attempt=attempt), over, NOW, LIMITS)
        assert (after.state, after.attempt, after.launch) == (S.REQUESTED, attempt + 1, 1)
        assert after.not_before == NOW + pause
        assert after.reason == "CannotPullContainerError (exit code 1)"


def test_the_last_attempt_stays_failed_with_its_task_and_reason():
    after = track(worker(S.STARTED, attempt=2), seen(task("STOPPED", reason="no")), NOW, LIMITS)
    assert (after.state, after.task, after.reason) == (S.FAILED, "t", "no")
    assert track(after, seen(), NOW + 10_000, LIMITS) is after


def test_a_worker_is_tried_exactly_the_allowed_number_of_times():
    now, tried, launches = NOW, Worker("a", SPOT, since=NOW), []
    while tried.state is not S.FAILED:
        tried = track(tried, seen(), now, LIMITS)
        if tried.state is S.CAPACITY:
            launches.append(tried.launch)
            tried = refused(tried, "RESOURCE:FPGA", passing=False)
        now += 100
    assert launches == [0, 1, 2]


def test_a_failed_worker_that_is_no_longer_requested_is_dropped():
    assert state(worker(S.FAILED, attempt=2, requested=False), seen()) is S.STOPPED


def test_a_passing_refusal_is_retried_with_another_token_and_the_same_deadline():
    old = worker(S.CAPACITY, since=NOW - 100)
    again = refused(old, "RESOURCE:CPU", passing=True)
    assert (again.state, again.launch, again.since) == (S.CAPACITY, 1, NOW - 100)
    failed = track(again, seen(), NOW + 21, LIMITS)
    assert failed.reason == "RESOURCE:CPU"


def test_a_permanent_refusal_is_a_failed_attempt():
    after = track(refused(worker(S.CAPACITY), "no such definition", passing=False), seen(), NOW, LIMITS)
    assert (after.state, after.attempt, after.reason) == (S.REQUESTED, 1, "no such definition")
    # The next attempt starts without the refusal.
    assert track(after, seen(), NOW + 2, LIMITS).state is S.CAPACITY


# -- stopping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [S.REQUESTED, S.CAPACITY, S.LOST, S.FAILED])
def test_a_request_without_a_task_is_cancelled_immediately(before: WorkerState):
    assert state(worker(before, requested=False), seen()) is S.STOPPED


@pytest.mark.parametrize("before", [S.PLACED, S.STARTED])
def test_a_worker_without_data_is_stopped_without_retiring(before: WorkerState):
    assert state(worker(before, requested=False), seen(task())) is S.DRAINED


def test_a_ready_worker_retires_first():
    assert state(worker(S.READY, requested=False), seen(task(), members="a")) is S.RETIRING


def test_a_worker_that_the_scheduler_closed_is_drained_and_then_stopped():
    drained = track(worker(S.RETIRING, requested=False), seen(task()), NOW, LIMITS)
    assert drained.state is S.DRAINED
    assert state(drained, seen(task("STOPPED"))) is S.STOPPED


def test_a_retiring_worker_whose_process_exits_is_stopped():
    assert state(worker(S.RETIRING, requested=False), seen(task("STOPPED"), members="a")) is S.STOPPED


def test_a_retiring_worker_that_is_requested_again_stops_first_and_is_launched_again():
    again = worker(S.RETIRING, requested=True)
    assert state(again, seen(task(), members="a")) is S.RETIRING
    after = track(again, seen(task("STOPPED")), NOW, LIMITS)
    assert (after.state, after.launch, after.task) == (S.CAPACITY, 1, None)


def test_tracking_without_changes_returns_the_same_worker():
    for old, observed in [
        (worker(S.READY), seen(task(), members="a")),
        (worker(S.CAPACITY), seen()),
        (worker(S.STOPPED, requested=False), seen()),
        (worker(S.DRAINED, task="t", requested=False), seen(task())),
    ]:
        assert track(old, observed, NOW, LIMITS) is old
