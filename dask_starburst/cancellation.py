"""Ending tasks within a bound, and ending together what was begun together.

``asyncio.wait_for`` is used nowhere in this package: before Python 3.12 it discards a cancellation that arrives when
the inner future is done already (https://github.com/python/cpython/issues/86296), and the task goes on.
`asyncio.timeout` does not. Code that is not ours may still call it, or catch what it should not: so a task is cancelled
until it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
logger = logging.getLogger(__name__)

#: Seconds that cancelled tasks have to end.
PATIENCE = 10.0
#: Seconds before a task that has not ended is cancelled once more.
_AGAIN = 0.5


async def end(tasks: Iterable[asyncio.Future[Any] | None], within: float = PATIENCE) -> bool:
    """Cancel tasks and wait until they have ended.

    Parameters
    ----------
    tasks : iterable of Future or None
        None, what has ended and the task that runs this are passed over. What they raise goes to the log.
    within : float
        Seconds to wait at the most.

    Returns
    -------
    bool
        Whether all of them have ended.
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
                logger.debug("%r failed while it was ended", task, exc_info=error)
        if left and loop.time() >= deadline:
            logger.warning("given up, for they do not end within %g s: %s", within, ", ".join(map(repr, left)))
            return False
    return True


async def together(*parts: Awaitable[Any]) -> list[Any]:
    """Run all parts at once, as `asyncio.gather` does; when one fails, the others have ended before that is raised.

    Where parts change something in an account, none of them goes on beside the clean-up.
    """
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await end(task for task in tasks if not task.done())


async def outlast(work: asyncio.Future[T], within: float | None = None) -> T:
    """Wait until `work` is done, also when the waiting task is cancelled; the cancellation follows then.

    Parameters
    ----------
    work : Future
        What has to come to its end. It is never cancelled from here.
    within : float, optional
        Seconds to wait at the most. `work` goes on then.

    Raises
    ------
    TimeoutError
        It is not done within `within`.
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
            work.exception()  # seen: asyncio has nothing to warn of
        raise cancelled
    return work.result()
