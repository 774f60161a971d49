"""Handle failed AWS calls: emit each once, retry, and fail only when a retry cannot help."""

from __future__ import annotations

import asyncio

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
from dask_starburst.events.stream import Emit
from dask_starburst.fleet.capacity.interface import Capacity
from dask_starburst.fleet.controller.narrator import Fail
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.plan.loop.state import Worker, WorkerState
from dask_starburst.plan.scheduler.shutdown_rules import shutdown_reason

#: A start with refused credentials is given up after this many seconds, because the user waits for it.
_START = 30.0
#: The number of last lines of the scheduler's log that may hold its reason to end.
_LAST_WORDS = 100
#: Seconds until a log line is surely in CloudWatch: Docker's log driver sends every five seconds (its source).
_LOG_LATE = 8
#: A cluster whose client has no valid credentials closes this many seconds before its lease ends.
_LAST = 60.0


class Troubles:
    """Tracks the failed AWS calls of one controller.

    Parameters
    ----------
    roster : Roster
        The workers.
    capacity : Capacity
        The platform that the calls go to.
    lease : Lease
        Its end is the end of a cluster whose client has no valid credentials.
    emit : callable
        Emits an event.
    fail : callable
        Closes the cluster because of an error.
    """

    def __init__(self, roster: Roster, capacity: Capacity, lease: Lease, emit: Emit, fail: Fail) -> None:
        self._roster = roster
        self._capacity = capacity
        self._lease = lease
        self._emit_event = emit
        self._fail = fail
        self._emitted: set[str] = set()
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
            seconds = self._roster.clock() - self._outage
            self._emit_event(OutageEnded(pool=self._capacity.name, seconds=seconds))
        if self._refused is not None:
            self._emit_event(CredentialsAccepted(pool=self._capacity.name))
        self._emitted, self._outage, self._refused = set(), None, None

    def note(self, error: StarburstError) -> None:
        """Emit a failed call once; close the cluster if a retry cannot help."""
        self._failed = True
        now = self._roster.clock()
        if isinstance(error, CredentialsExpired | NoCredentials):
            self._credentials(error, now)
        elif faults.outage(error):
            self._emit(error, outage=True)
            self._outage = now if self._outage is None else self._outage
        else:
            self._emit(error, outage=False)
        if self._starting() and isinstance(error, PermissionDenied):
            self._fail(error)

    async def reason(self, error: StarburstError, scheduler: Worker | None) -> StarburstError:
        """Return why the cluster ends: the reason in the scheduler's log, if the scheduler has ended it."""
        if scheduler is None or not scheduler.task:
            return error
        for n in range(_LOG_LATE if isinstance(error, LeaseExpired) else 1):
            await asyncio.sleep(min(n, 1))
            reason = shutdown_reason(await self._capacity.explain(scheduler, _LAST_WORDS))
            if reason is not None:
                return SchedulerFailed(f"the scheduler has ended the cluster: {reason}. Start a new one.")
        return error

    def _emit(self, error: StarburstError, *, outage: bool) -> None:
        """Emit each error once; in an outage, whose calls fail with different messages, only the first error."""
        if str(error) in self._emitted or (outage and self._outage is not None):
            return
        self._emitted.add(str(error))
        self._emit_event(CallFailed(pool=self._capacity.name, error=str(error), outage=outage))

    def _credentials(self, error: StarburstError, now: float) -> None:
        """Reload the credentials and continue; close the cluster shortly before its lease ends."""
        lease = self._lease
        self._capacity.renew_credentials()
        if self._refused is None:
            self._refused = now
            self._emit_event(CredentialsRefused(pool=self._capacity.name, error=str(error), lease=lease.until))
            self._emitted.add(str(error))
        if now >= lease.until - min(_LAST, lease.length / 4):
            text = f"{error} The cluster closes: its lease ends at {lease} and cannot be renewed."
            self._fail(CredentialsExpired(text, code=error.code, operation=error.operation))
        elif self._starting() and now - self._refused > _START:
            self._fail(error)

    def _starting(self) -> bool:
        scheduler = self._roster.scheduler
        return scheduler is not None and scheduler.state not in (WorkerState.READY, WorkerState.RETIRING)
