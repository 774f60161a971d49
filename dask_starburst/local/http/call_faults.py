"""Faults of calls: throttling, errors, timeouts, lost responses."""

from __future__ import annotations

import errno
import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from dask_starburst.local.faults.events import Calls


@dataclass
class _Fault:
    event: Calls
    left: int | None
    until: float


class Faults:
    """Decides whether a call has a fault.

    Parameters
    ----------
    now : callable
        The virtual time.

    Attributes
    ----------
    behind : float
        How many seconds the callers' clock is behind.
    not_enabled : bool
        Whether the account has not enabled the region.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._rng = random.Random(0)
        self.behind = 0.0
        self.not_enabled = False

    def add(self, event: Calls, seed: int) -> None:
        """Apply a fault to calls from now on."""
        until = math.inf if event.seconds is None else self._now() + event.seconds
        once = event.count is None and event.seconds is None
        with self._lock:
            self._rng = random.Random(seed)
            self._faults.append(_Fault(event, 1 if once else event.count, until))

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._faults.clear()
            self.behind, self.not_enabled = 0.0, False

    def of(self, call: str) -> Calls | None:
        """Return the fault of a call such as ``"ecs:RunTask"``, and count it."""
        if not self._faults:
            return None
        with self._lock:
            now = self._now()
            self._faults = [one for one in self._faults if one.until > now and one.left != 0]
            for fault in self._faults:
                event = fault.event
                if fnmatchcase(call, event.action) and self._rng.random() < event.probability:
                    fault.left = None if fault.left is None else fault.left - 1
                    return event
        return None


def no_answer() -> OSError:
    """Return the error that makes the HTTP server close a connection without a response."""
    return BrokenPipeError(errno.EPIPE, "a fault has closed this connection")
