"""Containers without processes, for more workers than a computer can run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence

from dask_starburst.local.containers.processes import OnLine


class FakeContainers:
    """A fake of `processes.Containers`: a container runs until it is signalled or `end` is called."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: dict[str, int | None] = {}

    def start(self, key: str, argv: Sequence[str], env: Mapping[str, str], on_line: OnLine) -> int:
        """Record a container. It has no process, so the process id is 0."""
        with self._lock:
            self._codes[key] = None
        return 0

    def poll(self, key: str) -> int | None:
        """Return the exit code; None while it runs."""
        return self._codes[key]

    def signal(self, key: str, signum: int) -> None:
        """End a container as by a signal."""
        self.end(key, 128 + signum)

    def kill(self, key: str) -> None:
        """End a container as by SIGKILL."""
        self.signal(key, signal.SIGKILL)

    def end(self, key: str, code: int) -> None:
        """End a container with an exit code."""
        with self._lock:
            if self._codes.get(key, code) is None:
                self._codes[key] = code

    def forget(self, key: str) -> None:
        """Forget the exit code of a container. No-op while it runs."""
        with self._lock:
            if self._codes.get(key) is not None:
                del self._codes[key]

    def running(self) -> dict[str, int]:
        """Return an empty mapping: there are no processes."""
        return {}

    def close(self) -> None:
        """End everything."""
        with self._lock:
            self._codes = {key: 128 + signal.SIGKILL if code is None else code for key, code in self._codes.items()}
