"""Workers that a waiting ``scatter`` needs: adaptive scaling has to know of them, and Dask does not count them.

Loaded by ``dask scheduler --preload``. Without a worker ``Client.scatter`` waits in the scheduler, or asks it again and
again, and is no task; so ``Scheduler.adaptive_target`` asks for none, and it fails in the end. There is no hook for
this in a `SchedulerPlugin`. So three handlers of the scheduler are wrapped: ``scatter`` and ``ncores_running``, by
which a wait is seen, here and nowhere else, and ``adaptive_target``, which adds it; `unrunnable` wraps that one too,
and the order does not matter. A client and adaptive scaling call all three by these names, with the same arguments in
distributed 2026.7.0 and 2026.8.0.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import dask.config
from dask.utils import parse_timedelta

#: Seconds between two looks for a worker, as in Dask's own `scatter`.
_POLL_INTERVAL = 0.1
#: Seconds for which a client that scatters directly counts as waiting after it has asked: it asks every 0.1 s.
_DIRECT_SCATTER_WINDOW = 2.0
#: Seconds after a look of adaptive scaling for which it counts as there; it looks every second or so.
_ADAPTIVE_WINDOW = 60.0
#: Seconds that a scatter waits where the user has given no timeout and workers may come: Dask's own 30 s are less than
#: one boot (75 to 105 s for 50 workers, aws-facts §2.1), and the longest that adaptive scaling reckons with is 300 s.
_BOOT_TIMEOUT = 300.0


class Demand:
    """Counts the scatters that are not over, and adds a worker for them to what adaptive scaling is told.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The one that runs in this process.
    boot : float
        Seconds that a scatter without a timeout of its own waits while adaptive scaling is on.
    """

    def __init__(self, scheduler: Any, boot: float = _BOOT_TIMEOUT) -> None:
        self._scheduler = scheduler
        self._boot = boot
        self._default_timeout = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
        self._waiting = 0
        self._last_direct_scatter = self._last_adaptive_poll = float("-inf")
        handlers = scheduler.handlers
        self._scatter, self._target = handlers["scatter"], handlers["adaptive_target"]
        self._ncores = handlers["ncores_running"]
        handlers.update(scatter=self.scatter, adaptive_target=self.adaptive_target, ncores_running=self.ncores_running)

    async def scatter(self, timeout: float = 2, **request: Any) -> Any:
        """Wait for a worker, then do what Dask does; addresses that are given Dask looks for by itself."""
        started = time.monotonic()
        self._waiting += 1
        try:
            left = timeout
            if request.get("workers") is None:
                there = await self._worker(started, timeout, request.get("client"))
                left = max(0.0, timeout - (time.monotonic() - started)) if there else 0.0
            return await self._scatter(timeout=left, **request)
        finally:
            self._waiting -= 1  # by now a worker has the data, and Dask keeps the last one that has some

    def adaptive_target(self, **request: Any) -> int:
        """Return what Dask asks for, and for a scatter one worker at least that takes data."""
        self._last_adaptive_poll = time.monotonic()
        target = int(self._target(**request))
        if not self._waiting and time.monotonic() - self._last_direct_scatter >= _DIRECT_SCATTER_WINDOW:
            return target
        return max(target, 1 if self._scheduler.running else len(self._scheduler.workers) + 1)

    def ncores_running(self, **request: Any) -> Any:
        """Return what Dask does; who finds nobody is about to ask again, as a client that scatters directly does."""
        found = self._ncores(**request)
        if not found:
            self._last_direct_scatter = time.monotonic()
        return found

    async def _worker(self, started: float, timeout: float, client: Any) -> bool:
        """Wait until a worker takes data or the time is over; return False if the client has gone."""
        scheduler = self._scheduler
        while not scheduler.running and time.monotonic() - started <= self._effective_timeout(timeout):
            if client not in scheduler.clients:
                return False
            await asyncio.sleep(_POLL_INTERVAL)
        return True

    def _effective_timeout(self, timeout: float) -> float:
        """Return the seconds to wait. A timeout that the user has given holds, unless it is the same as Dask's own."""
        adapts = time.monotonic() - self._last_adaptive_poll < _ADAPTIVE_WINDOW
        return max(timeout, self._boot) if adapts and timeout == self._default_timeout else timeout


def dask_setup(scheduler: Any) -> None:
    """Count the scatters of this scheduler that wait; called by Dask when it has started."""
    Demand(scheduler)
