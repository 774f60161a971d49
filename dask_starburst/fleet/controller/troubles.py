"""What AWS does not let a fleet do: told once, waited out, and fatal only when waiting cannot help."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dask_starburst.aws import faults
from dask_starburst.errors import (
    CredentialsExpired,
    LeaseExpired,
    NoCredentials,
    PermissionDenied,
    SchedulerFailed,
    StarburstError,
)
from dask_starburst.plan.loop.state import SCHEDULER, Worker, WorkerState
from dask_starburst.plan.scheduler.shutdown_rules import shutdown_reason

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Fleet

#: A start with credentials that AWS does not take is given up after this many seconds: the user waits for it.
_START = 30.0
#: The scheduler's last words are among so many lines of its log.
_LAST_WORDS = 100
#: Seconds until a line is surely there: Docker's log driver sends what there is every five (its source).
_LOG_LATE = 8
#: A cluster whose client has no credentials any more closes this many seconds before its lease ends.
_LAST = 60.0


class Troubles:
    """Follows what fails, for one fleet.

    Parameters
    ----------
    fleet : Fleet
        Whose calls.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._told = ""
        self._outage: float | None = None
        self._refused: float | None = None
        self._met = False

    @property
    def any(self) -> bool:
        """Whether something has failed since the last look at which nothing did."""
        return bool(self._told)

    def begin(self) -> None:
        """Take notice that a look begins."""
        self._met = False

    def over(self) -> None:
        """Take notice that a look is over; if nothing failed in it, AWS is well again."""
        if self._met:
            return
        if self._outage is not None:
            seconds = self._fleet.pool.aws.now() - self._outage
            text = f"AWS answers again after {seconds:.0f} s; the cluster goes on as it was asked to"
            self._fleet.tell("aws-answers", self._fleet.pool.name, text)
        if self._refused is not None:
            self._fleet.tell("credentials-accepted", self._fleet.pool.name, "AWS takes the credentials again")
        self._told, self._outage, self._refused = "", None, None

    def note(self, error: StarburstError) -> None:
        """Tell of a call that failed, once; give up if asking again cannot help."""
        self._met = True
        now = self._fleet.pool.aws.now()
        if isinstance(error, CredentialsExpired | NoCredentials):
            self._credentials(error, now)
        elif faults.outage(error):
            self._tell(error, "outage" if self._outage is not None else str(error), " Retrying; nothing is lost.")
            self._outage = now if self._outage is None else self._outage
        else:
            self._tell(error, str(error), "")
        if self._starting() and isinstance(error, PermissionDenied):
            self._fleet.fail(error)

    async def reason(self, error: StarburstError, scheduler: Worker | None) -> StarburstError:
        """Return why the cluster ends: what the scheduler says in its log, if it was the scheduler that ended it."""
        if scheduler is None or not scheduler.task:
            return error
        for n in range(_LOG_LATE if isinstance(error, LeaseExpired) else 1):
            await asyncio.sleep(min(n, 1))
            reason = shutdown_reason(await self._fleet.log_tail(scheduler, _LAST_WORDS))
            if reason is not None:
                return SchedulerFailed(f"the scheduler has ended the cluster: {reason}. Start a new one.")
        return error

    def _tell(self, error: StarburstError, key: str, what_next: str) -> None:
        """Tell of an error; of an outage, in which each call fails in words of its own, only of the first."""
        if key != self._told and not (key == "outage" and self._told):
            self._fleet.tell("aws-error", self._fleet.pool.name, f"{error}{what_next}", logging.WARNING)
            self._told = key

    def _credentials(self, error: StarburstError, now: float) -> None:
        """Ask for credentials anew, and go on; without any the cluster closes when its lease is about to end."""
        fleet = self._fleet
        fleet.pool.aws.renew_credentials()
        if self._refused is None:
            self._refused = now
            text = f"{error} The cluster goes on meanwhile; credentials are read again. Its lease ends at {fleet.lease}"
            fleet.tell("credentials-refused", fleet.pool.name, text, logging.WARNING)
            self._told = str(error)
        if now >= fleet.lease.until - min(_LAST, fleet.lease.length / 4):
            text = f"{error} The cluster closes: its lease ends at {fleet.lease} and cannot be renewed without them."
            fleet.fail(CredentialsExpired(text, code=error.code, operation=error.operation))
        elif self._starting() and now - self._refused > _START:
            fleet.fail(error)

    def _starting(self) -> bool:
        scheduler = self._fleet.workers.get(SCHEDULER)
        return scheduler is not None and scheduler.state not in (WorkerState.READY, WorkerState.RETIRING)
