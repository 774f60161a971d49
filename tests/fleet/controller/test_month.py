"""A cluster that runs for a month: neither its memory nor the work of each poll grows.

Virtual time: the loop of `benchmarks.harness.simulator` with all that follows a fleet: events, ledger, Spot, budget,
boots.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass, field, fields, is_dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from benchmarks.harness.simulator.aws import TICK, SimulatedAWS
from benchmarks.harness.simulator.loop import SimulatedFleet
from dask_starburst.catalog import Price
from dask_starburst.cost import Ledger
from dask_starburst.events import Event, EventLog, InstanceLaunched, WorkerReady, WorkerStopped
from dask_starburst.events.stream import REMEMBERED
from dask_starburst.fleet.controller import observe
from dask_starburst.fleet.controller.budget import BudgetControl
from dask_starburst.fleet.controller.execute import Executor
from dask_starburst.fleet.controller.interruptions import Interruptions
from dask_starburst.fleet.controller.startup_times import StartupClock
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Name, Observed, Worker, WorkerState
from dask_starburst.plan.money.budget import Caps
from tests.support.placements import HEAD, SPOT

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


class EC2:
    """EC2's launch times, for the ledger."""

    def __init__(self, fleet: Month) -> None:
        self._fleet = fleet

    def now(self) -> float:
        return self._fleet.aws.now

    async def pages(self, *_: str, Filters: list[dict[str, Any]]) -> list[dict[str, Any]]:  # noqa: N803 -- AWS's name
        known, zone = self._fleet.observed.instances, {"AvailabilityZone": "us-east-1a"}
        there = [known[name] for name in Filters[0]["Values"] if name in known]
        life = {"Placement": zone, "State": {"Name": "running"}}
        times = {i.id: datetime.fromtimestamp(i.launched, UTC) for i in there}
        return [
            {"Instances": [{"InstanceId": i.id, "InstanceType": i.type, "LaunchTime": times[i.id], **life}]}
            for i in there
        ]


@dataclass
class Scheduler:
    """The scheduler, as far as a fleet calls it."""

    fleet: Month
    names: int = 0
    busy: dict[Name, float] = field(default_factory=dict)

    async def replace(self, name: Name) -> Name:
        self.names += 1
        self.fleet.ask_for(self.names)
        self.fleet.cancel(name)
        return self.names

    async def announce_drain(self, name: Name) -> None:
        await self.fleet.spot.handle(Notice(1, name, "stop", 120.0))

    async def exempt(self, names: Collection[Name]) -> None:
        """Do nothing."""

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        self.busy = {name: self.busy.get(name, 0.0) + 1 for name in self.fleet.workers if name != SCHEDULER}
        return dict(self.busy)


