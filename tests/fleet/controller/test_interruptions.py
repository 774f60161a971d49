"""Workers that AWS takes away: they are replaced once, exempted, counted, and moved back."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from dask_starburst.events import (
    EventLog,
    SpotInterruption,
    SpotRebalance,
    WorkerLeaving,
    WorkerMovesBack,
    WorkerRetired,
)
from dask_starburst.fleet.controller.interruptions import Interruptions
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.interruptions import REBALANCE_BYTES, Notice, NoticeKind
from dask_starburst.plan.loop.state import Instance, Limits, Observed, Worker, WorkerState
from tests.support.no_capacity import NoDask
from tests.support.placements import ON_DEMAND, SPOT, WITH_FALLBACK

S = WorkerState
NOW = 1000.0
HERE = Instance("i-0", SPOT, "c7g.xlarge", "arn:i-0", connected=True, seen=True)
READY = Worker(0, SPOT, S.READY, since=900.0, task="t-0", instance="arn:i-0")


class Replacing(NoDask):
    """A scheduler whose cluster requests replacements."""

    roster: Roster

    async def replace(self, name: Any) -> Any:
        await super().replace(name)
        self.roster.request(7, DEFAULT)
        self.roster.cancel(name)
        return 7


class Setting:
    """Interruptions of one worker, and what came of them."""

    def __init__(self, *workers: Worker, on_rebalance: str = "replace") -> None:
        self.now, self.dask, self.events = NOW, Replacing(), EventLog(now=lambda: 0.0)
        observed = Observed(instances={"i-0": HERE})
        limits = Limits(placements=WITH_FALLBACK)
        self.roster = self.dask.roster = Roster(limits, lambda: self.now, workers or (READY,), observed)
        self.waiting: list[Coroutine[Any, Any, None]] = []
        emit, spawn = self.events.emit, self.waiting.append
        self.spot = Interruptions(self.roster, self.dask, emit, spawn, on_rebalance)
        self.roster.listen(self.spot.worker_changed)

    def hear(self, kind: NoticeKind, *, name: int = 0) -> None:
        asyncio.run(self.spot.handle(Notice(1, name, kind, 120.0, held=REBALANCE_BYTES)))

    def poll(self, *draining: str) -> None:
        """Follow up as the loop does after each poll."""
        self.spot.update(draining)
        while self.waiting:
            asyncio.run(self.waiting.pop())

    def put(self, worker: Worker) -> None:
        """Let a worker be in another state."""
        self.roster._put(worker)


def requested(here: Setting) -> list[Any]:
    return [worker.name for worker in here.roster.workers.values() if worker.requested]


def test_an_interrupted_worker_is_replaced_and_its_instance_and_type_are_avoided():
    here = Setting()
    here.hear("interruption")
    leaving = here.roster.workers[0]
    assert (leaving.requested, leaving.notice) == (False, NOW + 120)
    assert here.dask.calls == [("replace", 0)]
    assert here.roster.workers[7].requested
    assert here.roster.observed.instances["i-0"].cordoned
    (refusal,) = here.roster.observed.refusals
    assert (refusal.placement, refusal.type, refusal.kind) == (SPOT, "c7g.xlarge", "capacity")
    assert [type(event) for event in here.events] == [SpotInterruption]


def test_the_same_interruption_is_counted_and_replaced_once():
    """Metadata, EventBridge and ECS may all tell of it."""
    here = Setting()
    for kind in ("interruption", "interruption", "stop"):
        here.hear(kind)
    assert here.spot.counts.interruptions == 1
    assert here.dask.calls == [("replace", 0)]


def test_a_notice_about_an_unknown_worker_does_nothing():
    here = Setting()
    here.hear("interruption", name=99)
    assert (here.dask.calls, list(here.events)) == ([], [])


def test_a_worker_whose_container_is_stopped_is_replaced_without_avoiding_its_type():
    here = Setting()
    here.hear("stop")
    assert [type(event) for event in here.events] == [WorkerLeaving]
    assert here.roster.observed.refusals == ()
    assert here.spot.counts.interruptions == 0


def test_a_worker_that_the_user_retired_is_withdrawn_and_not_replaced():
    here = Setting()
    here.hear("retired")
    assert here.dask.calls == [("withdraw", 0)]
    assert [type(event) for event in here.events] == [WorkerRetired]


@pytest.mark.parametrize(("on_rebalance", "calls"), [("replace", [("replace", 0)]), ("ignore", [])])
def test_a_rebalance_recommendation_starts_a_successor_while_the_worker_goes_on(on_rebalance: str, calls: list[Any]):
    here = Setting(on_rebalance=on_rebalance)
    here.hear("rebalance")
    assert here.dask.calls == calls
    assert here.roster.workers[0].requested, "it works until its successor is up"
    assert [type(event) for event in here.events] == [SpotRebalance]
    assert here.spot.counts.rebalances == 1


def test_the_old_worker_goes_when_its_successor_is_up():
    here = Setting()
    here.hear("rebalance")
    here.poll()
    assert requested(here) == [0, 7]
    here.put(replace(here.roster.workers[7], state=S.READY))
    here.poll()
    assert requested(here) == [7]
    assert not here.roster.successions


def test_a_drained_worker_is_announced_once():
    here = Setting()
    here.poll("arn:i-0")
    here.poll("arn:i-0")
    assert here.dask.calls == [("drain", 0)]


def test_a_worker_on_demand_is_moved_back_to_spot():
    here = Setting(replace(READY, placement=ON_DEMAND))
    here.poll()
    assert here.dask.calls == [("replace", 0)]
    assert [type(event) for event in here.events] == [WorkerMovesBack]
    here.put(replace(here.roster.workers[7], state=S.READY))
    here.poll()
    assert here.spot.counts.moved_back == 1
    assert not here.roster.workers[0].requested


def test_a_move_back_that_finds_no_spot_is_withdrawn_and_not_tried_again_at_once():
    here = Setting(replace(READY, placement=ON_DEMAND))
    here.poll()
    here.put(replace(here.roster.workers[7], placement=ON_DEMAND))
    here.poll()
    assert here.dask.calls == [("replace", 0), ("restore", 0)]
    assert here.roster.workers[0].requested
    here.roster.cancel(7)
    here.roster.track(NOW)
    here.poll()
    assert here.dask.calls == [("replace", 0), ("restore", 0)]


def lost(worker: Worker) -> Worker:
    return replace(worker, state=S.LOST, reason="Host EC2 terminated.")


@pytest.mark.parametrize(
    ("instances", "calls"),
    [({}, [("exempt", 0)]), ({"i-0": replace(HERE, terminating=True)}, [("exempt", 0)]), ({"i-0": HERE}, [])],
    ids=["gone", "terminating", "there"],
)
def test_tasks_are_exempt_from_suspicion_only_if_aws_took_the_instance(
    instances: dict[str, Instance], calls: list[Any]
):
    here = Setting()
    here.roster.observe(Observed(instances=instances), here.roster.observed)
    here.put(lost(READY))
    here.poll()
    assert here.dask.calls == calls


def test_fallbacks_are_counted():
    here = Setting(Worker(0, SPOT, S.CAPACITY))
    here.put(Worker(0, ON_DEMAND, S.REQUESTED))
    assert here.spot.counts.fallbacks == 1
    assert here.spot.counts


def test_the_time_without_either_worker_is_added_up():
    here = Setting()
    here.hear("interruption")
    here.put(replace(here.roster.workers[0], state=S.STOPPED))
    here.roster.track(NOW)
    here.poll()
    here.now = NOW + 40
    here.put(replace(here.roster.workers[7], state=S.READY))
    here.poll()
    assert here.spot.counts.seconds_lost == 40
