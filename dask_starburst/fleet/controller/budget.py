"""Keep a cluster within its cost caps, and exchange costs and busy times with the scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

from dask_starburst.errors import BudgetExceeded, StarburstError
from dask_starburst.events.money import BudgetSetting, BudgetWarning, CostSoFar, WorkersFreed, WorkersOverBudget
from dask_starburst.events.stream import Emit
from dask_starburst.fleet.capacity.interface import Capacity
from dask_starburst.fleet.controller.background import Spawn
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.loop.state import Limits, Name, Observed, Worker, WorkerState
from dask_starburst.plan.money.budget import INTERVAL, WARN_AT, Caps, Rates, hourly, over_budget

logger = logging.getLogger(__name__)

#: Seconds between two log lines about the cost of the cluster.
_LOG_EVERY = 900.0
#: Seconds that the scheduler has to answer when the cluster closes.
_LAST = 2.0


class CostTracker(Protocol):
    """The cost tracker of a cluster: its ledger."""

    caps: Caps

    def rates(self) -> Rates:
        """Return the current hourly cost of each type."""

    def spent(self, now: float) -> float:
        """Return the cost of the cluster so far, in USD."""

    def record_busy(self, seconds: Mapping[Name, float]) -> None:
        """Record the busy seconds of each worker so far, by name."""


class NullCostTracker:
    """The tracker of a cluster without costs: everything is free."""

    caps = Caps()

    def rates(self) -> Rates:
        """Return no prices."""
        return Rates()

    def spent(self, now: float) -> float:
        """Return 0."""
        return 0.0

    def record_busy(self, seconds: Mapping[Name, float]) -> None:
        """Do nothing."""


class BudgetClient(Protocol):
    """The scheduler's part in budget control."""

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Report the cost so far (USD) and the highest hourly cost; return each worker's busy seconds."""


