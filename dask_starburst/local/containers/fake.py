"""Containers that are only written down: for more workers than a computer has room for as processes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Mapping, Sequence

from dask_starburst.local.containers.processes import OnLine


class PlayedContainers:
    """Stands in for `container.Containers`; what is started runs until it is signalled, or said to have ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._codes: dict[str, int | None] = {}

    def start(self, key: str, argv: Sequence[str], env: Mapping[str, str], on_line: OnLine) -> int:
        """Write a container down. No process: its id is 0."""
        with self._lock:
            self._codes[key] = None
        return 0

    def poll(self, key: str) -> int | None:
        """Return the exit code; None while it runs."""
        return self._codes[key]

    def signal(self, key: str, signum: int) -> None:
        """End a container as a signal does."""
        self.end(key, 128 + signum)

    def kill(self, key: str) -> None:
        """End a container as SIGKILL does."""
        self.signal(key, signal.SIGKILL)

    def end(self, key: str, code: int) -> None:
        """Let a container end by itself."""
        with self._lock:
            if self._codes.get(key, code) is None:
                self._codes[key] = code

    def forget(self, key: str) -> None:
        """Forget how a container has ended; nothing happens while it runs."""
        with self._lock:
            if self._codes.get(key) is not None:
                del self._codes[key]

    def running(self) -> dict[str, int]:
        """Return no process ids: there are no processes."""
        return {}

    def close(self) -> None:
        """End everything."""
        with self._lock:
            self._codes = {key: 128 + signal.SIGKILL if code is None else code for key, code in self._codes.items()}
