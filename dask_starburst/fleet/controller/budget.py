"""Keep a fleet within its cost limits, and exchange cost and busy time with the scheduler."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from dask_starburst.aws import ec2
from dask_starburst.errors import BudgetExceeded, StarburstError
from dask_starburst.plan.loop.state import Limits, Name, Observed, Worker, WorkerState
from dask_starburst.plan.money.budget import INTERVAL, WARN_AT, Caps, Rates, hourly, over_budget

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Fleet

logger = logging.getLogger(__name__)

#: Seconds between two lines in the log about what the cluster has cost.
_LOG_EVERY = 900.0
#: Seconds that a scheduler has to answer when the cluster closes.
_LAST = 2.0


class CostTracker(Protocol):
    """What the fleet needs of the cluster's ledger."""

    caps: Caps

    def rates(self) -> Rates:
        """Return the current hourly cost of each type."""

    def spent(self, now: float) -> float:
        """Return the cost of the cluster so far, in USD."""

    def record_busy(self, seconds: Mapping[Name, float]) -> None:
        """Record the total busy seconds of each worker, by name."""


class NullCostTracker:
    """A cost tracker for a fleet without a ledger: everything is free."""

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
    """The calls to the scheduler that concern cost."""

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Report the amount spent (USD) and the highest hourly cost; return each worker's busy seconds."""


