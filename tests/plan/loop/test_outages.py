"""Outages of AWS: no worker fails because of one, and afterwards the fleet recovers automatically."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.harness.simulator.aws import SimulatedAWS
from benchmarks.harness.simulator.loop import SimulatedController
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.state import Limits, Observed, ScalingGroup, Task, Worker, WorkerState
from dask_starburst.plan.loop.transitions import delayed, refused, unanswered
from dask_starburst.plan.loop.worker import by_itself, given_up, rest_of, rested, retried, track
from tests.plan.loop.test_reconcile import check
from tests.support.placements import HEAD, SPOT

S = WorkerState
NOW = 10_000.0
LIMITS = Limits()
#: Seconds until the fleet has converged once AWS responds: a boot, a start, and repeated requests.
RECOVERY = 400.0

outages = st.lists(
    st.tuples(st.floats(0, 300), st.floats(1, 900), st.sampled_from(["poll", "capacity", "run", "lost"])),
    min_size=1,
    max_size=4,
)


def a_fleet(seed: int, gone: list[tuple[float, float, str]]) -> SimulatedController:
    aws = SimulatedAWS(Random(seed), desired={SPOT: 0, HEAD: 0})
    aws.outages = [(at, at + seconds, what) for at, seconds, what in gone]
    return SimulatedController(aws, LIMITS, check)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1), outages)
def test_no_attempt_is_counted_during_an_outage_and_all_workers_start_afterwards(
    size: int, seed: int, gone: list[tuple[float, float, str]]
):
    fleet = a_fleet(seed, gone)
    fleet.request(map(str, range(size)), SPOT)
    fleet.request(["scheduler"], HEAD)
    end = max(end for _, end, _ in fleet.aws.outages)
    while fleet.aws.now < end + RECOVERY:
        fleet.tick()
        assert [w.attempt for w in fleet.workers.values()] == [0] * len(fleet.workers)
    assert all(w.state is S.READY for w in fleet.requested())
    assert len(fleet.requested()) == size + 1


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.floats(100, 2000))
def test_a_worker_without_capacity_is_retried_automatically_after_a_rest(seed: int, no_capacity_until: float):
    fleet = a_fleet(seed, [])
    fleet.aws.no_capacity_until[SPOT] = no_capacity_until
    fleet.request(["0", "1"], SPOT)
    while fleet.aws.now < no_capacity_until + LIMITS.rest + RECOVERY + 2 * LIMITS.capacity:
        fleet.tick()
    assert fleet.converged()


def seen(*tasks: Task, **more: object) -> Observed:
    groups = {SPOT: ScalingGroup(SPOT, 1, ("c7g.xlarge",), ("c7g.xlarge",))}
    return Observed(groups=groups, tasks={t.arn: t for t in tasks}, **more)  # type: ignore[arg-type]  # by name


def test_the_client_token_stays_after_a_lost_response_so_that_the_task_starts_once():
    waiting = Worker("0", SPOT, S.CAPACITY, since=NOW - 100, launch=3)
    after = unanswered(waiting, NOW)
    assert (after.launch, after.since) == (3, NOW)
    found = Task("t", "0", 3, "PENDING", "arn:i-0")
    assert track(after, seen(found), NOW, LIMITS).task == "t"


@pytest.mark.parametrize("state", [S.CAPACITY, S.PLACED, S.STARTED, S.READY, S.RETIRING])
def test_the_time_of_an_outage_counts_against_no_deadline(state: WorkerState):
    worker = Worker("0", SPOT, state, since=NOW - 1, task="t", instance="arn:i-0", absent_since=NOW - 1)
    late = NOW + 1000
    task = Task("t", "0", 0, "PENDING" if state is S.PLACED else "RUNNING", "arn:i-0")
    members = frozenset({"0"} if state is S.RETIRING else ())
    observed = seen(*([] if state is S.CAPACITY else [task]), members=members)
    assert track(worker, observed, late, LIMITS).state is not state
    assert track(delayed(worker, late - NOW), observed, late, LIMITS).state is state


@pytest.mark.parametrize("attempt", [0, 2])
def test_a_passing_fault_is_not_counted_as_an_attempt_and_the_backoff_grows(attempt: int):
    worker = Worker("0", SPOT, S.PLACED, since=NOW, attempt=attempt, task="t", instance="arn:i-0")
    over = Task("t", "0", 0, "STOPPED", "arn:i-0", "Host EC2 terminated.", passing=True, aws_failed=True)
    now, pauses = NOW, []
    for _ in range(8):
        after = track(worker, seen(over), now, LIMITS)
        assert (after.state, after.attempt) == (S.REQUESTED, attempt)
        pauses.append(after.not_before - now)
        now = after.not_before
        worker = Worker(
            "0", SPOT, S.PLACED, since=now, attempt=attempt, task="t", transient_failures=after.transient_failures
        )
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 128.0]


def test_a_launch_that_failed_by_a_passing_fault_is_waited_for_without_limit():
    refusal = Refusal(SPOT, "passing", "Server.InternalError: Internal error on launch", NOW)
    worker, now = Worker("0", SPOT, S.CAPACITY, since=NOW), NOW
    for _ in range(100):
        now += 30
        worker = track(worker, seen(refusals=(refusal,)), now, LIMITS)
    assert (worker.state, worker.attempt) == (S.CAPACITY, 0)


def test_a_worker_that_ecs_refused_fails_and_is_retried_after_growing_rests():
    worker, now, rests = Worker("0", SPOT, since=NOW), NOW, []
    for _ in range(6):
        while not given_up(worker, LIMITS):
            now += 1
            worker = track(worker, seen(), now, LIMITS)
            if worker.state is S.CAPACITY:
                worker = refused(worker, "ATTRIBUTE", passing=False)
        begun = now
        while given_up(worker, LIMITS):
            now += 1
            worker = track(worker, seen(), now, LIMITS)
        rests.append(now - begun)
    assert [round(rest, -1) for rest in rests] == [300, 600, 1200, 2400, 3600, 3600]


def test_a_worker_whose_own_process_failed_is_retried_only_on_request():
    failed = Worker("0", SPOT, S.FAILED, since=NOW, attempt=2, task="t")
    later = NOW + 10_000
    assert track(failed, seen(), later, LIMITS) is failed
    assert not rested(failed, NOW + 299, LIMITS)
    assert rested(failed, NOW + 301, LIMITS)
    assert not by_itself(failed)
    again = retried(failed, NOW + 301, LIMITS)
    assert (again.state, again.attempt, again.rounds) == (S.REQUESTED, 0, 1)


@pytest.mark.parametrize("rounds", [0, 1, 5, 20, 1000])
@pytest.mark.parametrize("unserved", [False, True])
def test_a_rest_is_at_most_an_hour_and_five_minutes_if_only_an_instance_is_missing(rounds: int, unserved: bool):
    failed = Worker("0", SPOT, S.FAILED, since=NOW, attempt=2, rounds=rounds, unserved=unserved, aws_failed=True)
    rest = rest_of(failed, LIMITS)
    assert rest == LIMITS.rest if unserved else LIMITS.rest <= rest <= LIMITS.longest_rest == 3600
    assert track(failed, seen(), NOW + rest, LIMITS) is failed
    assert track(failed, seen(), NOW + rest + 1, LIMITS).attempt == 0
