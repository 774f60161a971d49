"""A cluster that runs for a month: neither its memory nor the work of each poll grows.

Virtual time: the loop of `benchmarks.harness.simulator` with all that follows it: events, ledger, Spot, budget,
boots.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, fields, is_dataclass
from itertools import count
from types import MappingProxyType
from typing import Any

import pytest

from benchmarks.harness.simulator.aws import TICK, SimulatedAWS
from benchmarks.harness.simulator.capacity import SimulatedCapacity, SimulatedScheduler
from benchmarks.harness.simulator.loop import SimulatedController
from dask_starburst.catalog import Price
from dask_starburst.cost import Ledger
from dask_starburst.errors import StarburstError
from dask_starburst.events import EventLog, InstanceLaunched, WorkerReady, WorkerStopped
from dask_starburst.events.stream import REMEMBERED
from dask_starburst.fleet.controller.budget import BudgetControl
from dask_starburst.fleet.controller.interruptions import Interruptions
from dask_starburst.fleet.controller.narrator import Narrator
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.controller.startup_times import StartupClock
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import SCHEDULER, Action, Limits, Name, WorkerState
from dask_starburst.plan.money.budget import Caps
from tests.support.placements import HEAD, ONLY_SPOT, SPOT

S = WorkerState
HOUR = 3600.0
DAYS = 30
#: Ticks in which a change of one or two workers completes: a boot, a start, an end.
SOON = 60


@dataclass
class Quotes:
    """Spot prices that change every hour."""

    region: str = "us-east-1"
    now: float = 0.0

    def on_demand(self, instance_type: str) -> Price:
        return Price(0.2, "AWS price list", "2026-11-01", "live")

    def spot(self, instance_type: str, zone: str = "") -> Price:
        hour = self.now // HOUR
        return Price(0.05 + hour % 7 / 1000, "AWS Spot price history", "2026-11-01", "live", since=hour * HOUR)


class Scheduler(SimulatedScheduler):
    """The scheduler of a month: it also reports busy times."""

    def __init__(self, aws: SimulatedAWS, roster: Roster) -> None:
        super().__init__(aws, roster, count(2))
        self.busy: dict[Name, float] = {}

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        self.busy = {name: self.busy.get(name, 0.0) + 1 for name in self.roster.workers if name != SCHEDULER}
        return dict(self.busy)


class Month(SimulatedController):
    """A `SimulatedController` with the parts that follow a real one."""

    def __init__(self, seed: int) -> None:
        aws = SimulatedAWS(random.Random(seed), desired={SPOT: 0, HEAD: 0})
        super().__init__(aws, Limits(placements=ONLY_SPOT))
        self.events, self.market, self.startups = EventLog(quiet=True, now=self.roster.clock), Quotes(), StartupClock()
        self.ledger = Ledger(self.market, caps=Caps(total=1e9), types=("c7g.xlarge",))
        self.events.listen(self.ledger.note)
        self.loop = asyncio.Runner()
        self.dask = Scheduler(aws, self.roster)
        emit, roster, capacity = self.events.emit, self.roster, self.capacity
        self.narrator = Narrator(roster, capacity, emit, self.spawn, self.failed, self.explained)
        self.spot = Interruptions(roster, self.dask, emit, self.spawn)
        self.budget = BudgetControl(roster, capacity, self.dask, self.ledger, emit, self.spawn)
        roster.listen(lambda _, new: self.startups.note(new, roster.observed, aws.now))
        roster.listen(self.narrator.worker_changed)
        roster.listen(self.spot.worker_changed)

    def failed(self, error: StarburstError) -> None:
        raise error

    async def explained(self) -> None:
        """Do nothing."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run(work)

    async def _poll(self, now: float) -> None:
        before = self.observed
        await super()._poll(now)
        self.market.now = now
        self.narrator.state_changed(before, self.observed)
        self.budget.enforce(now, self.limits)
        self.ledger.reprice(now)

    def tick(self) -> tuple[Action, ...]:
        actions = super().tick()
        self.startups.polled(self.aws.now)
        self.spot.update(self.observed.draining)
        return actions


def live_for(month: Month, hours: int) -> None:
    """Each hour one worker replaces another; Spot interrupts every other one, and AWS refuses a cancelled request."""
    for hour in range(hours):
        worker = max(w.name for w in month.requested() if isinstance(w.name, int))
        if hour % 2:
            month.spawn(month.spot.handle(Notice(1, worker, "interruption", 120.0)))
        else:
            month.spawn(replaced(month, worker))
        ticks(month, SOON)
        refused(month)
        month.aws.pass_time(HOUR - 2 * SOON * TICK)
        ticks(month, SOON)


async def replaced(month: Month, worker: Name) -> None:
    await month.dask.replace(worker)


