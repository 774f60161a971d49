"""Tasks that RunTask returns before ECS has placed them (real-aws R1): in flight, never bought for twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import (
    Instance,
    Limits,
    Observed,
    RunTask,
    ScalingGroup,
    SetDesired,
    StopTask,
    Task,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.loop.transitions import accepted, delayed
from dask_starburst.plan.loop.worker import track
from tests.support.placements import SPOT

S = WorkerState
NOW = 10_000.0
LIMITS = Limits()
LATE = Task("t-1", 0, 3, "PROVISIONING", "arn:i-0", placed=False)
HERE = Instance("i-0", SPOT, "c7g.xlarge", "arn:i-0", connected=True, seen=True, launched=NOW - 300)


def seen(*tasks: Task, instances: tuple[Instance, ...] = (HERE,), desired: int = 1) -> Observed:
    return Observed(
        groups={SPOT: ScalingGroup(SPOT, desired)},
        instances={i.id: i for i in instances},
        tasks={t.arn: t for t in tasks},
    )


def waiting(at: float = NOW) -> Worker:
    """Return a worker whose task ECS accepted just now, after 100 s without an instance."""
    return accepted(Worker(0, SPOT, S.CAPACITY, since=at - 100, launch=3), LATE, at)


def last(worker: Worker) -> Worker:
    """Return the worker in its last attempt, so that it stays failed."""
    return replace(worker, attempt=LIMITS.attempts - 1)


def test_a_worker_whose_task_waits_for_its_place_keeps_its_instance_and_nothing_else_is_requested():
    worker = waiting()
    assert (worker.state, worker.awaits_place, worker.task, worker.instance) == (S.CAPACITY, True, "t-1", "arn:i-0")
    for later in (0.0, 15.0, 59.0):
        assert track(worker, seen(LATE), NOW + later, LIMITS) is worker
        assert step([worker], seen(LATE), NOW + later, LIMITS) == ()


def test_it_is_placed_as_soon_as_ecs_says_so_and_may_have_joined_already():
    placed = replace(LATE, status="RUNNING", placed=True)
    assert track(waiting(), seen(placed), NOW, LIMITS).state is S.STARTED
    joined = replace(seen(placed), members=frozenset({0}))
    assert track(waiting(), joined, NOW, LIMITS).state is S.READY


def test_a_lost_response_is_found_before_its_task_is_placed():
    lost = Worker(0, SPOT, S.CAPACITY, since=NOW - 100, launch=3)
    assert track(lost, seen(LATE), NOW, LIMITS) == waiting()
    assert step([lost], seen(LATE), NOW, LIMITS) == ()


@pytest.mark.parametrize("reason", ["RESOURCE:MEMORY", "AGENT"])
def test_a_passing_refusal_starts_the_task_again_on_the_same_instance_within_the_same_deadline(reason: str):
    refused = replace(LATE, status="STOPPED", reason=reason, passing=True, aws_failed=True)
    worker = track(waiting(), seen(refused), NOW, LIMITS)
    assert (worker.state, worker.attempt, worker.launch, worker.since) == (S.CAPACITY, 0, 4, NOW - 100)
    assert worker.reason == f"ECS refused its task: {reason}"
    assert step([worker], seen(refused), NOW, LIMITS) == (RunTask(0, SPOT, 4, "i-0"),)
    end = track(last(waiting(NOW - 30)), seen(refused), NOW, LIMITS)
    assert (end.state, end.aws_failed) == (S.FAILED, True), "it does not go on for ever"


def test_a_lasting_refusal_fails_the_attempt_as_one_of_run_task_does():
    refused = replace(LATE, status="STOPPED", reason="ATTRIBUTE", aws_failed=True)
    worker = track(last(waiting()), seen(refused), NOW, LIMITS)
    assert (worker.state, worker.reason) == (S.FAILED, "ECS refused its task: ATTRIBUTE")


def test_a_task_that_was_placed_and_ended_between_two_polls_failed_by_itself():
    ended = replace(LATE, status="STOPPED", placed=True, reason="Essential container in task exited", exit_code=1)
    worker = track(last(waiting()), seen(ended), NOW, LIMITS)
    assert (worker.state, worker.aws_failed) == (S.FAILED, False)
    assert worker.reason == "Essential container in task exited (exit code 1)"


def test_a_task_that_ecs_forgot_is_started_again():
    assert track(waiting(), seen(), NOW, LIMITS).launch == 4


@pytest.mark.parametrize("there", [(), (replace(HERE, terminating=True),)], ids=["gone", "terminating"])
def test_a_task_whose_instance_is_lost_is_stopped_and_started_on_another(there: tuple[Instance, ...]):
    other = replace(HERE, id="i-1", arn="arn:i-1")
    observed = seen(LATE, instances=(*there, other), desired=1)
    worker = track(waiting(), observed, NOW, LIMITS)
    assert "terminated before ECS placed" in worker.reason
    stop, run = step([worker], observed, NOW, LIMITS)
    assert (stop, run) == (StopTask("t-1", ""), RunTask(0, SPOT, 4, "i-1"))


def test_a_task_that_ecs_never_places_is_stopped_before_its_instance_is_used_again():
    worker = waiting(NOW - 61)
    (stop,) = step([track(worker, seen(LATE), NOW, LIMITS)], seen(LATE), NOW, LIMITS)
    assert stop == StopTask("t-1", "")
    assert isinstance(stop, StopTask)
    assert stop.reason == "not placed by ECS within 60 s"
    stopped = replace(LATE, status="STOPPED", reason=stop.reason, aws_failed=True)
    assert track(worker, seen(stopped), NOW, LIMITS).reason == f"ECS refused its task: {stop.reason}"


def test_time_without_aws_does_not_count():
    assert track(delayed(waiting(NOW - 61), 60), seen(LATE), NOW, LIMITS).awaits_place
    assert step([delayed(waiting(NOW - 61), 60)], seen(LATE), NOW, LIMITS) == ()


def test_a_worker_cancelled_before_its_task_is_placed_leaves_no_task():
    worker = track(replace(waiting(), requested=False), seen(LATE), NOW, LIMITS)
    assert worker.state is S.STOPPED
    assert step([worker], seen(LATE), NOW, LIMITS) == (StopTask("t-1", ""),)
    gone = replace(LATE, status="STOPPED")
    assert step([], seen(gone), NOW, LIMITS) == (Terminate("i-0", SPOT),)


def many(number: int) -> tuple[list[Worker], Observed]:
    """Return workers that all have a connected instance."""
    there = tuple(replace(HERE, id=f"i-{n:04}", arn=f"arn:i-{n:04}") for n in range(number))
    return [Worker(n, SPOT, S.CAPACITY, since=NOW) for n in range(number)], seen(instances=there, desired=number)


def test_one_decision_starts_at_most_a_hundred_tasks_and_changes_no_capacity():
    actions = step(*many(1000), NOW, LIMITS)
    assert len(actions) == 100
    assert all(isinstance(a, RunTask) for a in actions)


def test_at_most_400_tasks_wait_for_their_place():
    workers, observed = many(1000)
    for turn in range(6):
        runs = [a for a in step(workers, observed, NOW + 3 * turn, LIMITS) if isinstance(a, RunTask)]
        late = {
            run.worker: replace(
                LATE, arn=f"t-{run.worker}", worker=run.worker, launch=0, instance=f"arn:{run.instance}"
            )
            for run in runs
        }
        observed = replace(observed, tasks={**observed.tasks, **{t.arn: t for t in late.values()}})
        workers = [accepted(w, late[w.name], NOW) if w.name in late else w for w in workers]
    assert len(observed.tasks) == 400
    assert not any(isinstance(a, SetDesired) for a in step(workers, observed, NOW + 18, LIMITS))
