"""How long this cluster's workers take to come up: what the patience of adaptive scaling is measured by."""

from __future__ import annotations

from collections import deque
from math import floor

from dask_starburst.plan.loop.adaptive import StartupTimes
from dask_starburst.plan.loop.state import HEAD, Name, Observed, Worker, WorkerState

#: The latest boots that count: prices, images and zones change in the course of a day.
_REMEMBERED = 50
_ON_ITS_WAY = frozenset({WorkerState.CAPACITY, WorkerState.PLACED, WorkerState.STARTED})


class StartupClock:
    """Follows each worker from the order of its instance to its registration."""

    def __init__(self) -> None:
        self._ordered: dict[Name, tuple[float, float]] = {}
        self._measured: deque[float] = deque(maxlen=_REMEMBERED)
        self._looked = 0.0

    def note(self, worker: Worker, observed: Observed, now: float) -> None:
        """Take notice of a worker that has moved; times are seconds of AWS's clock."""
        if worker.group == HEAD:
            return
        if worker.state in _ON_ITS_WAY:
            self._ordered.setdefault(worker.name, (now, self._looked))
            return
        ordered, before = self._ordered.pop(worker.name, (now, now))
        if worker.state is WorkerState.READY and _launched_since(before, worker, observed):
            self._measured.append(now - ordered)

    def looked(self, now: float) -> None:
        """Note the time of a look, after all that it has moved."""
        self._looked = now

    def seen(self, now: float) -> StartupTimes:
        """Return what has been measured, and how long the oldest that boots has taken."""
        oldest = min((ordered for ordered, _ in self._ordered.values()), default=now)
        return StartupTimes(tuple(self._measured), now - oldest)


def _launched_since(look: float, worker: Worker, observed: Observed) -> bool:
    """Whether its instance did not exist at the last look before its order: on a warm one a worker is up at once.

    At the first look after it the instance may be there. EC2 gives LaunchTime in whole seconds.
    """
    return any(i.arn == worker.instance and i.launched >= floor(look) for i in observed.instances.values())
