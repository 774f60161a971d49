"""The virtual clock of the embedded AWS. It can run faster than real time and be advanced."""

from __future__ import annotations

import threading
import time


class Clock:
    """A virtual clock: ``now = start + elapsed * speed``.

    All timers of the embedded AWS use this clock. The processes
    that run as tasks use real time.

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
        """Change the speed from the current virtual time on."""
        _must_be_positive(speed)
        with self._lock:
            # Rebase first, or the elapsed time would be counted at the new speed.
            self._virtual, self._real = self._now(), time.monotonic()
            self._speed = speed

    def advance(self, seconds: float) -> None:
        """Advance the clock. It never goes back."""
        if seconds < 0:
            raise ValueError(f"the clock cannot be advanced by {seconds} s: it only goes forward")
        with self._lock:
            self._virtual += seconds

    def _now(self) -> float:
        return self._virtual + (time.monotonic() - self._real) * self._speed


def _must_be_positive(speed: float) -> None:
    if not speed > 0:
        raise ValueError(f"the speed of the clock must be more than zero, not {speed}")
