"""Successors of interrupted workers, and moving workers back to Spot."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dask_starburst.plan.loop.interruptions import Outcome, Succession, outcome, to_move_back
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import (
    Group,
    Instance,
    Limits,
    Name,
    Observed,
    SetDesired,
    Task,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.loop.worker import track

S = WorkerState
NOW = 1000.0
FALLBACK_GROUPS = Limits(fallback_groups=("spot", "on-demand"))
FOLLOWS = Succession("old", "new")
BACK = Succession("old", "new", "spot")


def ready(name: str, group: str = "spot", **more: object) -> Worker:
    usual: dict[str, object] = {"since": NOW, "task": f"task-{name}", "instance": f"arn:{name}"}
    return Worker(name, group, S.READY, **(usual | more))  # type: ignore[arg-type]  # by name


def workers(*some: Worker) -> dict[Name, Worker]:
    return {w.name: w for w in some}


def booting(**more: object) -> Worker:
    return Worker("new", "spot", S.CAPACITY, since=NOW, **more)  # type: ignore[arg-type]  # by name


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


@pytest.mark.parametrize("new", [booting(attempt=1), replace(booting(), group="on-demand")])
def test_a_worker_stays_on_demand_if_spot_has_no_capacity(new: Worker):
    assert outcome(BACK, workers(ready("old", "on-demand"), new)) == Outcome(withdraw=True)
    assert outcome(FOLLOWS, workers(ready("old"), new)) is None


# -- back to Spot ---------------------------------------------------------------------------------


def test_the_youngest_on_demand_worker_moves_back_first():
    fleet = [ready("a"), ready("b", "on-demand", since=NOW - 9), ready("c", "on-demand", since=NOW - 5)]
    back = to_move_back(fleet, Observed(), FALLBACK_GROUPS)
    assert back is not None
    assert back.name == "c"


def test_no_worker_moves_back_while_spot_is_refused():
    refused = Observed(refusals=(Refusal("spot", "capacity", "none", NOW, "c7g.xlarge"),))
    assert to_move_back([ready("a", "on-demand")], refused, FALLBACK_GROUPS) is None


def test_no_worker_moves_back_while_another_is_starting_or_leaving():
    assert to_move_back([ready("a", "on-demand"), booting()], Observed(), FALLBACK_GROUPS) is None
    assert to_move_back([ready("a", "on-demand", requested=False)], Observed(), FALLBACK_GROUPS) is None


@pytest.mark.parametrize("fallback_groups", [(), ("spot",), ("on-demand",)])
def test_without_fallback_groups_no_worker_moves(fallback_groups: tuple[str, ...]):
    assert to_move_back([ready("a", "on-demand")], Observed(), Limits(fallback_groups=fallback_groups)) is None


# -- Spot interruptions ---------------------------------------------------------------------------


def interrupted(worker: Worker, **more: object) -> Observed:
    """Return the observed state of a worker whose instance is interrupted."""
    place = Instance("i-a", "spot", "c7g.xlarge", "arn:a", connected=True, seen=True, cordoned=True)
    task = Task("task-a", "a", 0, "RUNNING", "arn:a")
    seen = Observed({"spot": Group("spot", 1)}, {"i-a": place}, {"task-a": task}, frozenset("a"))
    return replace(seen, **more)  # type: ignore[arg-type]  # by name


def test_a_worker_under_notice_is_retired_by_the_scheduler_only():
    worker = track(ready("a", requested=False, notice=NOW + 100), interrupted(ready("a")), NOW, FALLBACK_GROUPS)
    assert worker.state is S.RETIRING
    assert step([worker], interrupted(worker), NOW, FALLBACK_GROUPS) == ()


def test_its_successor_gets_a_separate_instance_immediately():
    fleet = [ready("a", requested=False, notice=NOW + 100), booting()]
    assert SetDesired("spot", 2) in step(fleet, interrupted(fleet[0]), NOW, FALLBACK_GROUPS)


def test_a_cordoned_instance_is_terminated_and_no_task_is_placed_on_it():
    empty = interrupted(ready("a"), tasks={}, members=frozenset())
    assert step([booting()], empty, NOW, Limits(warm=300)) == (Terminate("i-a", "spot"),)