def ticks(month: Month, count: int) -> None:
    for _ in range(count):
        month.tick()


def refused(month: Month) -> None:
    """Request a worker while AWS accepts no requests, and cancel it."""
    month.aws.outages = [(month.aws.now, month.aws.now + 10.0, "capacity")]
    name = next(month.dask.numbers)
    month.roster.request(name, DEFAULT)
    ticks(month, 2)
    month.roster.cancel(name)


#: Attributes that do not belong to a cluster's client: AWS, and the scheduler.
_OUTSIDE = (SimulatedAWS, SimulatedCapacity, Scheduler, asyncio.Runner, random.Random)


def held(thing: Any, seen: set[int] | None = None) -> int:
    """Count the objects that an object references, including itself."""
    seen = set() if seen is None else seen
    if thing is None or isinstance(thing, int | float | str | S):
        return 1
    if id(thing) in seen or isinstance(thing, (*_OUTSIDE, type, EventLog)):
        return 0
    seen.add(id(thing))
    parts: list[Any] = []
    if isinstance(thing, dict | MappingProxyType):
        parts = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset | deque):
        parts = list(thing)
    elif type(thing).__module__.startswith(("dask_starburst", "tests", "types")) and hasattr(thing, "__dict__"):
        parts = list(vars(thing).values())
    elif is_dataclass(thing):
        parts = [getattr(thing, each.name) for each in fields(thing)]
    return 1 + sum(held(part, seen) for part in parts)


def steps(work: Callable[[], Any]) -> int:
    """Count the lines of Python that a call executes."""
    count = 0

    def trace(frame: Any, event: str, arg: Any) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("length", [10, pytest.param(DAYS, marks=pytest.mark.slow)])
def test_after_a_month_memory_and_work_a_poll_are_the_same_as_after_a_day(length: int) -> None:
    month = Month(seed=1)
    month.roster.request(SCHEDULER, HEAD.group)
    month.roster.request(0, DEFAULT)
    month.roster.request(1, DEFAULT)
    ticks(month, SOON)
    samplers: dict[str, Callable[[], Any]] = {
        "step": lambda: step(month.workers.values(), month.observed, month.aws.now, month.limits),
        "track": lambda: month.roster.track(month.aws.now),
        "boots": lambda: month.startups.snapshot(month.aws.now),
        "spent": lambda: month.ledger.spent(month.aws.now),
        "total": lambda: month.ledger.total(month.aws.now),
        "reprice": lambda: month.ledger.reprice(month.aws.now),
        "budget": lambda: month.budget.enforce(month.aws.now, month.limits),
    }
    days = []
    for _ in range(length):
        live_for(month, 24)
        here = {"all": held(month), "asked": len(month.observed.in_flight), "tasks": len(month.observed.tasks)}
        days.append(here | {name: steps(look) for name, look in samplers.items()})
    assert month.aws.started > 24 * length, "workers came and went"
    assert month.spot.counts.interruptions > 24 * length / 3
    assert len(month.ledger.instances) < 10
    assert len(month.events) <= REMEMBERED
    assert max(day["asked"] for day in days) == 0
    # Compare with the first days, because the 50 remembered startups take some days. The end of an hour is random, so
    # some days have one or two more changes; something that grows with each hour would be four times as large.
    few = min(7, length // 2)
    first, last = ({name: max(day[name] for day in week) for name in days[0]} for week in (days[:few], days[-few:]))
    assert all(last[name] <= 1.1 * first[name] for name in first), (first, last)


def test_summing_up_the_past_of_a_long_lived_instance_does_not_change_its_cost() -> None:
    market = Quotes()
    ledger = Ledger(market, types=("c7g.xlarge",))
    launched = InstanceLaunched(
        time=0.0, instance="i-0", type="c7g.xlarge", market="spot", placement="spot", group="default"
    )
    ledger.note(launched)
    usd = 0.0
    for hour in range(24 * DAYS):
        market.now = hour * HOUR
        ledger.reprice(market.now)
        usd += market.spot("c7g.xlarge").usd_per_hour
        ledger.note(WorkerReady(time=market.now, name=hour, instance="i-0", seconds=5.0))
        ledger.record_busy({hour - 1: 900.0, hour: 900.0})
        ledger.note(WorkerStopped(time=market.now + HOUR / 2, name=hour, instance="i-0"))
    cost = ledger.total(24 * DAYS * HOUR)
    assert cost.instances == pytest.approx(usd)
    assert cost.instance_hours == pytest.approx(24 * DAYS)
    assert cost.by_cause["work"] / cost.usd == pytest.approx(900 / HOUR)
    assert sum(cost.by_cause.values()) == pytest.approx(cost.usd)
    account = ledger.instances["i-0"]
    assert len(account.prices) < 5
    assert len(account.marks) < 10
    assert len(ledger._runs_on) < 5
