"""Keep a cluster's ledger up to date: current prices, and instance times from EC2."""

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

#: Seconds between two checks of the prices' age; only stale ones are requested.
_REFRESH_INTERVAL = 5.0
#: Seconds before the first request if no cap depends on it: a start makes many other calls.
_FIRST_REFRESH = 10.0
#: Seconds that a launch with a cap waits for current prices; then it uses the known ones.
_START_TIMEOUT = 15.0
#: Seconds to wait at the end for the times of all instances; the observed times are close to them.
_CLOSE_TIMEOUT = 3.0


class LedgerUpdater:
    """Keeps the ledger of one cluster up to date.

    Parameters
    ----------
    aws : AWS
        The AWS account and region.
    book : PriceBook
        The prices.
    ledger : Ledger
        The ledger to update.
    """

    def __init__(self, aws: AWS, book: PriceBook, ledger: Ledger) -> None:
        self._aws = aws
        self._book = book
        self._ledger = ledger
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Start to refresh prices; wait for the first ones if a cap depends on them."""
        if self._ledger.caps.binding:
            with suppress(TimeoutError):
                async with asyncio.timeout(_START_TIMEOUT):
                    await self._refresh()
        self._task = asyncio.ensure_future(
            self._run(_REFRESH_INTERVAL if self._ledger.caps.binding else _FIRST_REFRESH)
        )

    async def stop(self) -> None:
        """Stop refreshing prices."""
        await cancellation.end([self._task])

    async def close(self) -> None:
        """Close the ledger with the times that EC2 gives for terminated instances, and now for the others."""
        if self._ledger.instances:
            try:
                async with asyncio.timeout(_CLOSE_TIMEOUT):
                    lives = await ec2.lives(self._aws, self._ledger.instances)
                for life in lives:
                    self._ledger.correct(life.id, life.launched, life.ended, life.zone, life.taken)
            except (StarburstError, TimeoutError) as error:
                logger.debug("closing the ledger with the observed times: %r", error)
        self._ledger.close(self._aws.now())

    async def _run(self, first: float) -> None:
        await asyncio.sleep(first)
        while True:
            try:
                await self._refresh()
            except Exception:  # the loop's edge: slightly old prices are harmless
                logger.exception("refreshing prices failed; retrying")
            await asyncio.sleep(_REFRESH_INTERVAL)

    async def _refresh(self) -> None:
        zones = {instance.zone for instance in self._ledger.instances.values() if instance.zone}
        await self._book.refresh(self._aws, self._ledger.types, sorted(zones))
        self._ledger.reprice(self._aws.now())
