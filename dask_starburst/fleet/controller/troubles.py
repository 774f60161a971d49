"""Handle failed AWS calls: emit each once, retry, and fail only when a retry cannot help."""

from __future__ import annotations

import asyncio
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
from dask_starburst.events.aws import CallFailed, CredentialsAccepted, CredentialsRefused, OutageEnded
from dask_starburst.plan.loop.state import SCHEDULER, Worker, WorkerState
from dask_starburst.plan.scheduler.shutdown_rules import shutdown_reason

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Fleet

#: A start with refused credentials is given up after this many seconds, because the user waits for it.
_START = 30.0
#: The number of last lines of the scheduler's log that may hold its reason to end.
_LAST_WORDS = 100
#: Seconds until a log line is surely in CloudWatch: Docker's log driver sends every five seconds (its source).
_LOG_LATE = 8
#: A cluster whose client has no valid credentials closes this many seconds before its lease ends.
_LAST = 60.0


class Troubles:
    """Tracks the failed AWS calls of one fleet.

    Parameters
    ----------
    fleet : Fleet
        The fleet that makes the calls.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._emitted = ""
        self._outage: float | None = None
        self._refused: float | None = None
        self._failed = False

    @property
    def any(self) -> bool:
        """Whether a call has failed since the last poll without failures."""
        return bool(self._emitted)

    def begin_poll(self) -> None:
        """Note that a poll begins."""
        self._failed = False

    def end_poll(self) -> None:
        """Note that a poll has ended; if no call failed in it, an outage is over."""
        if self._failed:
            return
        if self._outage is not None:
            seconds = self._fleet.pool.aws.now() - self._outage
            self._fleet.emit(OutageEnded(pool=self._fleet.pool.name, seconds=seconds))
        if self._refused is not None:
            self._fleet.emit(CredentialsAccepted(pool=self._fleet.pool.name))
        self._emitted, self._outage, self._refused = "", None, None

    def note(self, error: StarburstError) -> None:
        """Emit a failed call once; fail the fleet if a retry cannot help."""
        self._failed = True
        now = self._fleet.pool.aws.now()
        if isinstance(error, CredentialsExpired | NoCredentials):
            self._credentials(error, now)
        elif faults.outage(error):
            self._emit(error, "outage" if self._outage is not None else str(error), outage=True)
            self._outage = now if self._outage is None else self._outage
        else:
            self._emit(error, str(error), outage=False)
        if self._starting() and isinstance(error, PermissionDenied):
            self._fleet.fail(error)

    async def reason(self, error: StarburstError, scheduler: Worker | None) -> StarburstError:
        """Return why the cluster ends: the reason in the scheduler's log, if the scheduler has ended it."""
        if scheduler is None or not scheduler.task:
            return error
        for n in range(_LOG_LATE if isinstance(error, LeaseExpired) else 1):
            await asyncio.sleep(min(n, 1))
            reason = shutdown_reason(await self._fleet.log_tail(scheduler, _LAST_WORDS))
            if reason is not None:
                return SchedulerFailed(f"the scheduler has ended the cluster: {reason}. Start a new one.")
        return error

    def _emit(self, error: StarburstError, key: str, *, outage: bool) -> None:
        """Emit an error once; in an outage, whose calls fail with different messages, only the first error."""
        if key != self._emitted and not (key == "outage" and self._emitted):
            self._fleet.emit(CallFailed(pool=self._fleet.pool.name, error=str(error), outage=outage))
            self._emitted = key

    def _credentials(self, error: StarburstError, now: float) -> None:
        """Reload the credentials and continue; close the cluster shortly before its lease ends."""
        fleet = self._fleet
        fleet.pool.aws.renew_credentials()
        if self._refused is None:
            self._refused = now
            fleet.emit(CredentialsRefused(pool=fleet.pool.name, error=str(error), lease=fleet.lease.until))
            self._emitted = str(error)
        if now >= fleet.lease.until - min(_LAST, fleet.lease.length / 4):
            text = f"{error} The cluster closes: its lease ends at {fleet.lease} and cannot be renewed."
            fleet.fail(CredentialsExpired(text, code=error.code, operation=error.operation))
        elif self._starting() and now - self._refused > _START:
            fleet.fail(error)

    def _starting(self) -> bool:
        scheduler = self._fleet.workers.get(SCHEDULER)
        return scheduler is not None and scheduler.state not in (WorkerState.READY, WorkerState.RETIRING)
