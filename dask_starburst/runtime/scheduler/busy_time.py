"""Busy seconds of each worker, and the amount spent as last reported by the client.

Loaded by the lease keeper, in the scheduler's process.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from typing import Any

from dask_starburst.plan.loop.state import Name
from dask_starburst.plan.money.budget import extrapolated
from dask_starburst.runtime.plugin import LoopingPlugin

#: Seconds between two samples of busy workers.
_POLL_INTERVAL = 0.5
#: How often a removed worker is reported to the client; some answers may be lost.
_REPORTS = 3


class BusyTime(LoopingPlugin):
    """Counts the busy seconds of each worker, and stores the amount spent that the client reports.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler in this process.
    rate : float
        The highest cost of the pool in USD an hour, until the client reports one.
    """

    name = "starburst-busy-time"

    def __init__(self, scheduler: Any, rate: float = 0.0) -> None:
        self._scheduler = scheduler
        self._busy: defaultdict[Name, float] = defaultdict(float)
        self._reported = (0.0, rate, time.monotonic())
        self._reports: Counter[Name] = Counter()
        scheduler.handlers["starburst_report_spending"] = self.starburst_report_spending

    async def starburst_report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Store the amount spent (USD) and the highest hourly cost; return the busy seconds of each worker."""
        self._reported = (spent, rate, time.monotonic())
        busy = dict(self._busy)
        self._forget()
        return busy

    @property
    def spent(self) -> float:
        """USD spent by now, extrapolated if the last report is old; 0 while the client reports and enforces the cap."""
        spent, rate, at = self._reported
        return extrapolated(spent, rate, time.monotonic() - at)

    def _forget(self) -> None:
        """Drop removed workers that were reported often enough."""
        here = {worker.name for worker in self._scheduler.workers.values()}
        self._reports = Counter({name: self._reports[name] + 1 for name in self._busy if name not in here})
        for name in [name for name, times in self._reports.items() if times >= _REPORTS]:
            del self._busy[name], self._reports[name]

    async def _run(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(_POLL_INTERVAL)
            now = time.monotonic()
            for worker in self._scheduler.workers.values():
                if worker.processing:
                    self._busy[worker.name] += now - before
            before = now
