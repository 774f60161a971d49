"""Start and close a cluster exactly once, also if it is cancelled, forgotten or forked."""

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

#: A release is retried this often if it is cancelled, which asyncio does once at the end of a loop.
_TRIES = 3
#: The cluster whose start or close the current task is part of, such as a hook: it must not wait for itself.
_part_of: ContextVar[OwnedCluster | None] = ContextVar("_part_of", default=None)


class OwnedCluster(SpecCluster):
    """A SpecCluster that belongs to the process that created it, and that is closed in every case."""

    #: Clusters that may have resources in AWS. A cluster whose loop has ended is not referenced from anywhere else.
    _open: ClassVar[set[OwnedCluster]] = set()
    _starting: asyncio.Future[None] | None = None
    _closing: asyncio.Future[None] | None = None

    @abstractmethod
    async def _start_once(self) -> None:
        """Start the cluster."""

    @abstractmethod
    async def _close_once(self) -> None:
        """Close the cluster."""

    @abstractmethod
    async def _release(self) -> None:
        """Release the resources in AWS, without Dask; may run in another loop than the cluster's own."""

    @property
    @abstractmethod
    def _close_timeout(self) -> float:
        """Seconds that closing may take at the exit of the interpreter."""

    def _fatal(self) -> StarburstError | None:
        """Return why the cluster has closed by itself, if it has."""
        return None

    def __init__(self, **options: Any) -> None:
        self._owner = os.getpid()
        super().__init__(**options)

    def __await__(self) -> Generator[Any, Any, Self]:
        """Start the cluster, or wait for the requested workers; a cancelled start leaves nothing behind."""
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
        except BaseException:  # `async with` does not call __aexit__ then
            await self._close()
            raise

    async def _start(self) -> None:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._run_start())
        try:
            await self._starting
        except BaseException as error:  # noqa: BLE001 -- a cancelled start leaves nothing behind either
            if self._closing is None:
                self.status = Status.failed
            await self._close()
            raise self._start_error(error) from None

    def _start_error(self, error: BaseException) -> BaseException:
        """Return the error to raise for a start that failed."""
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and not (task and task.cancelling()):
            return self._fatal() or SchedulerFailed("the cluster was closed while it started.")
        # SpecCluster wraps the scheduler's error; raise the original.
        return error.__cause__ if isinstance(error.__cause__, StarburstError) else error

    async def _run_start(self) -> None:
        _part_of.set(self)
        self._open.add(self)
        await self._start_once()

    def close(self, timeout: float | None = None) -> Any:
        """Close the cluster and terminate everything that it runs in AWS.

        Parameters
        ----------
        timeout : float, optional
            The most seconds to wait; closing continues in the background afterwards.

        Returns
        -------
        awaitable or None
            An awaitable if the cluster is asynchronous. If the waiting task is cancelled, the cluster is closed before
            the cancellation is raised.
        """
        if self._owner != os.getpid():  # a forked child: the cluster is its parent's
            return NoOpAwaitable() if self.asynchronous else None
        if self.status is not Status.closed and not self.loop.asyncio_loop.is_running():
            return self._close_elsewhere()
        if self.asynchronous and self.status is not Status.closed:
            return self._close(parse_timedelta(timeout))
        return super().close(timeout)

    def _close_elsewhere(self) -> Any:
        """Close a cluster whose own loop has ended or has never run."""
        work = self._close_without_dask()
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(work)
        return work

    def sync(self, func: Any, *args: Any, **options: Any) -> Any:
        """Run a coroutine as every Dask cluster does; refused in a forked child, where the loop does not run."""
        if self._owner != os.getpid():
            raise RuntimeError(
                f"cluster {self.name} belongs to process {self._owner}, which this one was forked from; connect with"
                " Client(cluster.scheduler_address, security=cluster.security)."
            )
        return super().sync(func, *args, **options)

    async def _close(self, timeout: float | None = None) -> None:
        """Close once for all callers, also if they are cancelled meanwhile."""
        if self._owner != os.getpid():
            return
        starting = self._starting
        if starting is None:  # never awaited
            await super()._close()
            return
        from_own_task = _part_of.get() is self and (self._closing is not None or not starting.done())
        if from_own_task and self.status is Status.failed:
            return  # SpecCluster's start has failed, and our start closes the cluster
        self._begin_to_close()
        assert self._closing is not None
        if not from_own_task:
            await cancellation.outlast(self._closing, timeout)

    def _begin_to_close(self) -> None:
        """Begin to close, unless closing has begun or the cluster was never started."""
        if self._closing is None and self._starting is not None:
            self._closing = asyncio.ensure_future(self._close_despite_cancellation(self._starting))

    async def _close_despite_cancellation(self, starting: asyncio.Future[None]) -> None:
        """Close, also if ``asyncio.run`` cancels this task, as it does with all tasks at its end."""
        _part_of.set(self)
        try:
            await cancellation.end([starting])  # then it is known what the start has created
            await self._close_once()
        except asyncio.CancelledError:
            await self._close_without_dask()

    async def _close_without_dask(self) -> None:
        """Release the resources in AWS if the cluster's loop is ending or has ended."""
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
    """Close the clusters that a script has not closed, with a longer timeout than distributed's.

    It is registered after distributed's handler, so that it runs before it.
    """
    for cluster in list(OwnedCluster._open):
        if cluster.shutdown_on_close and cluster._owner == os.getpid():
            with suppress(TimeoutError):
                cluster.close(timeout=cluster._close_timeout)


def _forget_clients() -> None:
    """In a forked child, mark the clients of the parent's clusters closed: their loop does not run here."""
    for client in tuple(Client._instances):
        if isinstance(client.cluster, OwnedCluster):
            client.status = "closed"


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_clients)
