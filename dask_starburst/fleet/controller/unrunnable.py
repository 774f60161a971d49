"""Emit an event for tasks that no worker of the cluster can run."""

from __future__ import annotations

import asyncio
from typing import Protocol

from dask_starburst.errors import StarburstError
from dask_starburst.events.stream import Emit
from dask_starburst.events.workers import TaskUnrunnable

#: Seconds between two queries to the scheduler.
_EVERY = 5.0


class UnrunnableClient(Protocol):
    """The scheduler's part in finding tasks that no worker can run."""

    async def unrunnable(self) -> dict[str, str]:
        """Return a message for each restriction that no worker meets, by restriction."""


async def watch(dask: UnrunnableClient, emit: Emit, every: float = _EVERY) -> None:
    """Emit each restriction that no worker meets, once as long as such tasks exist; asks every `every` seconds."""
    emitted: set[str] = set()
    while True:
        await asyncio.sleep(every)
        try:
            found = await dask.unrunnable()
        except (OSError, StarburstError):
            continue  # the loop handles a scheduler that does not answer
        for restriction in found.keys() - emitted:
            emit(TaskUnrunnable(restriction=restriction, text=found[restriction]))
        emitted = set(found)
