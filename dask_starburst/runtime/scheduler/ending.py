"""Tell every client why its cluster ends, by cancelling its futures with the reason.

When a scheduler closes, distributed cancels the futures of its clients for a lost connection. The StarburstCluster
knows why it closes, but clients of other processes are connected to the scheduler only. So it calls ``starburst_end``
before it closes the scheduler, and the lease keeper does the same before it empties the pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

from dask_starburst.plan.scheduler.shutdown_rules import CANCEL_REASON

#: Seconds to wait for clients that read slowly. `Scheduler.close` discards what is not sent.
_SEND_TIMEOUT = 1.0
_POLL_INTERVAL = 0.01


class Ending(SchedulerPlugin):
    """Cancels the futures of all clients with the reason for the end; those submitted afterwards as well.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The one that runs in this process.
    """

    name = "starburst-ending"

    def __init__(self, scheduler: Any) -> None:
        self._scheduler = scheduler
        self._message = ""
        scheduler.handlers["starburst_end"] = self.starburst_end

    async def starburst_end(self, message: str) -> None:
        """Cancel every future with this message; return when it has been sent. The first message counts.

        Parameters
        ----------
        message : str
            Why the cluster ends, in a sentence.
        """
        if self._message:
            return
        self._message = message
        for name, client in self._scheduler.clients.items():
            self._cancel(name, [task.key for task in client.wants_what])
        with suppress(TimeoutError):
            async with asyncio.timeout(_SEND_TIMEOUT):
                while any(comm.buffer for comm in self._scheduler.client_comms.values()):  # noqa: ASYNC110 -- no event
                    await asyncio.sleep(_POLL_INTERVAL)

    def update_graph(self, scheduler: Any, *, client: str, keys: Iterable[Any], **_: Any) -> None:
        """Cancel futures that are submitted between the message and the end."""
        if self._message:
            self._cancel(client, list(keys))

    def _cancel(self, client: str, keys: list[Any]) -> None:
        cancelled = {"op": "cancelled-keys", "keys": keys, "reason": CANCEL_REASON, "msg": self._message}
        self._scheduler.client_send(client, cancelled)
