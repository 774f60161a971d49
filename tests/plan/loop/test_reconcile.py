"""Properties of `step`: invariants of every decision in any state, and convergence."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks.harness.simulator.aws import TICK, SimulatedAWS
from benchmarks.harness.simulator.loop import SimulatedController
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.reconcile import step, unconfirmed
from dask_starburst.plan.loop.state import (
    Action,
    Forget,
    Instance,
    Limits,
    Observed,
    Retire,
    RunTask,
    ScalingGroup,
    SetDesired,
    SetTypes,
    StopTask,
    Task,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.loop.worker import track
from tests.support.placements import SPOT
from tests.support.situations import NAMES, NOW, PLACEMENTS, Situation, limits, situations

S = WorkerState
WITH_TASK = {S.PLACED, S.STARTED, S.READY, S.RETIRING}
#: Enough for all timeouts in sequence: retire, connect, capacity, backoff, Dask's worker-ttl.
TIME_LIMIT = 2000.0

# -- invariants of every decision -----------------------------------------------------------------


def in_flight_runs(under_way: set[Action]) -> set[str]:
    """Return the instances with a RunTask in flight."""
    return {a.instance for a in under_way if isinstance(a, RunTask)}


def occupied_instances(workers: tuple[Worker, ...], observed: Observed) -> set[str | None]:
    """Return the container instances with a live task or a worker."""
    places = {t.instance for t in observed.tasks.values() if not t.stopped}
    return (places | {w.instance for w in workers if w.state in WITH_TASK}) - {None}


def fresh(observed: Observed, now: float, patience: Limits) -> set[Action]:
    return {a for a, at in observed.in_flight.items() if now - at < patience.repeat}


def check(
    actions: tuple[Action, ...], workers: tuple[Worker, ...], observed: Observed, now: float, patience: Limits
) -> None:
    """Check one decision against all invariants."""
    occupied, under_way = occupied_instances(workers, observed), fresh(observed, now, patience)
    assert len(set(actions)) == len(actions)
    assert under_way.isdisjoint(actions)
    for action in actions:
        if isinstance(action, Terminate):
            living = {w.instance for w in workers if w.state in WITH_TASK} - {None}
            check_termination(
                action, observed, living if disconnected(observed.instances[action.instance], now) else occupied
            )
            check_spares(actions, action.placement, observed, occupied, patience)
            assert action.instance not in in_flight_runs(under_way)
        elif isinstance(action, SetDesired):
            check_capacity(action, workers, observed, occupied, under_way, patience)
        elif isinstance(action, SetTypes):
            assert action.types
            assert set(action.types) <= set(observed.groups[action.placement].allowed)
        elif isinstance(action, StopTask):
            assert action.task not in {w.task for w in workers if w.state in WITH_TASK}
    check_placement(actions, workers, observed, occupied, in_flight_runs(under_way))
    check_number_of_starts(actions, observed, under_way, patience)


def disconnected(instance: Instance, now: float) -> bool:
    """Whether its agent is lost, so that only its workers count and not its tasks."""
    return not instance.connected and instance.disconnected_since is not None and now - instance.disconnected_since > 60


def check_termination(action: Terminate, observed: Observed, occupied: set[str | None]) -> None:
    instance = observed.instances[action.instance]
    assert instance.placement == action.placement
    assert not instance.terminating
    assert instance.arn not in occupied


def check_spares(
    actions: tuple[Action, ...], placement: Placement, observed: Observed, occupied: set[str | None], patience: Limits
) -> None:
    """Check that enough connected instances stay empty for the spares, if there were enough before."""
    going = {a.instance for a in actions if isinstance(a, Terminate)}
    taken = {a.instance for a in actions if isinstance(a, RunTask)}
    mine = [
        i
        for i in observed.instances.values()
        if i.placement == placement and not i.terminating and i.arn not in occupied
    ]
    # A usable instance is terminated only if enough spares remain.
    if any(i.connected and i.id in going for i in mine):
        left = [i for i in mine if i.id not in going | taken]
        assert len(left) >= patience.spare.get(placement, 0)


def check_capacity(
    action: SetDesired,
    workers: tuple[Worker, ...],
    observed: Observed,
    occupied: set[str | None],
    under_way: set[Action],
    patience: Limits,
) -> None:
    group = observed.groups[action.placement]
    leaving = {a.instance for a in under_way if isinstance(a, Terminate)}
    present = [
        i
        for i in observed.instances.values()
        if i.placement == group.placement and not i.terminating and i.id not in leaving
    ]
    requested = [w for w in workers if w.placement == group.placement and w.requested]
    spare = patience.spare.get(group.placement, 0)
    if action.desired == 0:
        assert not spare
        assert not present
        assert all(w.state is S.FAILED for w in requested)
        return
    waiting = sum(w.state is S.CAPACITY for w in requested)
    # Idle instances are used first, so no capacity is requested in addition.
    busy = sum(i.arn in occupied or i.id in in_flight_runs(under_way) for i in present)
    idle = len(present) - busy
    assert action.desired <= busy + max(waiting + spare, idle)
    expected = group.desired - sum(1 for i in leaving if _leaves(observed, i, group.placement))
    assert action.desired > expected


def _leaves(observed: Observed, instance: str, placement: Placement) -> bool:
    seen = observed.instances.get(instance)
    return seen is not None and seen.placement == placement and not seen.terminating


def check_placement(
    actions: tuple[Action, ...],
    workers: tuple[Worker, ...],
    observed: Observed,
    occupied: set[str | None],
    under_way: set[str],
) -> None:
    runs = [a for a in actions if isinstance(a, RunTask)]
    waiting = {(w.name, w.placement, w.launch) for w in workers if w.state is S.CAPACITY and w.requested}
    assert not {(a.worker, a.launch) for a in runs} & observed.unplaced
    assert {(a.worker, a.placement, a.launch) for a in runs} <= waiting
    assert len({a.instance for a in runs}) == len({a.worker for a in runs}) == len(runs)
    assert not {a.instance for a in runs} & {a.instance for a in actions if isinstance(a, Terminate)}
    for run in runs:
        place = observed.instances[run.instance]
        assert place.placement == run.placement
        assert place.connected
        assert not place.terminating
        assert place.arn not in occupied
        assert place.id not in under_way


def check_number_of_starts(
    actions: tuple[Action, ...], observed: Observed, under_way: set[Action], patience: Limits
) -> None:
    """Check that ECS gets no more tasks at a time than it accepts."""
    runs = [a for a in actions if isinstance(a, RunTask)]
    flying = {(a.worker, a.launch) for a in under_way if isinstance(a, RunTask)}
    assert not runs or len(runs) + len(flying | observed.unplaced) <= patience.unplaced
    assert all(sum(a.placement == place for a in runs) <= patience.starts for place in PLACEMENTS)


def tracked(situation: Situation, patience: Limits) -> tuple[Worker, ...]:
    return tuple(track(w, situation.observed, NOW, patience) for w in situation.workers)


@given(situations(), limits)
def test_every_decision_keeps_the_invariants_in_any_state(situation: Situation, patience: Limits):
    check(
        step(situation.workers, situation.observed, NOW, patience),
        situation.workers,
        situation.observed,
        NOW,
        patience,
    )
    workers = tracked(situation, patience)
    check(step(workers, situation.observed, NOW, patience), workers, situation.observed, NOW, patience)


@given(situations(), limits)
def test_a_request_in_flight_is_not_repeated_for_the_same_state(situation: Situation, patience: Limits):
    observed, workers = situation.observed, tracked(situation, patience)
    in_flight: set[Action] = set()
    for _ in range(4):
        actions = step(workers, observed, NOW, patience)
        assert in_flight.isdisjoint(actions)
        if not any(isinstance(a, Terminate) for a in actions):
            break  # only a termination allows another decision
        in_flight |= set(actions)
        observed = replace(observed, in_flight={**observed.in_flight, **dict.fromkeys(actions, NOW)})
    observed = replace(observed, in_flight={**observed.in_flight, **dict.fromkeys(actions, NOW)})
    assert step(workers, observed, NOW, patience) == ()


@given(situations(), limits)
def test_step_is_stateless(situation: Situation, patience: Limits):
    once = step(situation.workers, situation.observed, NOW, patience)
    assert step(situation.workers, situation.observed, NOW, patience) == once


@given(situations())
def test_confirmed_requests_are_dropped_and_unconfirmed_ones_are_kept(situation: Situation):
    in_flight, observed = situation.observed.in_flight, situation.observed
    kept = unconfirmed(in_flight, observed)
    assert kept.items() <= in_flight.items()
    for action in in_flight.keys() - kept.keys():
        match action:
            case SetDesired(group, desired):
                assert observed.groups[group].desired == desired
            case SetTypes(group, types):
                assert set(observed.groups[group].types) == set(types)
            case Terminate(instance):
                seen = observed.instances.get(instance)
                assert seen is None or seen.terminating
            case StopTask(task):
                assert task not in observed.tasks or observed.tasks[task].stopped
            case Retire(worker) | Forget(worker):
                assert worker not in observed.members
            case RunTask(worker):
                assert worker in {t.worker for t in observed.tasks.values()}


# -- convergence -----------------------------------------------------------------------------

requests = st.dictionaries(
    st.floats(0, 200), st.tuples(st.sampled_from(PLACEMENTS), st.sets(st.sampled_from(NAMES))), max_size=4
)


def converge(fleet: SimulatedController, limit: float = TIME_LIMIT) -> None:
    """Pass time until the fleet has converged and nothing is in flight."""
    end = fleet.aws.now + limit
    while fleet.aws.now < end:
        actions = fleet.tick()
        if fleet.converged() and not actions:
            break
    assert fleet.converged()
    for _ in range(5):
        assert fleet.tick() == ()
        assert fleet.converged()


def live(fleet: SimulatedController, changes: dict[float, tuple[Placement, set[str]]], seconds: float) -> None:
    """Pass time and change the requests at their times, each name in one placement only."""
    start = fleet.aws.now
    for at, (placement, names) in sorted(changes.items()):
        while fleet.aws.now < start + at:
            fleet.tick()
        others = {w.name for w in fleet.workers.values() if w.placement != placement}
        fleet.request(names - others, placement)
    while fleet.aws.now < start + seconds:
        fleet.tick()


#: How ECS places tasks: within RunTask, or seconds after it (real-aws R1).
placing = st.sampled_from([None, (0.0, 0.0), (4.0, 4.0), (0.0, 15.0)])


@settings(max_examples=150)
@given(situations(), limits, requests, st.integers(0, 2**32 - 1), st.sampled_from([0.0, 60.0, 300.0]), placing)
def test_the_fleet_converges_from_any_state_after_any_losses(
    situation: Situation,
    patience: Limits,
    changes: dict[float, tuple[Placement, set[str]]],
    seed: int,
    noise: float,
    placing: tuple[float, float] | None,
):
    aws = SimulatedAWS.like(situation.observed, NOW, Random(seed), NOW + noise)
    aws.placing = placing
    fleet = SimulatedController(aws, patience, check, workers=situation.workers, observed=situation.observed)
    live(fleet, changes, noise)
    converge(fleet)


def empty_fleet(seed: int = 0, **patience: object) -> SimulatedController:
    aws = SimulatedAWS(Random(seed), desired=dict.fromkeys(PLACEMENTS, 0))
    return SimulatedController(aws, Limits(**patience), check)  # type: ignore[arg-type]  # by name


@settings(max_examples=60)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=5), st.integers(0, 2**32 - 1), st.integers(1, 30), placing)
def test_instances_never_exceed_the_requested_workers(
    sizes: list[int], seed: int, ticks: int, placing: tuple[float, float] | None
):
    fleet = empty_fleet(seed)
    fleet.aws.placing, fleet.aws.misplaced = placing, 0.3
    most = 0
    for size in sizes:
        most = max(most, size)
        fleet.request(map(str, range(size)), SPOT)
        for _ in range(ticks):
            fleet.tick()
            assert fleet.aws.desired[SPOT] <= most
            assert len(fleet.aws.alive(SPOT)) <= most
    converge(fleet)


@settings(max_examples=30)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), placing)
def test_without_losses_each_worker_needs_one_instance_and_one_task(
    size: int, seed: int, placing: tuple[float, float] | None
):
    fleet = empty_fleet(seed)
    fleet.aws.placing = placing
    fleet.request(map(str, range(size)), SPOT)
    converge(fleet)
    assert (fleet.aws.launched, fleet.aws.started) == (size, size)


@settings(max_examples=30)
@given(st.integers(1, 6), st.integers(0, 2**32 - 1))
def test_warm_instances_are_kept_then_reused_then_terminated(size: int, seed: int):
    fleet = empty_fleet(seed, warm=300.0)
    names = [str(n) for n in range(size)]
    fleet.request(names, SPOT)
    converge(fleet)
    fleet.request([], SPOT)
    live(fleet, {}, 150.0)
    assert not fleet.workers
    assert len(fleet.aws.alive(SPOT)) == size  # kept
    fleet.request(names, SPOT)
    live(fleet, {}, 60.0)
    assert fleet.converged()
    assert fleet.aws.launched == size  # reused
    fleet.request([], SPOT)
    live(fleet, {}, 600.0)
    assert fleet.converged()
    assert not fleet.aws.instances  # terminated


@settings(max_examples=30)
@given(st.integers(0, 4), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_new_workers_are_placed_on_spares_immediately_and_spares_are_replaced(size: int, spare: int, seed: int):
    fleet = empty_fleet(seed, spare={SPOT: spare})
    fleet.request(map(str, range(size)), SPOT)
    converge(fleet)
    assert len(fleet.aws.alive(SPOT)) == size + spare
    live(fleet, {}, 120.0)  # the spares have booted too
    fleet.request(map(str, range(size + spare)), SPOT)
    placed = [a for _ in range(2) for a in fleet.tick() if isinstance(a, RunTask)]
    assert len(placed) == spare  # no worker waited for an instance
    converge(fleet)
    assert len(fleet.aws.alive(SPOT)) == size + 2 * spare
    fleet.request([], SPOT)
    converge(fleet)
    assert len(fleet.aws.alive(SPOT)) == spare


# -- single decisions -----------------------------------------------------------------------------


def instance(name: str = "i-0", **more: object) -> Instance:
    usual: dict[str, object] = {"arn": f"arn:{name}", "connected": True, "seen": True}
    return Instance(name, SPOT, "c7g.xlarge", **(usual | more))  # type: ignore[arg-type]  # by name


def seen(desired: int, *instances: Instance, **more: object) -> Observed:
    groups = {SPOT: ScalingGroup(SPOT, desired)}
    return Observed(groups, {i.id: i for i in instances}, **more)  # type: ignore[arg-type]  # by name


def waiting(name: str = "a", since: float = NOW) -> Worker:
    return Worker(name, SPOT, S.CAPACITY, since=since)


def test_missing_capacity_is_requested_in_one_call():
    actions = step([waiting("a"), waiting("b"), waiting("c")], seen(0), NOW, Limits())
    assert actions == (SetDesired(SPOT, 3),)


def test_a_worker_is_placed_as_soon_as_an_instance_is_connected():
    assert step([waiting()], seen(1, instance()), NOW, Limits()) == (RunTask("a", SPOT, 0, "i-0"),)


def test_the_longest_waiting_worker_is_placed_first():
    workers = [waiting("young", NOW), waiting("old", NOW - 60)]
    assert step(workers, seen(2, instance()), NOW, Limits()) == (RunTask("old", SPOT, 0, "i-0"),)


def test_a_surplus_instance_is_terminated_in_the_step_that_places_the_last_worker():
    booting = instance("i-1", arn=None, connected=False, seen=False, launched=NOW, idle_since=NOW)
    actions = step([waiting()], seen(2, instance(), booting), NOW, Limits())
    assert actions == (RunTask("a", SPOT, 0, "i-0"), Terminate("i-1", SPOT))


def test_a_ready_spare_is_not_terminated_while_the_instance_in_its_place_starts():
    ready = instance("i-0", idle_since=NOW - 400)
    booting = instance("i-1", arn=None, connected=False, seen=False, launched=NOW - 10, idle_since=NOW - 10)
    kept = Limits(warm=300, spare={SPOT: 1})
    assert step([], seen(2, ready, booting), NOW, kept) == ()
    started = replace(booting, arn="arn:i-1", connected=True, seen=True)
    assert step([], seen(2, ready, started), NOW, kept) == (Terminate("i-0", SPOT),)


def test_a_surplus_instance_that_still_starts_is_terminated_rather_than_a_ready_one():
    ready = instance("i-0", idle_since=NOW - 400)
    booting = instance("i-1", arn=None, connected=False, seen=False, launched=NOW - 10, idle_since=NOW - 10)
    assert step([], seen(2, ready, booting), NOW, Limits(spare={SPOT: 1})) == (Terminate("i-1", SPOT),)


def test_an_instance_that_refused_a_task_is_tried_last():
    observed = seen(2, instance("i-0", refused_at=NOW - 3), instance("i-1"))
    assert step([waiting()], observed, NOW, Limits(warm=60))[0] == RunTask("a", SPOT, 0, "i-1")


def test_an_instance_with_a_run_task_in_flight_is_neither_reused_nor_terminated():
    in_flight = {RunTask("gone", SPOT, 0, "i-0"): NOW - 1}
    assert step([waiting()], seen(2, instance(), in_flight=in_flight), NOW, Limits()) == ()
    assert step([], seen(1, instance(), in_flight=in_flight), NOW, Limits()) == ()


def test_nothing_is_terminated_while_more_workers_are_in_backoff_than_instances_are_free():
    pausing = [Worker(name, SPOT, S.REQUESTED, not_before=NOW + 4) for name in "abc"]
    assert step(pausing, seen(2, instance("i-0"), instance("i-1")), NOW, Limits()) == ()


def test_an_instance_whose_agent_never_connected_is_replaced():
    faulty = instance(arn=None, connected=False, seen=False, launched=NOW - 121)
    observed = seen(1, faulty)
    first = step([waiting()], observed, NOW, Limits())
    assert first == (Terminate("i-0", SPOT),)
    in_flight = replace(observed, in_flight=dict.fromkeys(first, NOW))
    assert step([waiting()], in_flight, NOW, Limits()) == (SetDesired(SPOT, 1),)


def test_an_instance_with_a_disconnected_agent_is_replaced_if_a_worker_waits_for_it():
    disconnected = instance(connected=False)
    assert step([waiting(since=NOW - 10)], seen(1, disconnected), NOW, Limits()) == ()  # it may reconnect
    assert step([waiting(since=NOW - 21)], seen(1, disconnected), NOW, Limits()) == (Terminate("i-0", SPOT),)


def test_the_scheduler_is_asked_to_forget_a_dead_process_with_the_same_name():
    worker = Worker("a", SPOT, S.REQUESTED)
    assert step([worker], seen(0, members=frozenset("a")), NOW, Limits()) == (Forget("a"),)


def test_the_instance_of_a_worker_in_backoff_is_kept():
    worker = Worker("a", SPOT, S.REQUESTED, not_before=NOW + 4)
    assert step([worker], seen(1, instance()), NOW, Limits()) == ()


def test_a_task_is_stopped_once_even_if_the_reason_changes():
    task = Task("t", "a", 0, "RUNNING", "arn:i-0")
    worker = Worker("a", SPOT, S.FAILED, task="t", reason="did not join within 180 s")
    observed = seen(1, instance(), tasks={"t": task})
    actions = step([worker], observed, NOW, Limits())
    assert [(a.task, a.reason) for a in actions if isinstance(a, StopTask)] == [("t", worker.reason)]
    in_flight = replace(observed, in_flight=dict.fromkeys(actions, NOW))
    assert step([replace(worker, reason="the same at length")], in_flight, NOW, Limits()) == ()


def test_a_duplicate_task_is_stopped():
    tasks = {arn: Task(arn, "a", 0, "RUNNING", f"arn:{i}") for arn, i in (("t", "i-0"), ("u", "i-1"))}
    worker = Worker("a", SPOT, S.READY, task="t", instance="arn:i-0")
    actions = step([worker], seen(2, instance("i-0"), instance("i-1"), tasks=tasks), NOW, Limits())
    assert actions == (StopTask("u", "no longer requested"),)


def test_a_retiring_worker_is_retired_and_keeps_its_instance():
    worker = Worker("a", SPOT, S.RETIRING, requested=False, task="t", instance="arn:i-0")
    tasks = {"t": Task("t", "a", 0, "RUNNING", "arn:i-0")}
    actions = step([worker], seen(1, instance(), tasks=tasks, members=frozenset("a")), NOW, Limits())
    assert actions == (Retire("a"),)


def test_unused_capacity_that_never_launched_is_released():
    assert step([], seen(3), NOW, Limits()) == (SetDesired(SPOT, 0),)


def test_the_replacement_that_auto_scaling_is_about_to_launch_is_not_cancelled():
    worker = Worker("a", SPOT, S.READY, task="t", instance="arn:i-0")
    tasks = {"t": Task("t", "a", 0, "RUNNING", "arn:i-0")}
    interrupted = instance(terminating=True)
    assert step([worker], seen(1, interrupted, tasks=tasks, members=frozenset("a")), NOW, Limits()) == ()


def test_capacity_is_not_requested_again_before_a_scale_in_is_visible():
    observed = seen(5, in_flight={SetDesired(SPOT, 0): NOW})
    assert step([waiting()], observed, NOW, Limits()) == ()
    assert step([waiting()], seen(0), NOW, Limits()) == (SetDesired(SPOT, 1),)


@example(19.9)
@example(20.0)
@given(st.floats(0, 100))
def test_a_request_without_effect_is_repeated_after_a_timeout(ago: float):
    observed = seen(0, in_flight={SetDesired(SPOT, 1): NOW - ago})
    again = () if ago < Limits().repeat else (SetDesired(SPOT, 1),)
    assert step([waiting()], observed, NOW, Limits()) == again


def test_a_poll_is_shorter_than_every_timeout():
    patience = Limits()
    assert min(patience.repeat, patience.absent, patience.capacity) > 2 * TICK