@dataclass
class BudgetControl:
    """Decides after each poll which workers the cost caps allow.

    Parameters
    ----------
    roster : Roster
        The workers to control.
    capacity : Capacity
        Says when instances are billed.
    dask : BudgetClient
        The scheduler. When the client is gone, it uses the last cost that was reported to it.
    cost_tracker : CostTracker
        Tracks the cost and holds the caps.
    emit : callable
        Emits an event.
    spawn : callable
        Runs a coroutine in the background.
    """

    roster: Roster
    capacity: Capacity
    dask: BudgetClient
    cost_tracker: CostTracker
    emit: Emit
    spawn: Spawn
    rate: float = 0.0
    _waiting: int = 0
    _warned: set[str] = field(default_factory=set)
    _reported_at: float = float("-inf")
    _logged_at: float = 0.0
    _reporting: bool = False
    _timestamped: set[str] = field(default_factory=set)

    def enforce(self, now: float, limits: Limits) -> Limits:
        """Mark the workers that are over budget, emit warnings, and close the cluster at ``max_total_cost``.

        Returns
        -------
        Limits
            The limits to apply: while the pool exceeds its hourly cap, no instance is kept warm.

        Raises
        ------
        BudgetExceeded
            ``max_total_cost`` is reached.
        """
        observed, caps = self.roster.observed, self.cost_tracker.caps
        rates, spent = self.cost_tracker.rates(), self.cost_tracker.spent(now)
        self.rate = hourly(observed, rates, now, limits)
        self._request_timestamps(observed)
        if now - self._reported_at >= INTERVAL and not self._reporting:
            self._reported_at, self._reporting = now, True
            self.spawn(self._report(spent))
        self._log(now, spent)
        if not caps:
            return limits
        self._check_total(caps, spent)
        self._alert(caps, spent)
        if not caps.binding:
            return limits
        wait = over_budget(self.roster.workers.values(), observed, now, limits, rates, caps, spent)
        self.roster.set_over_budget(wait)
        self._emit_waiting(len(wait), caps)
        over = caps.hourly is not None and self.rate > caps.hourly
        return replace(limits, warm=0.0) if over else limits

    async def final_report(self) -> None:
        """Read the workers' busy times from the scheduler for the last time."""
        now = self.roster.clock()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._report(self.cost_tracker.spent(now))

    def blocked_error(self) -> BudgetExceeded | None:
        """Return the error if the caps allow no further worker; None while one is on its way or none is over budget."""
        waits = [w for w in self.roster.workers.values() if w.over_budget]
        if not waits or any(_on_its_way(w) for w in self.roster.workers.values()):
            return None
        return BudgetExceeded(self._waiting_text(len(waits), self.cost_tracker.caps))

    def _log(self, now: float, spent: float) -> None:
        """Emit the cost so far every `_LOG_EVERY` seconds."""
        self._logged_at = self._logged_at or now
        if now - self._logged_at >= _LOG_EVERY and self.rate:
            self._logged_at = now
            self.emit(CostSoFar(pool=self.capacity.name, usd=spent, usd_per_hour=self.rate))

    def _check_total(self, caps: Caps, spent: float) -> None:
        if caps.total is None:
            return
        if spent >= WARN_AT * caps.total:
            self._warn("max_total_cost", caps.total, spent)
        if spent + self.rate * INTERVAL / 3600 >= caps.total:
            raise BudgetExceeded(
                f"the cluster has cost ${spent:.4f} and closes: max_total_cost={caps.total:g} is reached. Start a new"
                " cluster with a higher cap or with cheaper workers."
            )

    def _alert(self, caps: Caps, spent: float) -> None:
        if caps.alert is not None and self.rate > caps.alert:
            self._warn("cost_alert_threshold", caps.alert, spent)

    def _warn(self, setting: BudgetSetting, limit: float, spent: float) -> None:
        if setting not in self._warned:
            self._warned.add(setting)
            pool, rate = self.capacity.name, self.rate
            self.emit(BudgetWarning(pool=pool, setting=setting, limit=limit, usd=spent, usd_per_hour=rate))

    def _emit_waiting(self, waiting: int, caps: Caps) -> None:
        """Emit how many workers are over budget once this is certain, and when none is any more."""
        if waiting and any(_capacity_requested(w) for w in self.roster.workers.values()):
            return  # the instances on their way may be cheaper than the most expensive type, which was assumed
        if waiting and not self._waiting:
            pool, text = self.capacity.name, self._waiting_text(waiting, caps)
            self.emit(WorkersOverBudget(pool=pool, workers=waiting, usd_per_hour=self.rate, text=text))
        elif self._waiting and not waiting:
            self.emit(WorkersFreed(pool=self.capacity.name))
        self._waiting = waiting

    def _waiting_text(self, waiting: int, caps: Caps) -> str:
        workers = f"{waiting} worker{'' if waiting == 1 else 's'} {'waits' if waiting == 1 else 'wait'}"
        cap = f"max_hourly_cost={caps.hourly:g}" if caps.hourly is not None else f"max_total_cost={caps.total:g}"
        now = f"the pool costs ${self.rate:.4f} an hour now"
        return f"{workers}, because of {cap}: {now}. Raise the cap, or allow cheaper instance types"

    async def _report(self, spent: float) -> None:
        """Report the cost to the scheduler, and record the workers' busy times."""
        try:
            with suppress(OSError):  # it is gone, or not up yet; the next report follows soon
                self.cost_tracker.record_busy(await self.dask.report_spending(spent, self.rate))
        finally:
            self._reporting = False

    def _request_timestamps(self, observed: Observed) -> None:
        """Ask from when to when instances are billed that have just appeared or gone."""
        here = {i.id for i in observed.instances.values() if not i.terminating}
        changed, self._timestamped = here ^ self._timestamped, here
        if changed:
            self.spawn(self._fetch_timestamps(changed))

    async def _fetch_timestamps(self, instances: Iterable[str]) -> None:
        try:
            for times in await self.capacity.billable(instances):
                self.emit(times)
        except StarburstError as error:  # the time at which the loop first observed it is nearly as accurate
            logger.debug("launch times of instances are unknown: %s", error)


def _on_its_way(worker: Worker) -> bool:
    return _capacity_requested(worker) or (
        worker.requested and worker.state in (WorkerState.PLACED, WorkerState.STARTED)
    )


def _capacity_requested(worker: Worker) -> bool:
    return worker.requested and not worker.over_budget and worker.state in (WorkerState.REQUESTED, WorkerState.CAPACITY)
