"""A stand-in for the Dask scheduler, for more workers than a computer can run as processes."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from typing import Any, Self

from dask_starburst.errors import LocalAWSError
from dask_starburst.local import LocalAWS
from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.state import Name
from dask_starburst.plan.requests.tasks import Place, place_of

#: Seconds between two reports; the real scheduler pushes. Listing a thousand tasks keeps the embedded AWS busy, so many
#: tasks are listed less often; the delay counts as ours.
_REPORT = 0.25
_BUSY = 1.0
_MANY = 200


class StandIn:
    """Lists every worker whose container runs as a member; a retired worker leaves, and its container ends.

    It follows the containers for the duration of its context.

    Parameters
    ----------
    local : LocalAWS
        An embedded AWS without processes.
    """

    def __init__(self, local: LocalAWS) -> None:
        self._local = local
        self._places: dict[str, Place | None] = {}
        self._retired: set[Name] = set()
        self.up: dict[Name, str] = {}
        self._following: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._following = asyncio.ensure_future(self._follow())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Make no more queries, which cost the embedded AWS time."""
        if self._following is not None:
            self._following.cancel()

    def members(self) -> frozenset[Name]:
        """Return the names of the processes that are up."""
        return frozenset(self.up)

    async def _follow(self) -> None:
        """Follow the running containers, without AWS calls."""
        while True:
            tasks: list[dict[str, Any]] = []
            with suppress(LocalAWSError):  # too busy to answer: try again at the next report
                tasks = await asyncio.to_thread(self._local.tasks)
                running = [t for t in tasks if t["status"] == "RUNNING" and t["id"] not in self._retired]
                self.up = {place.worker: t["id"] for t in running if (place := self._place(t))}
            await asyncio.sleep(_BUSY if len(tasks) > _MANY else _REPORT)

    def _place(self, task: dict[str, Any]) -> Place | None:
        if task["id"] not in self._places:
            self._places[task["id"]] = place_of(task["overrides"], task["containerInstanceArn"])
        return self._places[task["id"]]

    async def retire(self, name: Name) -> None:
        """Close a worker: it holds no data, and its container ends."""
        task = self.up.pop(name, None)
        if task is not None:
            self._retired.add(task)
            await asyncio.to_thread(self._local.end_task, task)

    async def notices(self, after: int) -> list[Notice]:
        """Wait for ever: there are no Spot notices here."""
        never: asyncio.Future[list[Notice]] = asyncio.get_running_loop().create_future()
        return await never

    async def counts(self) -> dict[str, float]:
        """Return no counts."""
        return {}

    async def unrunnable(self) -> dict[str, str]:
        """Return no tasks."""
        return {}

    async def lease(self) -> float:
        """Renew nothing."""
        return 0.0

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Return no busy workers."""
        return {}

    async def announce_drain(self, name: Name) -> None:
        """Do nothing."""

    async def replace(self, name: Name) -> Name:
        """Fail: no worker leaves, so none is replaced."""
        raise AssertionError(f"worker {name} would be replaced")

    async def withdraw(self, name: Name) -> None:
        """Do nothing."""

    async def restore(self, new: Name, old: Name) -> None:
        """Fail: no worker was replaced."""
        raise AssertionError(f"worker {new} has replaced {old}")

    async def exempt(self, names: Collection[Name]) -> None:
        """Do nothing."""

    async def forget(self, name: Name) -> None:
        """Remove a worker."""
        self.up.pop(name, None)
