"""The thread that makes things happen: timers that are due, and processes that have ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from dask_starburst.local.backend.world import World

_log = logging.getLogger(__name__)

# Short beside the shortest step (0.02 s) and beside what a client's poll notices.
TICK = 0.025


class Engine:
    """Runs what is due, about forty times a second.

    Parameters
    ----------
    world : World
        Whose timers to run.
    watchers : sequence of callable
        Called every tick, with the world's lock held: they look at what has no timer.
    """

    def __init__(self, world: World, watchers: Sequence[Callable[[], None]]) -> None:
        self._world = world
        self._watchers = watchers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the present tick."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.wait(TICK):
            with self._world.lock:
                for action in (*self._world.take_due(), *self._watchers):
                    self._do(action)

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # noqa: BLE001 - the edge of the loop: one bad action must not stop the world
            _log.exception("the engine could not do %r", action)