@dataclass
class BudgetControl:
    """Decides at each look of a fleet which wishes there is money for.

    Parameters
    ----------
    fleet : Fleet
        Whose workers.
    dask : BudgetSide
        The scheduler: it goes by the last word that it heard when the client is gone.
    cost_tracker : CostTracker
        What things cost.
    """

    fleet: Fleet
    dask: BudgetClient
    cost_tracker: CostTracker
    rate: float = 0.0
    _waiting: int = 0
    _warned: set[str] = field(default_factory=set)
    _told: float = float("-inf")
    _logged: float = 0.0
    _telling: bool = False
    _dated: set[str] = field(default_factory=set)

    def look(self, now: float, limits: Limits) -> Limits:
        """Mark the workers that have to wait, warn, and end the cluster when its money is spent.

        Returns
        -------
        Limits
            Those to go by: while the pool costs too much nothing is kept warm.

        Raises
        ------
        BudgetExceeded
            ``max_total_cost`` is reached: the cluster closes.
        """
        fleet, caps = self.fleet, self.cost_tracker.caps
        rates, spent = self.cost_tracker.rates(), self.cost_tracker.spent(now)
        self.rate = hourly(fleet.observed, rates, now, limits)
        self._date(fleet.observed)
        if now - self._told >= INTERVAL and not self._telling:
            self._told, self._telling = now, True
            fleet.spawn(self._account(spent))
        self._log(now, spent)
        if not caps:
            return limits
        self._check_total(caps, spent)
        self._alert(caps)
        if not caps.binding:
            return limits
        wait = over_budget(fleet.workers.values(), fleet.observed, now, limits, rates, caps, spent)
        for name, worker in fleet.workers.items():
            if worker.over_budget != (name in wait):
                fleet.workers[name] = replace(worker, over_budget=not worker.over_budget)
        self._tell(len(wait), caps)
        over = caps.hourly is not None and self.rate > caps.hourly
        return replace(limits, warm=0.0) if over else limits

    async def final_report(self) -> None:
        """Exchange cost and busy time with the scheduler for the last time."""
        now = self.fleet.pool.aws.now()
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(_LAST):
                await self._account(self.cost_tracker.spent(now))

    def hopeless(self) -> BudgetExceeded | None:
        """Return why no further worker can come; None while one is on its way or none waits for money."""
        waits = [w for w in self.fleet.workers.values() if w.over_budget]
        if not waits or any(_coming(w) for w in self.fleet.workers.values()):
            return None
        return BudgetExceeded(self._words(len(waits), self.cost_tracker.caps))

    def _log(self, now: float, spent: float) -> None:
        """Say now and then what it has cost: who looks at the log only shall see it too."""
        self._logged = self._logged or now
        if now - self._logged >= _LOG_EVERY and self.rate:
            self._logged = now
            text = f"${spent:.4f} so far, and ${self.rate:.4f} an hour as it stands"
            self.fleet.tell("cost-so-far", self.fleet.pool.name, text, usd=spent, usd_per_hour=self.rate)

    def _check_total(self, caps: Caps, spent: float) -> None:
        if caps.total is None:
            return
        if spent >= WARN_AT * caps.total:
            text = (
                f"${spent:.4f} of max_total_cost={caps.total:g} are spent; at ${self.rate:.4f} an hour the rest lasts"
            )
            self._warn("total", f"{text} {_minutes(caps.total - spent, self.rate)}. Then the cluster closes")
        if spent + self.rate * INTERVAL / 3600 >= caps.total:
            raise BudgetExceeded(
                f"the cluster has cost ${spent:.4f} and closes, because max_total_cost={caps.total:g} is reached. Start"
                " a new one with a higher cap, or with cheaper workers."
            )

    def _alert(self, caps: Caps) -> None:
        if caps.alert is not None and self.rate > caps.alert:
            text = f"the cluster costs up to ${self.rate:.4f} an hour, more than cost_alert_threshold={caps.alert:g}"
            self._warn("alert", text)

    def _warn(self, what: str, text: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            self.fleet.tell("budget-warning", self.fleet.pool.name, text, logging.WARNING)

    def _tell(self, waiting: int, caps: Caps) -> None:
        """Tell how many workers wait for money once it is clear, and when none does any more."""
        if waiting and any(_ordered(w) for w in self.fleet.workers.values()):
            return  # what comes may be cheaper than the dearest that it was reckoned with
        if waiting and not self._waiting:
            self.fleet.tell("workers-held", self.fleet.pool.name, self._words(waiting, caps), logging.WARNING)
        elif self._waiting and not waiting:
            self.fleet.tell("workers-freed", self.fleet.pool.name, "no worker waits for money any more")
        self._waiting = waiting

    def _words(self, waiting: int, caps: Caps) -> str:
        who = f"{waiting} worker{'' if waiting == 1 else 's'} {'waits' if waiting == 1 else 'wait'}"
        cap = f"max_hourly_cost={caps.hourly:g}" if caps.hourly is not None else f"max_total_cost={caps.total:g}"
        now = f"what there is costs ${self.rate:.4f} an hour"
        return f"{who}, because of {cap}: {now}. Raise it, or allow cheaper instance types"

    async def _account(self, spent: float) -> None:
        """Tell the scheduler how things stand, and note what its workers have done."""
        try:
            with suppress(OSError):  # it is gone, or not yet there; the next time is soon
                self.cost_tracker.record_busy(await self.dask.report_spending(spent, self.rate))
        finally:
            self._telling = False

    def _date(self, observed: Observed) -> None:
        """Ask EC2 since when new instances run, and when those ended that are gone: Auto Scaling does not tell."""
        here = {i.id for i in observed.instances.values() if not i.terminating}
        changed, self._dated = here ^ self._dated, here
        if changed:
            self.fleet.spawn(self._ask(changed))

    async def _ask(self, instances: Iterable[str]) -> None:
        try:
            for life in await ec2.lives(self.fleet.pool.aws, instances):
                facts = {"launched": life.launched, "ended": life.ended, "zone": life.zone, "taken": life.taken}
                text = f"EC2 says of {life.id}: launched in {life.zone}{', interrupted' if life.taken else ''}"
                self.fleet.tell("instance-dated", life.id, text, logging.DEBUG, **facts)
        except StarburstError as error:  # the time at which it was first seen is nearly as good
            logger.debug("EC2 does not say since when instances run: %s", error)


def _coming(worker: Worker) -> bool:
    return _ordered(worker) or (worker.requested and worker.state in (WorkerState.PLACED, WorkerState.STARTED))


def _ordered(worker: Worker) -> bool:
    return worker.requested and not worker.over_budget and worker.state in (WorkerState.REQUESTED, WorkerState.CAPACITY)


def _minutes(usd: float, rate: float) -> str:
    return f"{usd / rate * 60:.0f} minutes" if rate > 0 else "as long as nothing runs"
