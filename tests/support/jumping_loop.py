"""An event loop whose time jumps to its next timer, so that a test of an hour takes no time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class JumpingLoop(asyncio.SelectorEventLoop):
    """Runs timers in their order without waiting for them; only for coroutines without threads and sockets."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__()

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # asyncio's own
        if timers and not self._ready:  # type: ignore[attr-defined]  # the same
            self._now = max(self._now, timers[0].when())
        super()._run_once()  # type: ignore[misc]  # the same


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in such a loop, and return its result."""
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        return runner.run(main)
