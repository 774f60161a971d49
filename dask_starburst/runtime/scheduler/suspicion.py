"""Clear Dask's suspicion of tasks whose worker AWS took.

Dask marks every task that was running on a lost worker as suspicious, and fails it with `KilledWorker` after
``allowed-failures`` (3) losses. That is right for a task that runs out of memory, and wrong when AWS took the instance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dask_starburst.plan.loop.state import Name

#: How many losses are kept in case they are cleared later.
_HISTORY = 1000


@dataclass(frozen=True)
class _Loss:
    suspected: Collection[Any]
    recompute: Collection[Any]
    results: int


class Suspicion:
    """Clears the suspicion of tasks whose worker AWS took, and counts the results lost with the worker.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler of the tasks.

    Attributes
    ----------
    lost : int
        Results without another copy when AWS took their worker.
    recomputed : int
        How many of these were computed again.
    """

    def __init__(self, scheduler: Any) -> None:
        self.lost = 0
        self.recomputed = 0
        self._scheduler = scheduler
        self._names: dict[str, Name] = {}
        self._exempt: set[str] = set()
        self._losses: dict[Name, _Loss] = {}
        self._missing: set[Any] = set()

    def joined(self, address: str, name: Name) -> None:
        """Store the name of the worker at an address."""
        self._names[address] = name

    def exempt(self, address: str) -> None:
        """Exempt the tasks of the worker at this address from suspicion when it is lost."""
        self._exempt.add(address)

    def removed(self, event: Mapping[str, Any]) -> None:
        """Handle the removal of a worker; `event` is Dask's ``remove-worker`` event."""
        address = event["worker"]
        name = self._names.pop(address, address)
        recompute, scattered = event["lost-computed-tasks"], event["lost-scattered-tasks"]
        suspected = [] if event["expected"] else event["processing-tasks"]
        loss = _Loss(suspected, recompute, len(recompute) + len(scattered))
        if address in self._exempt:
            self._exempt.discard(address)
            self._clear(loss)
            return
        self._losses.pop(name, None)
        self._losses[name] = loss
        if len(self._losses) > _HISTORY:
            del self._losses[next(iter(self._losses))]

    def clear(self, names: Iterable[Name]) -> int:
        """Clear the suspicion from the last loss of these workers; return the number of tasks."""
        losses = [self._losses.pop(name, None) for name in names]
        return sum(self._clear(loss) for loss in losses if loss is not None)

    def computed(self, key: Any, state: str) -> None:
        """Count a lost result that was computed again; `state` is the task's new state."""
        if key in self._missing and state in ("memory", "forgotten"):
            self._missing.discard(key)
            self.recomputed += state == "memory"

    def _clear(self, loss: _Loss) -> int:
        self.lost += loss.results
        self._missing.update(loss.recompute)
        return sum(map(self._clear_task, loss.suspected))

    def _clear_task(self, key: Any) -> bool:
        """Decrement the suspicion of a task and return whether there was one.

        Dask has no API for it, so this lowers the counters that `Scheduler.remove_worker` has raised. With
        ``allowed-failures: 0`` it is too late: the first suspicion has failed the task.
        """
        ts = self._scheduler.tasks.get(key)
        if ts is None or not ts.suspicious:
            return False
        ts.suspicious -= 1
        ts.prefix.suspicious -= 1
        return True
