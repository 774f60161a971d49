"""Watch for Spot interruption notices in the nanny, and forward them to the scheduler.

Loaded by ``dask worker --preload-nanny``: the nanny's event loop stays free while user code holds the worker's GIL.
The scheduler decides what to do about a notice (`retirement`).
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
    HOST_STOP_SECONDS,
    NOTICE_SECONDS,
    POLL_INTERVAL,
    REBALANCE,
    REBALANCE_PATH,
    STOP,
    Notice,
    margin_of,
    read_action,
)
from dask_starburst.runtime.metadata import METADATA_ERRORS, Metadata, is_stopped_by_ecs
from dask_starburst.runtime.plugin import Loop

# A child of "distributed", whose handler writes to the worker's log.
logger = logging.getLogger("distributed.starburst")

_MARKET_PATH = "latest/meta-data/instance-life-cycle"
_SPOT = "spot"
#: Timeout of a metadata request in seconds.
_METADATA_TIMEOUT = 2.0
#: Seconds to wait for the scheduler's answer. It answers before it acts on a notice.
_SCHEDULER_TIMEOUT = 3.0


class NoticeWatcher(Loop):
    """Polls the instance metadata and forwards each notice to the scheduler once.

    Parameters
    ----------
    nanny : distributed.Nanny
        The nanny of the worker on this instance.
    metadata : Metadata
        The metadata service of this instance.
    every : float
        Polling interval in seconds.
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
        """Poll now. The scheduler requests it when ECS drains the instance, which also follows a Spot notice."""
        if self._market == _SPOT:
            await self._poll()

    async def _run(self) -> None:
        while self._market in ("", _SPOT):  # only Spot instances get notices
            try:
                if not self._market and (market := await self._attempt(_MARKET_PATH)) is not None:
                    self._market = market.text
                if self._market == _SPOT:
                    await self._poll()
                    await self._announce()
            except Exception:  # the loop's edge: the next poll may find a notice
                logger.exception("polling for Spot notices failed; retrying in %g s", self._every)
            await asyncio.sleep(self._every)

    async def _announce(self) -> None:
        """Report once that this worker runs on Spot, so that the scheduler can warn when it holds too much data."""
        if not self._announced:
            with suppress(Exception):  # only a warning depends on it; retried at the next poll
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
        """Send a notice until the scheduler accepts it, once for each worker process that the nanny starts."""
        worker = self._nanny.worker_address
        if worker is None or (notice.kind, worker) in self._sent:
            return
        if await send_notice(self._nanny, notice):
            self._sent.add((notice.kind, worker))

    async def _attempt(self, path: str) -> Any:
        """Read a metadata path in a thread; return None if it is missing or the read fails."""
        try:
            return await asyncio.to_thread(self._metadata.get, path)
        except METADATA_ERRORS as error:
            self._warn_once(f"instance metadata: {error!r}")
            return None

    def _warn_once(self, text: str) -> None:
        if text != self._last_warning:
            logger.warning("polling for Spot notices failed: %s; retrying in %g s", text, self._every)
        self._last_warning = text


async def send_notice(nanny: Any, notice: Notice) -> bool:
    """Send a notice to the scheduler and return whether it was accepted.

    The message carries the seconds that are left rather than a time, because clocks differ.
    """
    said = {"worker": nanny.worker_address, "kind": notice.kind, "seconds": notice.seconds, "action": notice.action}
    try:
        async with asyncio.timeout(_SCHEDULER_TIMEOUT):
            answer = await nanny.scheduler.starburst_notice(**said)
    except Exception as error:  # noqa: BLE001 -- the loop's edge: gone, busy, or without our handler; sent again
        answer = repr(error)
    if answer != ACCEPTED:
        logger.warning("the scheduler did not take the notice %s: %s", notice, answer)
    return bool(answer == ACCEPTED)


class SigtermHandler:
    """Retires the worker through the scheduler before Dask's own SIGTERM handler closes the nanny.

    Dask's handler alone would lose the worker's data. A second SIGTERM runs it at once.

    Parameters
    ----------
    nanny : distributed.Nanny
        The nanny of the worker.
    watcher : NoticeWatcher
        Polled first: ECS stops the tasks of an instance that Spot interrupts.
    dask_handler : callable
        The signal handler that ``dask worker`` has installed.
    """

    def __init__(self, nanny: Any, watcher: NoticeWatcher, dask_handler: Callable[[int, Any], Any]) -> None:
        self._nanny = nanny
        self._watcher = watcher
        self._dask_handler = dask_handler
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def handle(self, signum: int, frame: Any) -> None:
        """Handle the signal. Logging is not allowed here, see `distributed._signals`."""
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
        """Wait until the scheduler has moved the data and closed the nanny, within the time that the container has.

        ECS waits for the stop timeout of the task definition; an instance that shuts down does not.

        Return at once if the scheduler is gone or does not know the worker.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(_SCHEDULER_TIMEOUT):
                await self._watcher.poll()
        seconds = STOP_TIMEOUT if await asyncio.to_thread(is_stopped_by_ecs, _METADATA_TIMEOUT) else HOST_STOP_SECONDS
        notice = Notice(STOP, seconds, "SIGTERM")
        if self._nanny.worker_address is None or not await send_notice(self._nanny, notice):
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds - margin_of(seconds)):
                await self._nanny.finished()


def _rebalance(body: str, now: float) -> Notice:
    """Return a rebalance notice, which has no deadline of its own."""
    return Notice(REBALANCE, NOTICE_SECONDS)


_installed: dict[int, tuple[NoticeWatcher, Any]] = {}


def dask_setup(nanny: Any) -> None:
    """Start the watch for this nanny; called by Dask when the nanny starts."""
    watcher, before = NoticeWatcher(nanny, Metadata(timeout=_METADATA_TIMEOUT)), signal.getsignal(signal.SIGTERM)
    _installed[id(nanny)] = watcher, before
    nanny.handlers["starburst_poll"] = watcher.poll
    watcher.begin()
    # Only under `dask worker`, which has installed its handler by now. Elsewhere this package must not end the process.
    if callable(before) and _in_main_thread():
        signal.signal(signal.SIGTERM, SigtermHandler(nanny, watcher, before).handle)


async def dask_teardown(nanny: Any) -> None:
    """Stop the watch; called by Dask when the nanny closes."""
    watcher, before = _installed.pop(id(nanny), (None, None))
    if watcher is not None:
        await watcher.end()
    if callable(before) and _in_main_thread():
        signal.signal(signal.SIGTERM, before)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
