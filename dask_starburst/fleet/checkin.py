"""Release the pool that a session has checked out, also when AWS calls fail."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_starburst.aws.session import AWS
from dask_starburst.errors import CredentialsExpired
from dask_starburst.events.pool import PoolKeptWarm, PoolLeft
from dask_starburst.events.stream import Emit
from dask_starburst.fleet.pool import claims, release, reuse
from dask_starburst.fleet.pool.checkout import Checkout
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.fleet.pool.pool import Pool, owns
from dask_starburst.plan.groups import HEAD_PLACEMENT
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.plan.requests.reuse import SHORTEST_WARM
from dask_starburst.plan.scheduler.shutdown_rules import repeat_after
from dask_starburst.settings import Settings

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Controller

logger = logging.getLogger(__name__)

#: Seconds for the last calls of a release that has reached its deadline.
_LAST = 5.0


@dataclass
class Release:
    """Releases the pool of one session.

    Parameters
    ----------
    aws : AWS
        The account.
    settings : Settings
        Provides ``timeouts.close`` and ``keep.warm_timeout``.
    emit : callable
        Receives an event if the pool is kept warm or could not be released.
    checkout : Checkout
        How far the session's check-out of a pool came.
    pool : Pool or None
        The pool; None if it was not created completely.
    controller, lease : Controller and Lease, or None
        The session's controller and lease, if they were created.
    """

    aws: AWS
    settings: Settings
    emit: Emit
    checkout: Checkout
    pool: Pool | None
    controller: Controller | None
    lease: Lease | None
    _tries: int = 0

    async def run(self, may_stay: bool, ended: Callable[[], bool]) -> list[str]:
        """Release the pool; return the instances that are still billed at the end.

        Failed calls are retried until ``timeouts.close``. If the pool cannot be released, an event says so and the
        lease ends it; nothing is raised.

        Parameters
        ----------
        may_stay : bool
            Whether instances may stay for ``keep.warm_timeout``.
        ended : callable
            Returns whether the scheduler has closed its workers and itself.
        """
        patience = self.settings.timeouts.close
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        await self.aws.wait_for_calls(patience)
        self.aws.shorten_timeouts()
        sound = self.controller is not None and self.controller.error is None
        keep = may_stay and sound and self.settings.keep.warm_timeout >= SHORTEST_WARM
        pause: float | None
        while True:
            try:
                async with asyncio.timeout_at(deadline + _LAST):
                    return await self._release(keep, ended, deadline)
            except TimeoutError:
                why, pause = f"AWS did not answer within timeouts.close={patience:g} s", None
            except Exception as error:  # noqa: BLE001 -- close() has to finish, whatever fails
                self._tries += 1
                if isinstance(error, CredentialsExpired):
                    self.aws.renew_credentials()
                why, pause = str(error) or repr(error), repeat_after(error, self._tries)
            if pause is None or loop.time() + pause > deadline:
                self._emit_left(why)
                return []
            await asyncio.sleep(pause)

    def _emit_left(self, why: str) -> None:
        if self.checkout.names is None:  # no pool was claimed
            return
        # The scheduler may have renewed the lease until now.
        last = None if self.lease is None else self.aws.now() + self.lease.length
        self.emit(PoolLeft(pool=self.checkout.names.pool, why=why, lease=last))

    async def _release(self, keep: bool, ended: Callable[[], bool], deadline: float) -> list[str]:
        names, poll = self.checkout.names, self.settings.timeouts.poll
        if names is None or not await self._owns(names):
            return []  # never claimed, or claimed by another session since: its resources must not be touched
        if not self.checkout.making:
            await claims.free(self.aws, names)
            return []
        patience = deadline - asyncio.get_running_loop().time()
        if self.pool is None:
            return await release.undo(self.aws, names, self.checkout.entrance, patience, poll)
        # If the response was lost, the claim may be gone already and the pool claimed by another session.
        if keep and (await self._keep_warm(self.pool, patience, ended()) or not await self._owns(names)):
            return []
        # A scheduler that was not terminated may change the groups as long as its instance exists.
        head = names.group(HEAD_PLACEMENT)
        return await release.empty_pool(
            self.pool, patience, poll, lambda: () if ended() or self._scheduler_is_over() else (head,)
        )

    async def _owns(self, names: PoolNames) -> bool:
        return await owns(self.aws, names, self.checkout.session)

    def _scheduler_is_over(self) -> bool:
        """Whether the controller has observed that the scheduler's task has ended."""
        scheduler = self.controller.roster.scheduler if self.controller is not None else None
        if self.controller is None or scheduler is None or scheduler.task is None:
            return True
        task = self.controller.roster.observed.tasks.get(scheduler.task)
        return task is not None and task.status == "STOPPED"

    async def _keep_warm(self, pool: Pool, patience: float, ended: bool) -> bool:
        """Keep the pool warm; return whether it is. Takes at most half of the time, so that it can still be emptied."""
        timeouts = self.settings.timeouts
        try:
            kept = await reuse.keep(pool, self.settings.keep.warm_timeout, patience, timeouts.poll, ended=ended)
        except Exception as error:
            if repeat_after(error, self._tries + 1) is not None and patience > timeouts.close / 2:
                raise
            logger.error("keeping the pool warm failed: %s", error)
            return False
        if kept is not None:
            self.emit(PoolKeptWarm(pool=pool.name, instances=kept.instances, until=kept.until, kept=str(kept)))
        return kept is not None
