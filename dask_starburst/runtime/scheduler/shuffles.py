"""Dask's P2P shuffles, as far as a worker that leaves matters to them.

A P2P shuffle is bound to its workers: each keeps its share on its disk and makes certain outputs of it, and when one of
them is removed the whole shuffle begins again. Dask has no public way to ask which workers take part, nor to say which
ones a shuffle that has not begun should do without. So what is private of `distributed.shuffle` is used here, and only
here; `tests/runtime/scheduler/test_shuffles.py` runs on the oldest and the newest release that we support.
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
    """What restricted a barrier (a `TaskState`) before workers had to leave; it is put back afterwards."""

    barrier: Any
    workers: frozenset[str] | None
    loose: bool


class Shuffles:
    """The P2P shuffles of a scheduler.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        Whose they are.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._restrictions: dict[Any, _Restriction] = {}

    def needs(self, address: str) -> bool:
        """Whether a worker has data of a shuffle that is not over, or is to make outputs of it."""
        return any(
            address in shuffle.run_spec.worker_for.values() or not self._barrier_passed(shuffle)
            for shuffle in self._active.values()
            if address in shuffle.participating_workers
        )

    def release(self, address: str) -> None:
        """Let shuffles go on without a worker that has nothing of theirs any more.

        A worker that has only put data in takes part until the end for Dask, although its data are on other workers
        once the barrier is passed.
        """
        for shuffle in self._active.values():
            if address not in shuffle.run_spec.worker_for.values() and self._barrier_passed(shuffle):
                shuffle.participating_workers.discard(address)

    def record_barriers(self, keys: Iterable[Any]) -> None:
        """Learn which of these tasks are barriers of shuffles, for `exclude`."""
        for key in keys:
            if id_from_key(key) is None:
                continue
            barrier, known = self._scheduler.tasks.get(key), self._restrictions.get(key)
            # What is bound to hosts has no worker that it may be bound to instead.
            if barrier is None or barrier.host_restrictions or (known is not None and known.barrier is barrier):
                continue
            workers = barrier.worker_restrictions
            self._restrictions[key] = _Restriction(
                barrier, frozenset(workers) if workers else None, barrier.loose_restrictions
            )

    def exclude(self, leaving: Collection[str]) -> None:
        """Let shuffles that begin, or begin again, choose among the workers that stay.

        Dask spreads the outputs over the workers that the shuffle's barrier may run on, and that is all workers, also
        those that leave, unless the barrier is restricted. It does so to workers that are long gone as well: so this
        has to be called whenever a worker comes or goes, and takes the restriction back when nobody leaves any more.

        Parameters
        ----------
        leaving : collection of str
            Addresses of the workers that leave.
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
        # One that has just come is not running yet, but will be.
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
