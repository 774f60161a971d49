"""The background tasks of the loop: they end with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

logger = logging.getLogger(__name__)

#: Runs a coroutine in the background.
Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]


class Background:
    """Runs coroutines beside the loop until it stops; `tasks` holds those that run."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background; after `close`, discard it."""
        if self._closed:  # nothing would cancel it
            work.close()
            return
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self._on_done)

    def close(self) -> None:
        """Accept no further coroutine."""
        self._closed = True

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a background task of the controller failed", exc_info=error)
