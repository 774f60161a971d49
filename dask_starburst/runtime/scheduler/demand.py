"""Count waiting ``scatter`` calls in the adaptive target.

Loaded by ``dask scheduler --preload``. Without a worker, ``Client.scatter`` waits in the scheduler or polls it. It is
not a task, so ``Scheduler.adaptive_target`` requests no worker and the call times out. `SchedulerPlugin` has no hook,
so three handlers are wrapped: ``scatter`` and ``ncores_running``, which show that a client waits, and
``adaptive_target``, which adds a worker. `unrunnable` wraps the last one too; the order does not matter. Clients and
adaptive scaling call all three by these names, with the same arguments in distributed 2026.7.0 and 2026.8.0.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import dask.config
from dask.utils import parse_timedelta

#: Seconds between two checks for a worker, as in Dask's own `scatter`.
_POLL_INTERVAL = 0.1
#: Seconds for which a client with ``direct=True`` counts as waiting after a request; it polls every 0.1 s.
_DIRECT_SCATTER_WINDOW = 2.0
#: Seconds after a request of adaptive scaling for which it counts as active; it polls about every second.
_ADAPTIVE_WINDOW = 60.0
#: Seconds that a scatter without an explicit timeout waits while workers may still start. Dask's 30 s are shorter than
#: one boot (75 to 105 s for 50 workers, aws-facts §2.1); 300 s is the longest boot that adaptive scaling allows for.
_BOOT_TIMEOUT = 300.0


class Demand:
    """Counts pending scatters, and adds a worker for them to the adaptive target.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The one that runs in this process.
    boot : float
        Seconds that a scatter without an explicit timeout waits while adaptive scaling is on.
    """

    #: Its name among the scheduler's extensions.
    name = "starburst-demand"

    def __init__(self, scheduler: Any, boot: float = _BOOT_TIMEOUT) -> None:
        self._scheduler = scheduler
        scheduler.extensions[self.name] = self
        self._boot = boot
        self._default_timeout = parse_timedelta(dask.config.get("distributed.comm.timeouts.connect"))
        self._waiting = 0
        self._last_direct_scatter = self._last_adaptive_poll = float("-inf")
        handlers = scheduler.handlers
        self._scatter, self._target = handlers["scatter"], handlers["adaptive_target"]
        self._ncores = handlers["ncores_running"]
        handlers.update(scatter=self.scatter, adaptive_target=self.adaptive_target, ncores_running=self.ncores_running)

    async def scatter(self, timeout: float = 2, **request: Any) -> Any:
        """Wait for a worker, then call Dask's handler, which itself waits for workers that are given by address."""
        started = time.monotonic()
        self._waiting += 1
        try:
            left = timeout
            if request.get("workers") is None:
                there = await self._worker(started, timeout, request.get("client"))
                left = max(0.0, timeout - (time.monotonic() - started)) if there else 0.0
            return await self._scatter(timeout=left, **request)
        finally:
            self._waiting -= 1  # a worker has the data now, and Dask keeps the last worker that holds data

    def adaptive_target(self, **request: Any) -> int:
        """Return Dask's target, or enough workers that one accepts data if a scatter is pending."""
        return max(int(self._target(**request)), self.least_workers())

    def least_workers(self) -> int:
        """Return the number of workers with which one accepts data, if a scatter is pending; 0 if none is."""
        self._last_adaptive_poll = time.monotonic()
        if not self._waiting and time.monotonic() - self._last_direct_scatter >= _DIRECT_SCATTER_WINDOW:
            return 0
        return 1 if self._scheduler.running else len(self._scheduler.workers) + 1

    def ncores_running(self, **request: Any) -> Any:
        """Return Dask's answer; record an empty one, which a client with ``direct=True`` polls for."""
        found = self._ncores(**request)
        if not found:
            self._last_direct_scatter = time.monotonic()
        return found

    async def _worker(self, started: float, timeout: float, client: Any) -> bool:
        """Wait until a worker accepts data or the timeout expires; return False if the client is gone."""
        scheduler = self._scheduler
        while not scheduler.running and time.monotonic() - started <= self._effective_timeout(timeout):
            if client not in scheduler.clients:
                return False
            await asyncio.sleep(_POLL_INTERVAL)
        return True

    def _effective_timeout(self, timeout: float) -> float:
        """Return the seconds to wait: the user's timeout, unless it equals Dask's default."""
        adapts = time.monotonic() - self._last_adaptive_poll < _ADAPTIVE_WINDOW
        return max(timeout, self._boot) if adapts and timeout == self._default_timeout else timeout


def dask_setup(scheduler: Any) -> None:
    """Count the pending scatters of this scheduler; called by Dask when it has started."""
    Demand(scheduler)
