"""Giving back what a session has checked out, whatever goes wrong on the way."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dask_starburst.aws import ssm
from dask_starburst.aws.session import AWS
from dask_starburst.errors import CredentialsExpired
from dask_starburst.fleet.pool import release, reuse
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.fleet.pool.pool import Pool, owns
from dask_starburst.fleet.pool.preflight import Tell
from dask_starburst.plan.loop.state import HEAD, SCHEDULER
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.plan.requests.reuse import SHORTEST_WARM
from dask_starburst.plan.scheduler.shutdown_rules import repeat_after
from dask_starburst.settings import Settings

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Fleet

logger = logging.getLogger(__name__)

#: Seconds for the last calls of a clean-up that has waited until its time was over.
_LAST = 5.0


@dataclass
class Release:
    """The end of one session.

    Parameters
    ----------
    aws : AWS
        The account.
    session : str
        Whose claim it is.
    settings : Settings
        With ``timeouts.close``, and for how long instances are kept.
    tell : callable
        Is told of a pool that is kept warm, or that could not be given back.
    names : PoolNames or None
        Of the pool that was claimed, or was about to be.
    making : bool
        Whether anything of it was touched.
    entrance : str or None
        The security group that may admit the caller by now.
    pool : Pool or None
        As it was made; None where its making failed.
    fleet, lease : Fleet and Lease, or None
        What looked after it.
    """

    aws: AWS
    session: str
    settings: Settings
    tell: Tell
    names: PoolNames | None
    making: bool
    entrance: str | None
    pool: Pool | None
    fleet: Fleet | None
    lease: Lease | None
    _tries: int = 0

    async def run(self, may_stay: bool, ended: Callable[[], bool]) -> list[str]:
        """Give the pool back; return what is still billed at the end.

        What fails is repeated until ``timeouts.close``. What cannot be given back ends with its lease, and that is
        told; nothing is raised.

        Parameters
        ----------
        may_stay : bool
            Whether instances may stay as long as ``warm_timeout`` says.
        ended : callable
            Whether the scheduler has closed its workers and itself by now.
        """
        patience = self.settings.timeouts.close
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        await self.aws.wait_for_calls(patience)
        self.aws.shorten_timeouts()
        sound = self.fleet is not None and self.fleet.error is None
        keep = may_stay and sound and self.settings.warm_timeout >= SHORTEST_WARM
        pause: float | None
        while True:
            try:
                async with asyncio.timeout_at(deadline + _LAST):
                    return await self._give_back(keep, ended, deadline)
            except TimeoutError:
                why, pause = f"AWS did not answer within timeouts.close={patience:g} s", None
            except Exception as error:  # noqa: BLE001 -- close() has to come to its end, whatever is wrong
                self._tries += 1
                if isinstance(error, CredentialsExpired):
                    self.aws.renew_credentials()
                why, pause = str(error) or repr(error), repeat_after(error, self._tries)
            if pause is None or loop.time() + pause > deadline:
                self._tell_left(why)
                return []
            await asyncio.sleep(pause)

    def _tell_left(self, why: str) -> None:
        if self.names is None:  # nothing had been begun
            return
        text = f"pool {self.names.pool} was not given back: {why}"
        if self.lease is not None:
            # The scheduler may have renewed it until this moment.
            last = Lease(self.lease.length, self.aws.now())
            text = f"{text.rstrip('.')}; its lease ends what runs in it, at {last} at the latest"
        self.tell("pool-left", self.names.pool, text, logging.ERROR)

    async def _give_back(self, keep: bool, ended: Callable[[], bool], deadline: float) -> list[str]:
        names, poll = self.names, self.settings.timeouts.poll
        if names is None or not await owns(self.aws, names, self.session):
            return []  # never ours, or not any more: whoever has it now must not be hurt
        if not self.making:
            await ssm.remove(self.aws, names.claim)
            return []
        patience = deadline - asyncio.get_running_loop().time()
        if self.pool is None:
            return await release.undo(self.aws, names, self.entrance, patience, poll)
        # Its claim may be gone though the answer was lost, and the pool another's.
        if keep and (await self._kept(self.pool, patience, ended()) or not await owns(self.aws, names, self.session)):
            return []
        # A scheduler that could not be told of the end may act on the groups as long as its instance is there.
        head = names.group(HEAD)
        return await release.empty_pool(
            self.pool, patience, poll, lambda: () if ended() or self._scheduler_is_over() else (head,)
        )

    def _scheduler_is_over(self) -> bool:
        """Whether the scheduler's task has ended, as far as the fleet has seen."""
        scheduler = self.fleet.workers.get(SCHEDULER) if self.fleet is not None else None
        if self.fleet is None or scheduler is None or scheduler.task is None:
            return True
        task = self.fleet.observed.tasks.get(scheduler.task)
        return task is not None and task.status == "STOPPED"

    async def _kept(self, pool: Pool, patience: float, ended: bool) -> bool:
        """Keep the pool warm; whether it is. It may take half of the time, so that the rest is enough to empty it."""
        timeouts = self.settings.timeouts
        try:
            kept = await reuse.keep(pool, self.settings.warm_timeout, patience, timeouts.poll, ended=ended)
        except Exception as error:
            if repeat_after(error, self._tries + 1) is not None and patience > timeouts.close / 2:
                raise
            logger.error("keeping the pool warm failed: %s", error)
            return False
        if kept is not None:
            text = (
                f"kept warm for the next cluster: {kept}. AWS ends it then;"
                f" `starburst pool stop {pool.name}` does it now"
            )
            self.tell("pool-kept-warm", pool.name, text)
        return kept is not None
