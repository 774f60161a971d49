"""Background loops of a scheduler or a nanny."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from distributed.diagnostics.plugin import SchedulerPlugin

from dask_starburst import cancellation


class Loop(ABC):
    """A background loop that runs from `begin` to `end`."""

    _loop_task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Start the loop."""
        self._loop_task = asyncio.ensure_future(self._run())

    async def end(self) -> None:
        """Stop the loop."""
        await cancellation.end([self._loop_task])

    @abstractmethod
    async def _run(self) -> None:
        """Run until cancelled."""


class LoopingPlugin(Loop, SchedulerPlugin):
    """A loop in the scheduler's process, from `begin` until the scheduler closes."""

    async def before_close(self) -> None:
        """Stop the loop."""
        await self.end()
