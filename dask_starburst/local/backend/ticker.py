"""The thread that runs due timers and checks for processes that have exited."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from dask_starburst.local.backend.backend import Backend

_log = logging.getLogger(__name__)

# About the shortest step (0.02 s), and shorter than a client's poll interval.
TICK = 0.025


class Ticker:
    """Runs due timers, about forty times a second.

    Parameters
    ----------
    backend : Backend
        The owner of the timers.
    watchers : sequence of callable
        Called every tick with the backend's lock held, for events that have no timer.
    """

    def __init__(self, backend: Backend, watchers: Sequence[Callable[[], None]]) -> None:
        self._backend = backend
        self._watchers = watchers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ticker", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the current tick."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _run(self) -> None:
        while not self._stop.wait(TICK):
            with self._backend.lock:
                for action in (*self._backend.take_due(), *self._watchers):
                    self._do(action)

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:  # noqa: BLE001 - the edge of the loop: one failed action must not stop the backend
            _log.exception("action %r failed; continuing", action)
