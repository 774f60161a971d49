"""Cancel tasks within a time limit, and run tasks as a group.

This package does not use ``asyncio.wait_for``: before Python 3.12 it discards a cancellation that arrives when the
inner future is done (https://github.com/python/cpython/issues/86296), and the task continues. `asyncio.timeout` does
not. Third-party code may still call it, or catch a cancellation, so a task is cancelled repeatedly until it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: Seconds to wait for cancelled tasks to end.
PATIENCE = 10.0
#: Seconds before a task that has not ended is cancelled again.
_AGAIN = 0.5


async def end(tasks: Iterable[asyncio.Future[Any] | None], within: float = PATIENCE) -> bool:
    """Cancel tasks and wait until they have ended.

    Parameters
    ----------
    tasks : iterable of Future or None
        The tasks. None, ended tasks and the current task are skipped. Their exceptions are logged.
    within : float
        Timeout in seconds.

    Returns
    -------
    bool
        Whether all tasks have ended.
    """
    left = {task for task in tasks if task is not None and task is not asyncio.current_task()}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=max(0.0, min(_AGAIN, deadline - loop.time())))
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.debug("%r failed while it was cancelled", task, exc_info=error)
        if left and loop.time() >= deadline:
            logger.warning(
                "tasks did not end within %g s of their cancellation: %s", within, ", ".join(map(repr, left))
            )
            return False
    return True


async def together(*parts: Awaitable[Any]) -> list[Any]:
    """Run all parts concurrently, as `asyncio.gather` does. If one fails, cancel the others before raising its error.

    So no part still changes the account while the clean-up runs.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await end(task for task in tasks if not task.done())


async def outlast(work: asyncio.Future[T], within: float | None = None) -> T:
    """Wait until `work` is done, even if the waiting task is cancelled; raise the cancellation afterwards.

    Parameters
    ----------
    work : Future
        The work to finish. It is never cancelled here.
    within : float, optional
        Timeout in seconds, after which `work` continues.

    Raises
    ------
    TimeoutError
        `work` is not done after `within` seconds.
    asyncio.CancelledError
        The waiting task was cancelled; `work` is done.
    """
    cancelled: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work], timeout=within)
        except asyncio.CancelledError as error:
            cancelled, within = error, None
            continue
        if not work.done():
            raise TimeoutError
    if cancelled is not None:
        if not work.cancelled():
            work.exception()  # retrieved, so that asyncio does not warn
        raise cancelled
    return work.result()
