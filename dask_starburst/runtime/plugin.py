"""What is done all the time: beside a scheduler as long as it lives, or beside a nanny."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from distributed.diagnostics.plugin import SchedulerPlugin

from dask_starburst import cancellation


class Loop(ABC):
    """Runs from `begin` to `end`."""

    _loop_task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Run from now on."""
        self._loop_task = asyncio.ensure_future(self._run())

    async def end(self) -> None:
        """Run no more."""
        await cancellation.end([self._loop_task])

    @abstractmethod
    async def _run(self) -> None:
        """Do it, for ever."""


class LoopingPlugin(Loop, SchedulerPlugin):
    """Runs a loop beside the scheduler, from `begin` until the scheduler closes."""

    async def before_close(self) -> None:
        """Run no more."""
        await self.end()
