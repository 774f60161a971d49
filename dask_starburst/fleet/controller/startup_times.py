"""Measure the startup times of this cluster's workers; adaptive scaling derives its patience from them."""

from __future__ import annotations

from collections import deque
from math import floor

from dask_starburst.plan.loop.adaptive import StartupTimes
from dask_starburst.plan.loop.state import Name, Observed, Worker, WorkerState

#: The number of latest startups that count: images and zones change in the course of a day.
_REMEMBERED = 50
_ON_ITS_WAY = frozenset({WorkerState.CAPACITY, WorkerState.PLACED, WorkerState.STARTED})


class StartupClock:
    """Measures the time of each worker from the request of its instance to its registration."""

    def __init__(self) -> None:
        self._requested: dict[Name, tuple[float, float]] = {}
        self._measured: deque[float] = deque(maxlen=_REMEMBERED)
        self._polled_at = 0.0

    def note(self, worker: Worker, observed: Observed, now: float) -> None:
        """Record a worker's change of state; times are seconds of AWS's clock."""
        if worker.is_scheduler:
            return
        if worker.state in _ON_ITS_WAY:
            self._requested.setdefault(worker.name, (now, self._polled_at))
            return
        requested, before = self._requested.pop(worker.name, (now, now))
        if worker.state is WorkerState.READY and _launched_since(before, worker, observed):
            self._measured.append(now - requested)

    def polled(self, now: float) -> None:
        """Record the time of a poll, after the changes of state that it caused."""
        self._polled_at = now

    def snapshot(self, now: float) -> StartupTimes:
        """Return the measured times, and the time that the oldest worker on its way has taken so far."""
        oldest = min((requested for requested, _ in self._requested.values()), default=now)
        return StartupTimes(tuple(self._measured), now - oldest)


def _launched_since(polled_at: float, worker: Worker, observed: Observed) -> bool:
    """Whether the worker's instance was launched after the last poll before its request, and was not a warm one.

    The instance may exist at the first poll after the request. EC2 returns LaunchTime in whole seconds.
    """
    return any(i.arn == worker.instance and i.launched >= floor(polled_at) for i in observed.instances.values())
