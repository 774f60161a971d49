"""A Dask scheduler without Dask, for more workers than a computer has room for as processes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from dask_starburst.errors import LocalAWSError
from dask_starburst.local import LocalAWS
from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.state import Name
from dask_starburst.plan.requests.tasks import Place, place_of

#: Seconds between two reports; the real scheduler pushes. Telling of a thousand tasks keeps the embedded AWS
#: busy, so more of them are told of less often; what that delays counts as ours.
_REPORT = 0.25
_BUSY = 1.0
_MANY = 200


class StandIn:
    """Whose container runs is a member; who is retired leaves, and its container ends.

    Parameters
    ----------
    local : LocalAWS
        One without processes.
    """

    def __init__(self, local: LocalAWS) -> None:
        self._local = local
        self._places: dict[str, Place | None] = {}
        self._retired: set[Name] = set()
        self.up: dict[Name, str] = {}

    def members(self) -> frozenset[Name]:
        """Return the names of the processes that are up."""
        return frozenset(self.up)

    async def watch(self) -> None:
        """Follow what runs; none of this is an AWS call."""
        while True:
            tasks: list[dict[str, Any]] = []
            with suppress(LocalAWSError):  # too busy to answer: the next report tells
                tasks = await asyncio.to_thread(self._local.tasks)
                running = [t for t in tasks if t["status"] == "RUNNING" and t["id"] not in self._retired]
                self.up = {place.worker: t["id"] for t in running if (place := self._place(t))}
            await asyncio.sleep(_BUSY if len(tasks) > _MANY else _REPORT)

    def _place(self, task: dict[str, Any]) -> Place | None:
        if task["id"] not in self._places:
            self._places[task["id"]] = place_of(task["overrides"], task["containerInstanceArn"])
        return self._places[task["id"]]

    async def retire(self, name: Name) -> None:
        """Close a worker: it holds nothing, and its process ends."""
        task = self.up.pop(name, None)
        if task is not None:
            self._retired.add(task)
            await asyncio.to_thread(self._local.end_task, task)

    async def notices(self, after: int) -> list[Notice]:
        """There is no Spot here: nothing is ever said."""
        never: asyncio.Future[list[Notice]] = asyncio.get_running_loop().create_future()
        return await never

    async def counts(self) -> dict[str, float]:
        """Nothing to count."""
        return {}

    async def unrunnable(self) -> dict[str, str]:
        """There are no tasks here."""
        return {}

    async def lease(self) -> float:
        """Renew nothing."""
        return 0.0

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Nobody works here."""
        return {}

    async def announce(self, name: Name) -> None:
        """Nobody is drained."""

    async def replace(self, name: Name) -> Name:
        """Nobody goes, so nobody follows."""
        raise AssertionError(f"{name} has to go")

    async def withdraw(self, name: Name) -> None:
        """Nobody retires a worker by hand."""

    async def take_back(self, new: Name, old: Name) -> None:
        """Nobody has followed."""
        raise AssertionError(f"{new} has followed {old}")

    async def clear_suspicion(self, names: Collection[Name]) -> None:
        """Nothing is held against anybody."""

    async def forget(self, name: Name) -> None:
        """Remove a worker."""
        self.up.pop(name, None)
