"""How long this cluster's workers take to come up: what the patience of adaptive scaling is measured by."""

from __future__ import annotations

from collections import deque

from dask_starburst.plan.adaptive import Boots
from dask_starburst.plan.state import HEAD, Name, Observed, Worker, WorkerState

#: The latest boots that count: prices, images and zones change in the course of a day.
_REMEMBERED = 50
_ON_ITS_WAY = frozenset({WorkerState.CAPACITY, WorkerState.PLACED, WorkerState.STARTED})


class BootClock:
    """Follows each worker from the order of its instance to its registration."""

    def __init__(self) -> None:
        self._ordered: dict[Name, float] = {}
        self._measured: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, worker: Worker, observed: Observed, now: float) -> None:
        """Take notice of a worker that has moved; times are seconds of AWS's clock."""
        if worker.group == HEAD:
            return
        if worker.state in _ON_ITS_WAY:
            self._ordered.setdefault(worker.name, now)
            return
        ordered = self._ordered.pop(worker.name, None)
        if ordered is not None and worker.state is WorkerState.READY and _launched_for_it(worker, observed, ordered):
            self._measured.append(now - ordered)

    def seen(self, now: float) -> Boots:
        """Return what has been measured, and how long the oldest that boots has taken."""
        oldest = min(self._ordered.values(), default=now)
        return Boots(tuple(self._measured), now - oldest)


def _launched_for_it(worker: Worker, observed: Observed, ordered: float) -> bool:
    """Whether its instance did not exist yet: on one that was kept warm a worker is up at once."""
    return any(i.arn == worker.instance and i.launched > ordered for i in observed.instances.values())
