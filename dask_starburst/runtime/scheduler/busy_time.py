"""The scheduler's side of the books: who works, and what the client said last of what was spent.

Loaded by the guardian, in the scheduler's process.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from typing import Any

from dask_starburst.plan.loop.state import Name
from dask_starburst.plan.money.budget import extrapolated
from dask_starburst.runtime.plugin import LoopingPlugin

#: Seconds between two looks at who works.
_POLL_INTERVAL = 0.5
#: So often the client is told of a worker that is gone: of answers some may be lost.
_TOLD = 3


class BusyTime(LoopingPlugin):
    """Counts for how long each worker is busy, and remembers what the client says of money.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The one that runs in this process.
    rate : float
        USD an hour that the pool costs at the most, until the client says more.
    """

    name = "starburst-busy-time"

    def __init__(self, scheduler: Any, rate: float = 0.0) -> None:
        self._scheduler = scheduler
        self._busy: defaultdict[Name, float] = defaultdict(float)
        self._reported = (0.0, rate, time.monotonic())
        self._told_of: Counter[Name] = Counter()
        scheduler.handlers["starburst_report_spending"] = self.starburst_report_spending

    async def starburst_report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Hear what was spent, in USD, and what an hour costs at the most; return the busy seconds by worker."""
        self._reported = (spent, rate, time.monotonic())
        told = dict(self._busy)
        self._forget()
        return told

    @property
    def spent(self) -> float:
        """USD that were spent by now, if nobody has told for long; 0 while the client looks after it itself."""
        spent, rate, at = self._reported
        return extrapolated(spent, rate, time.monotonic() - at)

    def _forget(self) -> None:
        """Forget the workers that are gone, once the client has surely been told how long they were busy."""
        here = {worker.name for worker in self._scheduler.workers.values()}
        self._told_of = Counter({name: self._told_of[name] + 1 for name in self._busy if name not in here})
        for name in [name for name, times in self._told_of.items() if times >= _TOLD]:
            del self._busy[name], self._told_of[name]

    async def _run(self) -> None:
        before = time.monotonic()
        while True:
            await asyncio.sleep(_POLL_INTERVAL)
            now = time.monotonic()
            for worker in self._scheduler.workers.values():
                if worker.processing:
                    self._busy[worker.name] += now - before
            before = now
