"""When a cluster starts and closes: once each, whatever is cancelled, forgotten or forked."""

from __future__ import annotations

import asyncio
import atexit
import os
import warnings
from abc import abstractmethod
from collections.abc import Generator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, ClassVar, Self, cast

from dask.utils import parse_timedelta
from distributed.client import Client
from distributed.core import Status
from distributed.deploy.spec import SpecCluster
from distributed.utils import NoOpAwaitable

from dask_starburst import cancellation
from dask_starburst.errors import SchedulerFailed, StarburstError

#: A clean-up begins anew when it is cancelled, which asyncio does once at the end of a loop.
_TRIES = 3
#: The cluster whose start or close a task is part of, such as a hook's: it cannot wait for what waits for it.
_part_of: ContextVar[OwnedCluster | None] = ContextVar("_part_of", default=None)


class OwnedCluster(SpecCluster):
    """A SpecCluster of the process that made it: what it has begun is ended, however that process goes on."""

    #: Those that may have something in AWS. Held here: one whose loop has ended has nothing else that holds it.
    _open: ClassVar[set[OwnedCluster]] = set()
    _starting: asyncio.Future[None] | None = None
    _closing: asyncio.Future[None] | None = None

    @abstractmethod
    async def _start_once(self) -> None:
        """Do all that a start does."""

    @abstractmethod
    async def _close_once(self) -> None:
        """Do all that closing does."""

    @abstractmethod
    async def _release(self) -> None:
        """Do what closing does in AWS, without Dask, also in another loop than the cluster's own."""

    @property
    @abstractmethod
    def _patience(self) -> float:
        """Seconds that closing may take at the exit of the interpreter."""

    def _fatal(self) -> StarburstError | None:
        """Return why the cluster has closed by itself, if it has."""
        return None

    def __init__(self, **options: Any) -> None:
        self._owner = os.getpid()
        super().__init__(**options)

    def __await__(self) -> Generator[Any, Any, Self]:
        """Start, or wait for what was asked for; a start that is cancelled leaves nothing behind."""
        first = self.status is Status.created
        try:
            yield from super().__await__()
        except asyncio.CancelledError:
            if first:
                yield from self._close().__await__()
            raise
        return self

    async def __aenter__(self) -> Self:
        try:
            return cast(Self, await super().__aenter__())
        except BaseException:  # `async with` leaves no further chance to close
            await self._close()
            raise

    async def _start(self) -> None:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start_in_one())
        try:
            await self._starting
        except BaseException as error:  # noqa: BLE001 -- a cancelled start leaves nothing behind either
            if self._closing is None:
                self.status = Status.failed
            await self._close()
            raise self._why_not_started(error) from None

    def _why_not_started(self, error: BaseException) -> BaseException:
        """Return what the user is to see of the error that has ended a start."""
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and not (task and task.cancelling()):
            return self._fatal() or SchedulerFailed("the cluster was closed while it started.")
        # SpecCluster wraps what hinders the scheduler; the user is to see our own words.
        return error.__cause__ if isinstance(error.__cause__, StarburstError) else error

    async def _start_in_one(self) -> None:
        _part_of.set(self)
        self._open.add(self)
        await self._start_once()

    def close(self, timeout: float | None = None) -> Any:
        """Close the cluster; nothing of it is left in AWS then.

        Parameters
        ----------
        timeout : float, optional
            Seconds to wait for that at the most; it goes on afterwards.

        Returns
        -------
        awaitable or None
            To be awaited where the cluster is asynchronous. If the task that waits is cancelled, the cluster is closed
            before the cancellation is raised.
        """
        if self._owner != os.getpid():  # a forked child: the cluster is its parent's
            return NoOpAwaitable() if self.asynchronous else None
        if self.status is not Status.closed and not self.loop.asyncio_loop.is_running():
            return self._close_elsewhere()
        if self.asynchronous and self.status is not Status.closed:
            return self._close(parse_timedelta(timeout))
        return super().close(timeout)

    def _close_elsewhere(self) -> Any:
        """Close where the cluster's own loop has ended or has never run."""
        work = self._end_without_dask()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work)
        return work

    def sync(self, func: Any, *args: Any, **options: Any) -> Any:
        """As in every Dask cluster; refused in a forked child, where nothing would ever answer."""
        if self._owner != os.getpid():
            raise RuntimeError(
                f"cluster {self.name} belongs to process {self._owner}, which this one was forked from; connect with"
                " Client(cluster.scheduler_address, security=cluster.security)."
            )
        return super().sync(func, *args, **options)

    async def _close(self, within_caps: float | None = None) -> None:
        """Close once, for all who ask, also if they are cancelled meanwhile."""
        if self._owner != os.getpid():
            return
        starting = self._starting
        if starting is None:  # never awaited
            await super()._close()
            return
        within_us = _part_of.get() is self and (self._closing is not None or not starting.done())
        if within_us and self.status is Status.failed:
            return  # SpecCluster's start has failed, and ours closes
        self._begin_to_close()
        assert self._closing is not None
        if not within_us:
            await cancellation.outlast(self._closing, within_caps)

    def _begin_to_close(self) -> None:
        """Begin to close, unless that has begun; nothing is to be closed before a start."""
        if self._closing is None and self._starting is not None:
            self._closing = asyncio.ensure_future(self._close_whatever_comes(self._starting))

    async def _close_whatever_comes(self, starting: asyncio.Future[None]) -> None:
        """Close, also when ``asyncio.run`` cancels this very task, as it does with all that run at its end."""
        _part_of.set(self)
        try:
            await cancellation.end([starting])  # what it was about to make is known then
            await self._close_once()
        except asyncio.CancelledError:
            await self._end_without_dask()

    async def _end_without_dask(self) -> None:
        """Give back what AWS has of it where the loop that the cluster lived in ends or has ended."""
        for _ in range(_TRIES):
            with suppress(asyncio.CancelledError):
                await self._release()
                break
        self.status = Status.closed
        self._open.discard(self)

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if getattr(self, "_owner", 0) == os.getpid():
            super().__del__(_warn)


@atexit.register
def _close_all() -> None:
    """Close what a script has forgotten, with more patience than distributed has.

    Registered after distributed's own, so it runs before it.
    """
    for cluster in list(OwnedCluster._open):
        if cluster.shutdown_on_close and cluster._owner == os.getpid():
            with suppress(TimeoutError):
                cluster.close(timeout=cluster._patience)


def _forget_clients() -> None:
    """In a forked child, mark the clients of the parent's clusters closed: their loop does not run here."""
    for client in tuple(Client._instances):
        if isinstance(client.cluster, OwnedCluster):
            client.status = "closed"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_clients)