class Month(SimulatedFleet):
    """A `SimulatedFleet` with the parts that follow a real fleet; used as a `fleet.Fleet`."""

    def __init__(self, seed: int) -> None:
        aws = SimulatedAWS(random.Random(seed), desired={SPOT: 0, HEAD: 0})
        super().__init__(aws, {}, Observed(), Limits())
        self.pool = SimpleNamespace(aws=EC2(self), name="pool")
        self.events, self.market, self.startups = EventLog(quiet=True, now=self.now), Quotes(), StartupClock()
        self.ledger = Ledger(self.market, caps=Caps(total=1e9), types=("c7g.xlarge",))
        self.events.listen(self.ledger.note)
        self.dask = Scheduler(self)
        as_fleet: Any = self
        as_side: Any = self.dask
        self.performer = Executor(as_fleet, as_fleet)
        self.spot = Interruptions(as_fleet, as_side, self.limits)
        self.budget = BudgetControl(as_fleet, self.dask, self.ledger)
        self.loop = asyncio.Runner()

    def ask_for(self, name: Name, placement: Placement = SPOT) -> None:
        now = self.aws.now
        self.workers[name] = Worker(name, placement, since=now, not_before=now)

    def cancel(self, name: Name) -> None:
        self.workers[name] = replace(self.workers[name], requested=False)

    def cordon(self, instance: str) -> None:
        self.observed = observe.cordon(self.observed, instance)

    def refuse(self, refusal: Refusal) -> None:
        self.observed = replace(self.observed, refusals=(*self.observed.refusals, refusal))

    def now(self) -> float:
        return self.aws.now

    def emit(self, event: Event) -> None:
        self.events.emit(event)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run(work)

    def _poll(self) -> None:
        before = self.observed
        super()._poll()
        self.market.now = self.aws.now
        self.performer.compare(before, self.observed)
        self.budget.enforce(self.aws.now, self.limits)
        self.ledger.reprice(self.aws.now)

    def _track(self) -> None:
        old = dict(self.workers)
        super()._track()
        for name, before in old.items():
            after = self.workers.get(name) or replace(before, state=S.STOPPED, requested=False)
            if after is not before:
                self.startups.note(after, self.observed, self.aws.now)
                self._emit_change(before, after)
        self.startups.polled(self.aws.now)
        self.spot.update({w.instance for w in self.workers.values() if w.instance in self.observed.draining})

    def _emit_change(self, before: Worker, after: Worker) -> None:
        where = observe.instance_of(self.observed, before if after.state is S.STOPPED else after)
        if after.state is not before.state and after.state is S.READY:
            self.emit(WorkerReady(name=after.name, instance=where, seconds=5.0))
        if after.state is not before.state and after.state is S.STOPPED:
            self.emit(WorkerStopped(name=after.name, instance=where))


def live_for(fleet: Month, hours: int) -> None:
    """Each hour one worker replaces another; Spot interrupts every other one, and AWS refuses a cancelled request."""
    for hour in range(hours):
        worker = max(name for name in fleet.workers if isinstance(name, int))
        if hour % 2:
            fleet.spawn(fleet.spot.handle(Notice(1, worker, "interruption", 120.0)))
        else:
            fleet.spawn(fleet.dask.replace(worker))  # type: ignore[arg-type]
        ticks(fleet, SOON)
        refused(fleet)
        fleet.aws.pass_time(HOUR - 2 * SOON * TICK)
        ticks(fleet, SOON)


def ticks(fleet: Month, count: int) -> None:
    for _ in range(count):
        fleet.tick()


def refused(fleet: Month) -> None:
    """Request a worker while AWS accepts no requests, and cancel it."""
    fleet.aws.outages = [(fleet.aws.now, fleet.aws.now + 10.0, "order")]
    fleet.dask.names += 1
    name = fleet.dask.names
    fleet.ask_for(name)
    ticks(fleet, 2)
    fleet.cancel(name)


#: Attributes that do not belong to a cluster's client: AWS, and the scheduler.
_OUTSIDE = (SimulatedAWS, EC2, Scheduler, asyncio.Runner, random.Random)


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
    fleet = Month(seed=1)
    fleet.ask_for(SCHEDULER, HEAD)
    fleet.ask_for(0)
    fleet.dask.names = 1
    fleet.ask_for(1)
    ticks(fleet, SOON)
    samplers: dict[str, Callable[[], Any]] = {
        "step": lambda: step(fleet.workers.values(), fleet.observed, fleet.aws.now, fleet.limits),
        "track": fleet._track,
        "boots": lambda: fleet.startups.snapshot(fleet.aws.now),
        "spent": lambda: fleet.ledger.spent(fleet.aws.now),
        "total": lambda: fleet.ledger.total(fleet.aws.now),
        "reprice": lambda: fleet.ledger.reprice(fleet.aws.now),
        "budget": lambda: fleet.budget.enforce(fleet.aws.now, fleet.limits),
    }
    days = []
    for _ in range(length):
        live_for(fleet, 24)
        here = {"all": held(fleet), "asked": len(fleet.observed.in_flight), "tasks": len(fleet.observed.tasks)}
        days.append(here | {name: steps(look) for name, look in samplers.items()})
    assert fleet.aws.started > 24 * length, "workers came and went"
    assert fleet.spot.counts.interruptions > 24 * length / 3
    assert len(fleet.ledger.instances) < 10
    assert len(fleet.events) <= REMEMBERED
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
