"""Beside every worker: hears that its instance is to be taken, and tells the scheduler.

Loaded by ``dask worker --preload-nanny``. The nanny's event loop is free when user code holds the
GIL of the worker. What comes of a notice is decided by the scheduler (`retirement`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from dask_starburst.plan.requests.tasks import STOP_TIMEOUT
from dask_starburst.plan.scheduler.notices import (
    ACCEPTED,
    ACTION_PATH,
    MARGIN,
    NOTICE_SECONDS,
    POLL_INTERVAL,
    REBALANCE,
    REBALANCE_PATH,
    STOP,
    Notice,
    read_action,
)
from dask_starburst.runtime.metadata import METADATA_ERRORS, Metadata
from dask_starburst.runtime.plugin import Loop

# Below "distributed", whose handler Dask has set up: so it is in the worker's log.
logger = logging.getLogger("distributed.starburst")

_MARKET_PATH = "latest/meta-data/instance-life-cycle"
_SPOT = "spot"
#: A metadata service that hangs is asked again after so many seconds.
_METADATA_TIMEOUT = 2.0
#: The scheduler answers at once, before it does anything; longer than this and it is gone.
_SCHEDULER_TIMEOUT = 3.0


class NoticeWatcher(Loop):
    """Looks at the instance's metadata every two seconds and passes on what AWS announces, each thing once.

    Parameters
    ----------
    nanny : distributed.Nanny
        Whose worker it is about.
    metadata : Metadata
        Of the instance that this runs on.
    every : float
        Seconds between two looks.
    """

    def __init__(self, nanny: Any, metadata: Metadata, every: float = POLL_INTERVAL) -> None:
        self._nanny = nanny
        self._metadata = metadata
        self._every = every
        self._sent: set[tuple[str, str]] = set()
        self._last_warning = ""
        self._announced = False
        self._market = ""

    async def poll(self) -> None:
        """Look now: the scheduler asks for it when ECS drains the instance, which it does after a Spot notice too."""
        if self._market == _SPOT:
            await self._poll()

    async def _run(self) -> None:
        while self._market in ("", _SPOT):  # there is nothing to watch for on another kind of instance
            try:
                if not self._market and (market := await self._attempt(_MARKET_PATH)) is not None:
                    self._market = market.text
                if self._market == _SPOT:
                    await self._poll()
                    await self._announce()
            except Exception:  # the loop's edge: the next look may be the one that matters
                logger.exception("the watch for Spot notices stumbled and goes on")
            await asyncio.sleep(self._every)

    async def _announce(self) -> None:
        """Let the scheduler know, once, which worker may be taken, so that it can warn of what is too much to move."""
        if not self._announced:
            with suppress(Exception):  # only a warning depends on it, and there is a next time
                async with asyncio.timeout(_SCHEDULER_TIMEOUT):
                    await self._nanny.scheduler.starburst_watched(name=self._nanny.name)
                self._announced = True

    async def _poll(self) -> None:
        for path, read in ((ACTION_PATH, read_action), (REBALANCE_PATH, _rebalance)):
            answer = await self._attempt(path)
            if answer is None:
                continue
            try:
                await self._send(read(answer.text, answer.now))
            except ValueError as error:
                self._warn_once(str(error))

    async def _send(self, notice: Notice) -> None:
        """Tell the scheduler, until it has taken it: once for each worker process that the nanny starts."""
        worker = self._nanny.worker_address
        if worker is None or (notice.kind, worker) in self._sent:
            return
        if await send_notice(self._nanny, notice):
            self._sent.add((notice.kind, worker))

    async def _attempt(self, path: str) -> Any:
        """Return what there is at a path, or None; the loop goes on meanwhile."""
        try:
            return await asyncio.to_thread(self._metadata.get, path)
        except METADATA_ERRORS as error:
            self._warn_once(f"instance metadata: {error!r}")
            return None

    def _warn_once(self, text: str) -> None:
        if text != self._last_warning:
            logger.warning("the watch for Spot notices goes on after: %s", text)
        self._last_warning = text


async def send_notice(nanny: Any, notice: Notice) -> bool:
    """Tell the scheduler of a notice; whether it has taken it.

    It is told how many seconds are left, not until when: clocks differ.
    """
    said = {"worker": nanny.worker_address, "kind": notice.kind, "seconds": notice.seconds, "action": notice.action}
    try:
        async with asyncio.timeout(_SCHEDULER_TIMEOUT):
            answer = await nanny.scheduler.starburst_notice(**said)
    except Exception as error:  # noqa: BLE001 -- the loop's edge: gone, busy, or without our handler; it is told again
        answer = repr(error)
    if answer != ACCEPTED:
        logger.warning("the scheduler did not take the notice %s: %s", notice, answer)
    return bool(answer == ACCEPTED)


class SigtermHandler:
    """Has the scheduler retire the worker before SIGTERM does to it what it does to any ``dask worker``.

    That is to close the nanny, and to lose what the worker holds. A second SIGTERM does it at once.

    Parameters
    ----------
    nanny : distributed.Nanny
        Whose worker it is about.
    watcher : NoticeWatcher
        Looks for a notice first: ECS stops the tasks of an instance that Spot takes.
    dask_handler : callable
        The signal handler that ``dask worker`` has set.
    """

    def __init__(self, nanny: Any, watcher: NoticeWatcher, dask_handler: Callable[[int, Any], Any]) -> None:
        self._nanny = nanny
        self._watcher = watcher
        self._dask_handler = dask_handler
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def handle(self, signum: int, frame: Any) -> None:
        """Be the signal handler. Nothing may be logged here: see `distributed._signals`."""
        signal.signal(signum, self._dask_handler)
        self._loop.call_soon_threadsafe(self._begin, signum)

    def _begin(self, signum: int) -> None:
        self._task = asyncio.ensure_future(self._retire(signum))

    async def _retire(self, signum: int) -> None:
        try:
            await self._until_retired()
        finally:
            self._dask_handler(signum, None)

    async def _until_retired(self) -> None:
        """Wait for the scheduler to move everything and close the nanny, as long as the container may live.

        If the scheduler is gone, or does not know the worker, there is nothing to wait for.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_SCHEDULER_TIMEOUT):
                await self._watcher.poll()
        notice = Notice(STOP, STOP_TIMEOUT, "SIGTERM")
        if self._nanny.worker_address is None or not await send_notice(self._nanny, notice):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT - MARGIN):
                await self._nanny.finished()


def _rebalance(body: str, now: float) -> Notice:
    """A recommendation has no end; when an interruption follows it says so itself."""
    return Notice(REBALANCE, NOTICE_SECONDS)


_installed: dict[int, tuple[NoticeWatcher, Any]] = {}


def dask_setup(nanny: Any) -> None:
    """Watch over the worker of this nanny; called by Dask when the nanny starts."""
    watcher, before = NoticeWatcher(nanny, Metadata(timeout=_METADATA_TIMEOUT)), signal.getsignal(signal.SIGTERM)
    _installed[id(nanny)] = watcher, before
    nanny.handlers["starburst_poll"] = watcher.poll
    watcher.begin()
    # Only under `dask worker`, which has set its handler by now; elsewhere the process is not ours to end.
    if callable(before) and _in_main_thread():
        signal.signal(signal.SIGTERM, SigtermHandler(nanny, watcher, before).handle)


async def dask_teardown(nanny: Any) -> None:
    """Watch no more; called by Dask when the nanny closes."""
    watcher, before = _installed.pop(id(nanny), (None, None))
    if watcher is not None:
        await watcher.end()
    if callable(before) and _in_main_thread():
        signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
