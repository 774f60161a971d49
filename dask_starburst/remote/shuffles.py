"""Dask's P2P shuffles, as far as a worker that leaves matters to them.

A P2P shuffle is bound to its workers: each keeps its share on its disk and makes certain outputs of it, and when one of
them is removed the whole shuffle begins again. Dask has no public way to ask which workers take part, nor to say which
ones a shuffle that has not begun should do without. So what is private of `distributed.shuffle` is used here, and only
here; `tests/remote/test_shuffles.py` runs on the oldest and the newest release that we support.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from distributed.core import Status
from distributed.shuffle._core import id_from_key


class Shuffles:
    """The P2P shuffles of a scheduler.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        Whose they are.
    """

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler

    def with_part_of(self, address: str) -> bool:
        """Whether a worker has data of a shuffle that is not over, or is to make outputs of it."""
        return any(
            address in shuffle.participating_workers or address in shuffle.run_spec.worker_for.values()
            for shuffle in self._active.values()
        )

    def do_without(self, leaving: Collection[str], keys: Iterable[Any] | None = None) -> None:
        """Let shuffles that have not begun choose among the workers that stay.

        Dask spreads the outputs over the workers that the shuffle's barrier may run on, and that is all workers, also
        those that leave, unless the barrier is restricted. The restriction is a loose one: a barrier whose workers have
        all gone runs elsewhere.

        Parameters
        ----------
        leaving : collection of str
            Addresses of the workers that leave.
        keys : iterable, optional
            Which tasks to look at; all of them without it.
        """
        # One that has just come is not running yet, but will be.
        coming = {ws.address for ws in self._scheduler.workers.values() if ws.status is Status.init}
        staying = ({ws.address for ws in self._scheduler.running} | coming) - set(leaving)
        if not leaving or not staying:
            return
        for key in list(self._scheduler.tasks) if keys is None else keys:
            shuffle = id_from_key(key)
            barrier = self._scheduler.tasks.get(key)
            if shuffle is None or barrier is None or shuffle in self._active:
                continue
            if barrier.worker_restrictions and not barrier.loose_restrictions:
                continue  # the user's own wish
            barrier.loose_restrictions = True
            self._scheduler.set_restrictions({key: staying})

    @property
    def _active(self) -> dict[Any, Any]:
        plugin = self._scheduler.plugins.get("shuffle")
        found: dict[Any, Any] = plugin.active_shuffles if plugin is not None else {}
        return found
