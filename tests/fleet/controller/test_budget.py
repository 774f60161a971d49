"""Cost caps in the loop: who waits, what the user hears, and when the cluster ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dask_starburst.catalog.markets import Market
from dask_starburst.errors import BudgetExceeded
from dask_starburst.events import BudgetWarning, CostSoFar, EventLog, WorkersFreed, WorkersOverBudget
from dask_starburst.events.instances import InstanceTimestamps
from dask_starburst.fleet.controller.budget import BudgetControl, NullCostTracker
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.loop.state import Instance, Limits, Name, Observed, ScalingGroup, Worker, WorkerState
from dask_starburst.plan.money.budget import Caps, Rates
from tests.support.no_capacity import NoCapacity, NoDask
from tests.support.placements import ONLY_SPOT, SPOT

S = WorkerState
NOW = 1000.0
LIMITS = Limits(placements=ONLY_SPOT, warm=300.0)
GROUP = ScalingGroup(SPOT, 1, ("c7g.xlarge",), ("c7g.xlarge",))
HERE = Instance("i-0", SPOT, "c7g.xlarge", "arn:i-0", connected=True, seen=True)
UP = Worker(0, SPOT, S.READY, task="t-0", instance="arn:i-0")
WAITING = Worker(1, SPOT, since=NOW - 60)


@dataclass
class Tracker:
    """A ledger in which an instance costs a dime an hour."""

    caps: Caps
    usd: float = 0.0
    busy: dict[Name, float] = field(default_factory=dict)

    def rates(self) -> Rates:
        return Rates({("c7g.xlarge", Market.SPOT): 0.1})

    def spent(self, now: float) -> float:
        return self.usd

    def record_busy(self, seconds: Mapping[Name, float]) -> None:
        self.busy.update(seconds)


class Reported(NoDask):
    """A scheduler that notes the reports."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: list[tuple[float, float]] = []

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        self.reports.append((spent, rate))
        return {0: 12.0}


class Timed(NoCapacity):
    """A platform that says when instances were launched; it notes the questions."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[set[str]] = []

    async def billable(self, instances: Any) -> list[InstanceTimestamps]:
        self.asked.append(set(instances))
        return [InstanceTimestamps(instance=i, launched=1.0, ended=None, zone="a", taken=False) for i in self.asked[-1]]


class Setting:
    """The budget of one running worker, and another one that waits."""

    def __init__(self, *, spent: float = 0.0, workers: tuple[Worker, ...] = (UP, WAITING), **caps: float) -> None:
        self.tracker, self.dask, self.capacity = Tracker(Caps(**caps), spent), Reported(), Timed()
        observed = Observed({SPOT: GROUP}, {"i-0": HERE})
        self.roster, self.events = Roster(LIMITS, lambda: NOW, workers, observed), EventLog(now=lambda: 0.0)
        emit = self.events.emit
        self.budget = BudgetControl(self.roster, self.capacity, self.dask, self.tracker, emit, self.run)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run(work)

    def enforce(self, now: float = NOW) -> Limits:
        return self.budget.enforce(now, LIMITS)

    def kinds(self) -> list[type]:
        return [type(event) for event in self.events if not isinstance(event, InstanceTimestamps)]


def test_a_worker_that_would_exceed_the_hourly_cap_waits_and_the_user_hears_why():
    here = Setting(hourly=0.15)
    assert here.enforce() == LIMITS
    assert {name: worker.over_budget for name, worker in here.roster.workers.items()} == {0: False, 1: True}
    (event,) = (event for event in here.events if isinstance(event, WorkersOverBudget))
    assert "max_hourly_cost=0.15" in event.text
    here.enforce()
    assert here.kinds() == [WorkersOverBudget], "once"


def test_the_worker_starts_when_there_is_room_again():
    here = Setting(hourly=0.15)
    here.enforce()
    here.tracker.caps = Caps(hourly=0.5)
    here.enforce()
    assert not here.roster.workers[1].over_budget
    assert here.kinds() == [WorkersOverBudget, WorkersFreed]


def test_no_instance_is_kept_warm_above_the_cap():
    assert Setting(hourly=0.05).enforce().warm == 0.0
    assert Setting(hourly=0.5).enforce().warm == LIMITS.warm


def test_a_cluster_that_has_cost_its_total_cap_ends_after_a_warning():
    here = Setting(total=1.0, spent=0.85)
    here.enforce()
    assert here.kinds() == [BudgetWarning]
    here.tracker.usd = 1.0
    with pytest.raises(BudgetExceeded, match="max_total_cost=1 is reached"):
        here.enforce()


def test_an_alert_is_emitted_once():
    here = Setting(alert=0.05)
    here.enforce()
    here.enforce()
    assert here.kinds() == [BudgetWarning]


def test_costs_and_busy_times_are_exchanged_with_the_scheduler_every_few_seconds():
    here = Setting(spent=0.2)
    for now in (NOW, NOW + 5, NOW + 10):
        here.enforce(now)
    assert here.dask.reports == [(0.2, 0.1), (0.2, 0.1)]
    assert here.tracker.busy == {0: 12.0}
    asyncio.run(here.budget.final_report())
    assert len(here.dask.reports) == 3


def test_the_cost_so_far_is_emitted_every_quarter_of_an_hour():
    here = Setting(spent=0.2)
    for minute in range(31):
        here.enforce(NOW + 60 * minute)
    assert here.kinds() == [CostSoFar, CostSoFar]


def test_instances_that_appear_or_vanish_are_dated_by_the_platform():
    here = Setting()
    here.enforce()
    here.enforce()
    here.roster.observe(Observed({SPOT: GROUP}), here.roster.observed)
    here.enforce()
    assert here.capacity.asked == [{"i-0"}, {"i-0"}]
    assert [event.subject for event in here.events] == ["i-0", "i-0"]


def test_a_cap_blocks_only_if_nothing_is_on_its_way():
    alone = replace(WAITING, over_budget=True)
    error = Setting(workers=(alone,), hourly=0.05).budget.blocked_error()
    assert isinstance(error, BudgetExceeded)
    assert "1 worker waits" in str(error)
    coming = Worker(2, SPOT, S.CAPACITY)
    assert Setting(workers=(alone, coming), hourly=0.05).budget.blocked_error() is None
    assert Setting(hourly=0.05).budget.blocked_error() is None


def test_without_a_ledger_everything_is_free():
    tracker = NullCostTracker()
    assert (tracker.spent(NOW), tracker.rates(), bool(tracker.caps)) == (0.0, Rates(), False)
