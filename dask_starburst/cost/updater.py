"""Keeping the books of a cluster true while it runs: prices as they are now, and times as AWS has them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from dask_starburst import cancellation
from dask_starburst.aws import ec2
from dask_starburst.aws.session import AWS
from dask_starburst.cost.ledger import Ledger
from dask_starburst.cost.price_book import PriceBook
from dask_starburst.errors import StarburstError

logger = logging.getLogger(__name__)

#: Seconds between two looks at how old the prices are; AWS is asked only for those that are too old.
_REFRESH_INTERVAL = 5.0
#: Seconds before AWS is asked for the first time where no cap depends on it: a start has enough to ask for.
_FIRST_REFRESH = 10.0
#: Seconds that a launch with a cap waits for current prices; then it goes by those that there are.
_START_TIMEOUT = 15.0
#: Seconds that AWS has at the end to tell the times of all instances; those that were seen are nearly as good.
_CLOSE_TIMEOUT = 3.0


class LedgerUpdater:
    """Looks after the ledger of one cluster.

    Parameters
    ----------
    aws : AWS
        Where to ask.
    book : PriceBook
        The prices.
    ledger : Ledger
        The cost_tracker.
    """

    def __init__(self, aws: AWS, book: PriceBook, ledger: Ledger) -> None:
        self._aws = aws
        self._book = book
        self._ledger = ledger
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Get current prices, now if something depends on them, and keep them so."""
        if self._ledger.caps.binding:
            with suppress(TimeoutError):
                async with asyncio.timeout(_START_TIMEOUT):
                    await self._refresh()
        self._task = asyncio.ensure_future(
            self._run(_REFRESH_INTERVAL if self._ledger.caps.binding else _FIRST_REFRESH)
        )

    async def stop(self) -> None:
        """Ask for no more prices."""
        await cancellation.end([self._task])

    async def close(self) -> None:
        """Close the books at the times that AWS gives for what it has terminated, and now for the rest."""
        if self._ledger.instances:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    lives = await ec2.lives(self._aws, self._ledger.instances)
                for life in lives:
                    self._ledger.correct(life.id, life.launched, life.ended, life.zone, life.taken)
            except (StarburstError, TimeoutError) as error:
                logger.debug("the books are closed at the times that were seen: %r", error)
        self._ledger.close(self._aws.now())

    async def _run(self, first: float) -> None:
        await asyncio.sleep(first)
        while True:
            try:
                await self._refresh()
            except Exception:  # the loop's edge: prices that are a little old harm nobody
                logger.exception("the prices stay as they are")
            await asyncio.sleep(_REFRESH_INTERVAL)

    async def _refresh(self) -> None:
        zones = {instance.zone for instance in self._ledger.instances.values() if instance.zone}
        await self._book.refresh(self._aws, self._ledger.types, sorted(zones))
        self._ledger.reprice(self._aws.now())
