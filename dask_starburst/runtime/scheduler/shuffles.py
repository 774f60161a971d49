"""P2P shuffles and leaving workers.

A P2P shuffle is bound to its workers: each stores its share on disk and produces certain outputs, and when one of them
is removed the whole shuffle restarts. Dask has no public API for which workers take part, or for excluding workers from
a shuffle that has not started. So this module, and only this one, uses private parts of `distributed.shuffle`;
`tests/runtime/scheduler/test_shuffles.py` runs on the oldest and the newest supported release.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from distributed.core import Status
from distributed.shuffle._core import barrier_key, id_from_key

from dask_starburst.plan.scheduler.moving import restrict_to_staying


@dataclass(frozen=True)
class _Restriction:
    """The user's restriction of a barrier (a `TaskState`), restored when no worker is leaving."""

    barrier: Any
    workers: frozenset[str] | None
    loose: bool


class Shuffles:
    """The P2P shuffles of a scheduler.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler that runs in this process.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._restrictions: dict[Any, _Restriction] = {}

    def needs(self, address: str) -> bool:
        """Return whether a running shuffle has data or outputs on a worker."""
        return any(
            address in shuffle.run_spec.worker_for.values() or not self._barrier_passed(shuffle)
            for shuffle in self._active.values()
            if address in shuffle.participating_workers
        )

    def release(self, address: str) -> None:
        """Remove a worker from shuffles that no longer need it.

        For Dask a worker that only contributed input takes part until the end, although its data are on other workers
        once the barrier has passed.
        """
        for shuffle in self._active.values():
            if address not in shuffle.run_spec.worker_for.values() and self._barrier_passed(shuffle):
                shuffle.participating_workers.discard(address)

    def record_barriers(self, keys: Iterable[Any]) -> None:
        """Record which of these tasks are barriers of shuffles, for `exclude`."""
        for key in keys:
            if id_from_key(key) is None:
                continue
            barrier, known = self._scheduler.tasks.get(key), self._restrictions.get(key)
            # A barrier that is bound to hosts cannot be bound to workers instead.
            if barrier is None or barrier.host_restrictions or (known is not None and known.barrier is barrier):
                continue
            workers = barrier.worker_restrictions
            self._restrictions[key] = _Restriction(
                barrier, frozenset(workers) if workers else None, barrier.loose_restrictions
            )

    def exclude(self, leaving: Collection[str]) -> None:
        """Restrict shuffles that start or restart to the workers that stay.

        Dask spreads the outputs over the workers that the shuffle's barrier may run on: by default all workers, also
        leaving and removed ones. Call this whenever a worker is added or removed. It lifts the restriction when no
        worker is leaving.

        Parameters
        ----------
        leaving : collection of str
            Addresses of the leaving workers.
        """
        staying = self._staying(leaving) if leaving else frozenset()
        for key, restriction in list(self._restrictions.items()):
            if self._scheduler.tasks.get(key) is not restriction.barrier:
                del self._restrictions[key]
                continue
            workers, restriction.barrier.loose_restrictions = restrict_to_staying(
                restriction.workers, restriction.loose, staying
            )
            self._scheduler.set_restrictions({key: workers})
        if not leaving:
            self._restrictions.clear()

    def _staying(self, leaving: Collection[str]) -> frozenset[str]:
        # A new worker is not running yet, but will be.
        coming = {ws.address for ws in self._scheduler.workers.values() if ws.status is Status.init}
        return frozenset({ws.address for ws in self._scheduler.running} | coming) - frozenset(leaving)

    def _barrier_passed(self, shuffle: Any) -> bool:
        barrier = self._scheduler.tasks.get(barrier_key(shuffle.id))
        return barrier is not None and barrier.state == "memory"

    @property
    def _active(self) -> dict[Any, Any]:
        plugin = self._scheduler.plugins.get("shuffle")
        found: dict[Any, Any] = plugin.active_shuffles if plugin is not None else {}
        return found
