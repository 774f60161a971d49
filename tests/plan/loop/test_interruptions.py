"""Successors of interrupted workers, and moving workers back to Spot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dask_starburst.plan.groups import DEFAULT, Placement
from dask_starburst.plan.loop.interruptions import (
    REBALANCE_BYTES,
    REBALANCE_PAUSE,
    Outcome,
    Succession,
    outcome,
    to_move_back,
    why_not_replaced,
)
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import (
    Instance,
    Limits,
    Name,
    Observed,
    ScalingGroup,
    SetDesired,
    Task,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.loop.worker import track
from tests.support.placements import ON_DEMAND, ONLY_SPOT, SPOT, WITH_FALLBACK

S = WorkerState
NOW = 1000.0
FALLBACK = Limits(placements=WITH_FALLBACK)
FOLLOWS = Succession("old", "new")
BACK = Succession("old", "new", SPOT)


def ready(name: str, placement: Placement = SPOT, **more: object) -> Worker:
    usual: dict[str, object] = {"since": NOW, "task": f"task-{name}", "instance": f"arn:{name}"}
    return Worker(name, placement, S.READY, **(usual | more))  # type: ignore[arg-type]  # by name


def workers(*some: Worker) -> dict[Name, Worker]:
    return {w.name: w for w in some}


def booting(**more: object) -> Worker:
    return Worker("new", SPOT, S.CAPACITY, since=NOW, **more)  # type: ignore[arg-type]  # by name


# -- successions ----------------------------------------------------------------------------------


def test_the_old_worker_stays_until_the_new_one_is_ready():
    assert outcome(FOLLOWS, workers(ready("old"), booting())) is None
    assert outcome(FOLLOWS, workers(ready("old"), ready("new"))) == Outcome(retire=True)


@pytest.mark.parametrize(
    "others",
    [(ready("old"),), (ready("old"), booting(requested=False)), (replace(ready("old"), state=S.LOST), booting())],
    ids=["the new one was removed", "the new one was cancelled", "the old one is lost"],
)
def test_a_decided_succession_retires_the_old_worker(others: tuple[Worker, ...]):
    assert outcome(FOLLOWS, workers(*others)) == Outcome(retire=True)


def test_a_succession_ends_when_the_old_worker_is_gone():
    assert outcome(FOLLOWS, workers(booting())) == Outcome()


@pytest.mark.parametrize("new", [booting(attempt=1), replace(booting(), placement=ON_DEMAND)])
def test_a_worker_stays_on_demand_if_spot_has_no_capacity(new: Worker):
    assert outcome(BACK, workers(ready("old", ON_DEMAND), new)) == Outcome(withdraw=True)
    assert outcome(FOLLOWS, workers(ready("old"), new)) is None


# -- back to Spot ---------------------------------------------------------------------------------


def test_the_youngest_on_demand_worker_moves_back_first():
    fleet = [ready("a"), ready("b", ON_DEMAND, since=NOW - 9), ready("c", ON_DEMAND, since=NOW - 5)]
    back = to_move_back(fleet, Observed(), FALLBACK)
    assert back is not None
    assert (back[0].name, back[1]) == ("c", SPOT)


def test_no_worker_moves_back_while_spot_is_refused():
    refused = Observed(refusals=(Refusal(SPOT, "capacity", "none", NOW, "c7g.xlarge"),))
    assert to_move_back([ready("a", ON_DEMAND)], refused, FALLBACK) is None


def test_no_worker_moves_back_while_another_is_starting_or_leaving():
    assert to_move_back([ready("a", ON_DEMAND), booting()], Observed(), FALLBACK) is None
    assert to_move_back([ready("a", ON_DEMAND, requested=False)], Observed(), FALLBACK) is None


@pytest.mark.parametrize("placements", [{}, ONLY_SPOT, {DEFAULT: (ON_DEMAND,)}])
def test_without_a_fallback_no_worker_moves(placements: dict[str, tuple[Placement, ...]]):
    assert to_move_back([ready("a", ON_DEMAND)], Observed(), Limits(placements=placements)) is None


# -- Spot interruptions ---------------------------------------------------------------------------


def interrupted(worker: Worker, **more: object) -> Observed:
    """Return the observed state of a worker whose instance is interrupted."""
    place = Instance("i-a", SPOT, "c7g.xlarge", "arn:a", connected=True, seen=True, cordoned=True)
    task = Task("task-a", "a", 0, "RUNNING", "arn:a")
    seen = Observed({SPOT: ScalingGroup(SPOT, 1)}, {"i-a": place}, {"task-a": task}, frozenset("a"))
    return replace(seen, **more)  # type: ignore[arg-type]  # by name


def test_a_worker_under_notice_is_retired_by_the_scheduler_only():
    worker = track(ready("a", requested=False, notice=NOW + 100), interrupted(ready("a")), NOW, FALLBACK)
    assert worker.state is S.RETIRING
    assert step([worker], interrupted(worker), NOW, FALLBACK) == ()


def test_its_successor_gets_a_separate_instance_immediately():
    fleet = [ready("a", requested=False, notice=NOW + 100), booting()]
    assert SetDesired(SPOT, 2) in step(fleet, interrupted(fleet[0]), NOW, FALLBACK)


def test_a_cordoned_instance_is_terminated_and_no_task_is_placed_on_it():
    empty = interrupted(ready("a"), tasks={}, members=frozenset())
    assert step([booting()], empty, NOW, Limits(warm=300)) == (Terminate("i-a", SPOT),)


@pytest.mark.parametrize(
    ("held", "last", "holds"),
    [
        (REBALANCE_BYTES, None, ""),
        (REBALANCE_BYTES, NOW - REBALANCE_PAUSE, ""),
        (REBALANCE_BYTES - 1, None, "it holds 4.0 GiB"),
        (0, NOW - 1, "it holds 0.0 GiB, which a Spot notice leaves time to transfer"),
        (REBALANCE_BYTES, NOW - REBALANCE_PAUSE + 1, "within the last 10 minutes"),
    ],
)
def test_a_recommendation_replaces_only_a_worker_that_holds_much_and_one_in_ten_minutes(
    held: int, last: float | None, holds: str
):
    why = why_not_replaced(held, NOW, last)
    assert holds in why
    assert bool(why) is bool(holds)
