"""The lease: AWS empties the pool unless the client or the scheduler renews it."""

from __future__ import annotations

from typing import Protocol

from dask_starburst.errors import LeaseExpired
from dask_starburst.events.event import clock

#: The lease is renewed three times in its length, so that it survives two failures in a row.
_RENEWALS = 3


class Leased(Protocol):
    """What a lease is for: capacity that AWS removes at its end."""

    async def renew(self, until: float) -> None:
        """Extend the lease."""

    async def is_claimed_and_open(self) -> bool:
        """Whether this session still holds the pool, and it may have capacity."""


class Lease:
    """The time until which the pool may have capacity.

    Parameters
    ----------
    length : float
        Seconds.
    now : float
        Seconds since the epoch, AWS's clock.
    """

    def __init__(self, length: float, now: float) -> None:
        self.length = length
        self.closing = False
        self.until = now + length

    async def renew(self, pool: Leased, now: float) -> bool:
        """Renew the lease when a third of it has passed; return whether it was renewed.

        It is not renewed while the cluster is `closing`: if closing fails, the lease terminates what is left.

        After its end, ask AWS whether the pool still exists: the scheduler renews the lease too, also while this
        computer sleeps.

        Raises
        ------
        LeaseExpired
            The lease has expired and AWS has emptied the pool, or another session has claimed the pool.
        """
        if self.closing:
            return False
        if now >= self.until and not await pool.is_claimed_and_open():
            raise LeaseExpired(
                "the lease expired: this computer slept or had no network for longer than"
                f" {self.length:g} s, and the scheduler did not renew it either. AWS has emptied the pool;"
                " start a new cluster. A longer keep.lease survives longer sleep."
            )
        if not self.is_due(now):
            return False
        until = now + self.length
        await pool.renew(until)
        self.until = until
        return True

    def is_due(self, now: float) -> bool:
        """Whether a third of it has passed."""
        return self.until - now <= self.length * (1 - 1 / _RENEWALS)

    def extend(self, until: float) -> None:
        """Extend to the time until which the scheduler has renewed the lease."""
        self.until = max(self.until, until)

    def __str__(self) -> str:
        return clock(self.until)
