"""Telling of tasks that no worker of the cluster can ever run."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from dask_starburst.errors import StarburstError

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Fleet

#: Seconds between two questions to the scheduler.
_EVERY = 5.0


class UnrunnableClient(Protocol):
    """What is asked of the scheduler about tasks."""

    async def unrunnable(self) -> dict[str, str]:
        """Return what there is to say of the tasks that no worker can run, by what they were submitted with."""


async def watch(fleet: Fleet, dask: UnrunnableClient) -> None:
    """Tell of each kind of restriction that holds tasks up, once as long as there are such tasks."""
    told: set[str] = set()
    while True:
        await asyncio.sleep(_EVERY)
        try:
            found = await dask.unrunnable()
        except (OSError, StarburstError):
            continue  # it is told elsewhere that the scheduler does not answer
        for restriction in found.keys() - told:
            fleet.tell("task-unrunnable", restriction, found[restriction], logging.WARNING)
        told = set(found)
