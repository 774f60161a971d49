"""The lease: AWS itself empties the pool unless somebody alive says otherwise."""

from __future__ import annotations

from datetime import UTC, datetime

from dask_starburst.errors import LeaseExpired
from dask_starburst.fleet.pool.pool import Pool

#: Renewed three times in its length, so that two failures in a row do no harm.
_RENEWALS = 3


class Lease:
    """Until when the pool may have capacity.

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

    async def renew(self, pool: Pool, now: float) -> bool:
        """Renew when a third of it has passed; whether it was.

        Not once the cluster is `closing`: should that fail, the lease ends what is left.

        Past its end AWS is asked how things are: the scheduler renews too, so the pool may well be
        there although this computer slept.

        Raises
        ------
        LeaseExpired
            It has run out and AWS has emptied the pool, or the pool is somebody else's by now.
        """
        if self.closing:
            return False
        if now >= self.until and not await pool.is_ours_and_open():
            raise LeaseExpired(
                "the lease ran out: this computer slept or had no network for longer than"
                f" {self.length:g} s, and the scheduler did not renew it either. AWS has emptied the pool;"
                " start a new cluster, with a longer lease= if it is to survive this."
            )
        if self.until - now > self.length * (1 - 1 / _RENEWALS):
            return False
        until = now + self.length
        await pool.renew(until)
        self.until = until
        return True

    def heard(self, until: float) -> None:
        """Take over the end of a lease that the scheduler has renewed."""
        self.until = max(self.until, until)

    def __str__(self) -> str:
        return datetime.fromtimestamp(self.until, UTC).strftime("%H:%M:%S UTC")
