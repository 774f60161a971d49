"""The states of a worker: the table of moves, and the rules that choose one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import pytest

from dask_starburst.plan.loop.offerings import Kind, Refusal
from dask_starburst.plan.loop.state import HEAD, Group, Instance, Limits, Observed, Task, Worker, WorkerState
from dask_starburst.plan.loop.worker import TRANSITIONS, fell_back, move, placed, refused, track

S = WorkerState
NOW = 1000.0
LIMITS = Limits()
ENDS = frozenset({S.STOPPED, S.LOST, S.FAILED})


def worker(state: WorkerState, **more: object) -> Worker:
    """Return worker ``a``, since a moment ago, with a task where the state has one."""
    with_task = {"task": "t", "instance": "arn:i"} if state in (S.PLACED, S.STARTED, S.READY, S.RETIRING) else {}
    return Worker("a", "spot", state, **({"since": NOW - 1} | with_task | more))  # type: ignore[arg-type]  # by name


def task(status: str = "RUNNING", arn: str = "t", **more: object) -> Task:
    return Task(arn, **({"worker": "a", "launch": 0, "status": status, "instance": "arn:i"} | more))  # type: ignore[arg-type]  # any field


def seen(*tasks: Task, members: Iterable[str] = (), **more: object) -> Observed:
    return Observed(tasks={t.arn: t for t in tasks}, members=frozenset(members), **more)  # type: ignore[arg-type]  # any field


def state(tracked: Worker, observed: Observed, limits: Limits = LIMITS) -> WorkerState:
    return track(tracked, observed, NOW, limits).state


# -- the table ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("before", "after"), list(product(S, S)), ids=lambda s: s.name)
def test_every_move_is_allowed_or_refused_as_the_table_says(before: WorkerState, after: WorkerState):
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


def test_every_state_has_its_row_and_can_be_reached():
    assert set(TRANSITIONS) == set(S)
    assert reachable(S.REQUESTED) == set(S)


def test_every_state_can_come_to_an_end():
    assert all(S.STOPPED in reachable(s) for s in S)


def test_nothing_comes_back_to_work_from_retiring_but_by_a_new_wish():
    before_an_end = {S.RETIRING, S.DRAINED}
    for s in before_an_end:
        assert TRANSITIONS[s] <= before_an_end | ENDS


def test_a_worker_without_a_task_cannot_be_lost():
    assert {s for s in S if S.LOST in TRANSITIONS[s]} == {S.READY}


# -- the way up -----------------------------------------------------------------------------------


def test_a_wish_waits_for_capacity_at_once():
    assert state(worker(S.REQUESTED), seen()) is S.CAPACITY


def test_a_wish_after_a_failure_waits_for_its_time():
    assert state(worker(S.REQUESTED, not_before=NOW + 1), seen()) is S.REQUESTED
    assert state(worker(S.REQUESTED, not_before=NOW), seen()) is S.CAPACITY


def test_a_wish_waits_until_the_scheduler_has_forgotten_its_predecessor():
    assert state(worker(S.REQUESTED), seen(members="a")) is S.REQUESTED


def test_a_name_that_a_living_process_of_this_very_launch_holds_is_its_own():
    assert state(worker(S.REQUESTED), seen(task(), members="a")) is S.READY


def test_a_task_whose_answer_was_lost_is_adopted():
    adopted = track(worker(S.CAPACITY), seen(task("PENDING")), NOW, LIMITS)
    assert (adopted.state, adopted.task, adopted.instance) == (S.PLACED, "t", "arn:i")


@pytest.mark.parametrize(
    "other",
    [task("STOPPED"), task(launch=1), task(worker="b")],
    ids=["one that is over", "one of another launch", "one of another worker"],
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
def test_who_joins_is_ready_even_if_ecs_does_not_say_yet_that_it_runs(before: WorkerState):
    assert state(worker(before), seen(task("PENDING"), members="a")) is S.READY


def test_placing_forgets_why_earlier_attempts_ended():
    assert placed(worker(S.CAPACITY, reason="OutOfMemory"), task(), NOW).reason == ""


# -- deadlines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("waited", "failed"), [(120.0, False), (120.1, True)])
def test_capacity_has_its_deadline(waited: float, failed: bool):
    after = track(worker(S.CAPACITY, since=NOW - waited), seen(), NOW, LIMITS)
    assert (after.attempt == 1) is failed
    assert after.state is (S.REQUESTED if failed else S.CAPACITY)
    if failed:
        assert after.reason == "no instance within 120 s"


@pytest.mark.parametrize(("launched", "patient"), [(NOW - 120, True), (NOW - 121, False)])
def test_an_instance_that_is_still_booting_is_waited_for(launched: float, patient: bool):
    booting = Instance("i", "spot", "c7g.xlarge", launched=launched)
    after = state(worker(S.CAPACITY, since=NOW - 300), seen(instances={"i": booting}))
    assert after is (S.CAPACITY if patient else S.REQUESTED)


@pytest.mark.parametrize("other", [{"group": "on-demand"}, {"terminating": True}])
def test_an_instance_that_is_not_for_it_or_is_going_is_not_waited_for(other: dict[str, object]):
    booting = replace(Instance("i", "spot", "c7g.xlarge", launched=NOW), **other)  # type: ignore[arg-type]  # by name
    assert state(worker(S.CAPACITY, since=NOW - 300), seen(instances={"i": booting})) is S.REQUESTED


# -- what AWS refuses ------------------------------------------------------------------------------


FALLBACK_GROUPS = Limits(fallback_groups=("spot", "on-demand"))


def refusing(*refusals: Refusal, allowed: tuple[str, ...] = ("a.large", "b.large")) -> Observed:
    groups = {name: Group(name, 1, allowed, allowed) for name in FALLBACK_GROUPS.fallback_groups}
    return seen(groups=groups, refusals=refusals)


def refusal(kind: Kind = "capacity", type: str = "", group: str = "spot") -> Refusal:
    return Refusal(group, kind, f"no {type or group}", NOW - 100, type)


def test_aws_own_words_explain_missing_capacity():
    after = track(worker(S.CAPACITY, since=NOW - 121), refusing(refusal()), NOW, LIMITS)
    assert (after.attempt, after.reason) == (1, "no spot")


def test_one_type_of_two_that_failed_does_not_close_the_group():
    after = track(worker(S.CAPACITY, since=NOW - 119), refusing(refusal(type="a.large")), NOW, FALLBACK_GROUPS)
    assert (after.state, after.group) == (S.CAPACITY, "spot")


@pytest.mark.parametrize("said", [(refusal(),), (refusal(type="a.large"), refusal(type="b.large"))])
@pytest.mark.parametrize(("waited", "group"), [(60.0, "spot"), (60.1, "on-demand")])
def test_a_worker_steps_down_when_its_group_has_had_nothing_for_a_while(
    said: tuple[Refusal, ...], waited: float, group: str
):
    old = worker(S.CAPACITY, since=NOW - waited)
    after = track(old, refusing(*said), NOW, FALLBACK_GROUPS)
    assert (after.state, after.group, after.attempt) == (S.CAPACITY, group, 0)
    assert fell_back(old, after, FALLBACK_GROUPS) is (group == "on-demand")


def test_a_worker_steps_down_when_nothing_comes_and_nobody_says_why():
    assert track(worker(S.CAPACITY, since=NOW - 121), refusing(), NOW, FALLBACK_GROUPS).group == "on-demand"


def test_a_new_wish_goes_where_there_is_something_to_have():
    assert track(worker(S.REQUESTED), refusing(refusal()), NOW, FALLBACK_GROUPS).group == "on-demand"
    assert track(worker(S.REQUESTED), refusing(), NOW, FALLBACK_GROUPS).group == "spot"
    everywhere = refusing(refusal(), refusal(group="on-demand"))
    assert track(worker(S.REQUESTED), everywhere, NOW, FALLBACK_GROUPS).group == "spot"


def test_on_the_last_rung_an_attempt_fails():
    last = replace(worker(S.CAPACITY, since=NOW - 121), group="on-demand")
    after = track(last, refusing(refusal(), refusal(group="on-demand")), NOW, FALLBACK_GROUPS)
    assert (after.state, after.attempt, after.reason) == (S.REQUESTED, 1, "no on-demand")


def test_a_worker_that_is_replaced_begins_at_the_top_of_the_ladder():
    lost = replace(worker(S.READY), group="on-demand")
    assert track(lost, refusing(), NOW, FALLBACK_GROUPS).group == "spot"


@pytest.mark.parametrize("kind", ["quota", "fault"])
def test_what_waiting_does_not_mend_is_told_within_a_minute(kind: Kind):
    observed, now, tried = refusing(refusal(kind)), NOW, Worker("a", "spot", since=NOW, not_before=NOW)
    while tried.state is not S.FAILED:
        tried = track(tried, observed, now, LIMITS)
        now += 0.25
    assert now - NOW < 70
    assert (tried.attempt, tried.reason) == (2, "no spot")


def test_who_was_given_up_for_want_of_an_instance_is_tried_again_later():
    failed = worker(S.FAILED, attempt=2, since=NOW - 300, unserved=True)
    assert track(failed, refusing(), NOW, LIMITS) is failed
    after = track(failed, refusing(), NOW + 1, LIMITS)
    assert (after.state, after.attempt) == (S.CAPACITY, 0)
    costly = replace(failed, unserved=False)
    assert track(costly, refusing(), NOW + 1, LIMITS) is costly


@pytest.mark.parametrize("before", [S.PLACED, S.STARTED])
@pytest.mark.parametrize(("waited", "failed"), [(180.0, False), (180.1, True)])
def test_joining_has_its_deadline(before: WorkerState, waited: float, failed: bool):
    after = track(worker(before, since=NOW - waited), seen(task()), NOW, LIMITS)
    assert (after.state is S.REQUESTED) is failed
    assert after.reason == ("did not join within 180 s" if failed else "")


@pytest.mark.parametrize(("waited", "after"), [(120.0, S.RETIRING), (120.1, S.DRAINED)])
def test_retiring_has_its_deadline(waited: float, after: WorkerState):
    assert state(worker(S.RETIRING, since=NOW - waited, requested=False), seen(task(), members="a")) is after


@pytest.mark.parametrize(("away", "after"), [(60.0, S.READY), (60.1, S.CAPACITY)])
def test_absence_has_its_deadline(away: float, after: WorkerState):
    assert state(worker(S.READY, absent_since=NOW - away), seen(task())) is after


def test_absence_begins_when_it_is_first_seen_and_ends_when_the_worker_is_back():
    away = track(worker(S.READY), seen(task()), NOW, LIMITS)
    assert (away.state, away.absent_since) == (S.READY, NOW)
    back = track(away, seen(task(), members="a"), NOW + 59, LIMITS)
    assert back.absent_since is None


# -- losses and failures --------------------------------------------------------------------------


@pytest.mark.parametrize("tasks", [[], [task("STOPPED")]], ids=["vanished", "stopped"])
def test_a_lost_worker_is_replaced_at_once_under_its_name_by_a_new_launch(tasks: list[Task]):
    after = track(worker(S.READY, attempt=2, launch=4), seen(*tasks), NOW, LIMITS)
    assert (after.state, after.attempt, after.launch, after.task) == (S.CAPACITY, 0, 5, None)
    assert after.reason


def test_a_lost_worker_that_nobody_wants_is_not_replaced():
    assert state(worker(S.LOST, requested=False), seen()) is S.STOPPED


def test_a_lost_scheduler_is_not_replaced():
    lost = track(Worker("scheduler", HEAD, S.READY, task="t"), seen(), NOW, LIMITS)
    assert lost.state is S.LOST
    assert track(lost, seen(), NOW + 1000, LIMITS) is lost


def test_a_scheduler_that_could_not_be_started_is_tried_again():
    head = Worker("scheduler", HEAD, S.PLACED, since=NOW, task="t")
    assert state(head, seen(task("STOPPED", worker="scheduler"))) is S.REQUESTED


@pytest.mark.parametrize("before", [S.PLACED, S.STARTED])
def test_a_task_that_ends_before_it_joins_is_tried_again_with_growing_pauses(before: WorkerState):
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


def test_a_worker_is_tried_exactly_so_often_as_allowed():
    now, tried, launches = NOW, Worker("a", "spot", since=NOW), []
    while tried.state is not S.FAILED:
        tried = track(tried, seen(), now, LIMITS)
        if tried.state is S.CAPACITY:
            launches.append(tried.launch)
            tried = refused(tried, "RESOURCE:FPGA", passing=False)
        now += 100
    assert launches == [0, 1, 2]


def test_a_failed_worker_that_nobody_wants_any_more_is_dropped():
    assert state(worker(S.FAILED, attempt=2, requested=False), seen()) is S.STOPPED


def test_a_passing_refusal_is_asked_again_under_another_token_and_keeps_its_deadline():
    old = worker(S.CAPACITY, since=NOW - 100)
    again = refused(old, "RESOURCE:CPU", passing=True)
    assert (again.state, again.launch, again.since) == (S.CAPACITY, 1, NOW - 100)
    failed = track(again, seen(), NOW + 21, LIMITS)
    assert failed.reason == "RESOURCE:CPU"


def test_another_refusal_is_a_failed_attempt():
    after = track(refused(worker(S.CAPACITY), "no such definition", passing=False), seen(), NOW, LIMITS)
    assert (after.state, after.attempt, after.reason) == (S.REQUESTED, 1, "no such definition")
    # The next attempt begins without it.
    assert track(after, seen(), NOW + 2, LIMITS).state is S.CAPACITY


# -- the way down ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [S.REQUESTED, S.CAPACITY, S.LOST, S.FAILED])
def test_a_wish_without_a_task_is_cancelled_at_once(before: WorkerState):
    assert state(worker(before, requested=False), seen()) is S.STOPPED


@pytest.mark.parametrize("before", [S.PLACED, S.STARTED])
def test_a_worker_that_holds_nothing_yet_is_stopped_without_retiring(before: WorkerState):
    assert state(worker(before, requested=False), seen(task())) is S.DRAINED


def test_a_ready_worker_retires_first():
    assert state(worker(S.READY, requested=False), seen(task(), members="a")) is S.RETIRING


def test_a_worker_that_the_scheduler_let_go_is_drained_and_then_stopped():
    drained = track(worker(S.RETIRING, requested=False), seen(task()), NOW, LIMITS)
    assert drained.state is S.DRAINED
    assert state(drained, seen(task("STOPPED"))) is S.STOPPED


def test_a_retiring_worker_whose_process_ends_by_itself_is_stopped():
    assert state(worker(S.RETIRING, requested=False), seen(task("STOPPED"), members="a")) is S.STOPPED


def test_a_retiring_worker_that_is_wanted_again_goes_first_and_comes_back_anew():
    again = worker(S.RETIRING, requested=True)
    assert state(again, seen(task(), members="a")) is S.RETIRING
    after = track(again, seen(task("STOPPED")), NOW, LIMITS)
    assert (after.state, after.launch, after.task) == (S.CAPACITY, 1, None)


def test_nothing_new_gives_the_same_worker():
    for old, observed in [
        (worker(S.READY), seen(task(), members="a")),
        (worker(S.CAPACITY), seen()),
        (worker(S.STOPPED, requested=False), seen()),
        (worker(S.DRAINED, task="t", requested=False), seen(task())),
    ]:
        assert track(old, observed, NOW, LIMITS) is old
