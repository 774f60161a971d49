"""Whose fault the loss of a worker was: AWS's, or that of a task which ran on it.

Dask suspects every task that ran on a lost worker, and after ``allowed-failures`` (3) of them gives it up with
`KilledWorker`. That is right for a task that takes too much memory, and wrong when AWS took the instance.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dask_starburst.plan.loop.state import Name

#: Losses that nobody has cleared are forgotten after so many more.
_HISTORY = 1000


@dataclass(frozen=True)
class _Loss:
    suspected: Collection[Any]
    recompute: Collection[Any]
    results: int


class Suspicion:
    """Takes suspicion from tasks whose worker AWS took, and counts what was lost with it.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        Whose tasks they are.

    Attributes
    ----------
    lost : int
        Results of which nobody else had a copy when AWS took a worker.
    recomputed : int
        How many of these have been computed again.
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
        """Learn who is at an address."""
        self._names[address] = name

    def exempt(self, address: str) -> None:
        """Count the loss of the worker at this address, when it comes, as AWS's."""
        self._exempt.add(address)

    def removed(self, event: Mapping[str, Any]) -> None:
        """Hear that a worker was removed; `event` is Dask's own ``remove-worker``."""
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
        """Count the last losses of these workers as AWS's; return from how many tasks a suspicion was taken."""
        losses = [self._losses.pop(name, None) for name in names]
        return sum(self._clear(loss) for loss in losses if loss is not None)

    def computed(self, key: Any, state: str) -> None:
        """Hear that a task has come to a state."""
        if key in self._missing and state in ("memory", "forgotten"):
            self._missing.discard(key)
            self.recomputed += state == "memory"

    def _clear(self, loss: _Loss) -> int:
        self.lost += loss.results
        self._missing.update(loss.recompute)
        return sum(map(self._clear_task, loss.suspected))

    def _clear_task(self, key: Any) -> bool:
        """Take one suspicion back.

        Dask has no call for it, so this sets what `Scheduler.remove_worker` has raised. With ``allowed-failures: 0`` it
        comes too late: the first suspicion has failed the task.
        """
        ts = self._scheduler.tasks.get(key)
        if ts is None or not ts.suspicious:
            return False
        ts.suspicious -= 1
        ts.prefix.suspicious -= 1
        return True
