"""A plugin of the scheduler that does something all the time, as long as the scheduler lives."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from contextlib import suppress

from distributed.diagnostics.plugin import SchedulerPlugin


class LoopingPlugin(SchedulerPlugin):
    """Runs a loop beside the scheduler, from `begin` until the scheduler closes."""

    _loop_task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Run from now on."""
        self._loop_task = asyncio.ensure_future(self._run())

    async def before_close(self) -> None:
        """Run no more."""
        if self._loop_task is not None:
            self._loop_task.cancel()
            with suppress(asyncio.CancelledError):
                await self._loop_task

    @abstractmethod
    async def _run(self) -> None:
        """Do it, for ever."""
