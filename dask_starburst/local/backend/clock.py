"""The embedded AWS's own time: it can run faster than the wall clock and be stepped forward."""

from __future__ import annotations

import threading
import time


class Clock:
    """A virtual clock: ``now = start + elapsed * speed``.

    Everything that the embedded AWS does after a while, it does by this clock. The processes
    that run as tasks are real and know nothing of it.

    Parameters
    ----------
    speed : float
        Virtual seconds in one real second. More than zero.
    """

    def __init__(self, speed: float = 1.0) -> None:
        _must_be_positive(speed)
        self._lock = threading.Lock()
        self._speed = speed
        self._virtual = time.time()
        self._real = time.monotonic()

    @property
    def speed(self) -> float:
        """Virtual seconds in one real second."""
        with self._lock:
            return self._speed

    def now(self) -> float:
        """Return the virtual time in seconds since the epoch."""
        with self._lock:
            return self._now()

    def set_speed(self, speed: float) -> None:
        """Go on from the present virtual time at another speed."""
        _must_be_positive(speed)
        with self._lock:
            # Rebase first, or the time that has passed would be counted at the new speed.
            self._virtual, self._real = self._now(), time.monotonic()
            self._speed = speed

    def advance(self, seconds: float) -> None:
        """Step forward. Time never goes back: what has happened cannot be undone."""
        if seconds < 0:
            raise ValueError(f"the clock only goes forward, not {seconds} s")
        with self._lock:
            self._virtual += seconds

    def _now(self) -> float:
        return self._virtual + (time.monotonic() - self._real) * self._speed


def _must_be_positive(speed: float) -> None:
    if not speed > 0:
        raise ValueError(f"the speed of the clock must be more than zero, not {speed}")
