"""What Spot costs in the embedded AWS: what the bundled catalogue assumes, times what the weather says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dask_starburst.local.services.ec2.capacity_pools import Choice, Pool


@dataclass(frozen=True)
class _Change:
    at: float
    choice: Choice
    times: float


class SpotPrices:
    """The prices of Spot pools at all times.

    Parameters
    ----------
    now : callable
        The virtual time, in seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._changes: list[_Change] = []

    def change(self, choice: Choice, times: float) -> None:
        """Let some pools cost so many times what is assumed, from now on."""
        self._changes.append(_Change(self._now(), choice, times))

    def clear(self) -> None:
        """Let all of them cost what is assumed again, from now on."""
        if self._changes:
            self.change(Choice(), 1.0)

    def of(self, pool: Pool, at: float | None = None) -> float:
        """Return USD an hour of any pool at a time, by default now; on demand costs the same always."""
        moment = self._now() if at is None else at
        changes = [one.times for one in self._changes if one.at <= moment and one.choice.takes(pool)]
        return pool.price * (changes[-1] if changes and pool.market == "spot" else 1.0)

    def changed(self, start: float, end: float) -> list[float]:
        """Return when any price has changed within a range."""
        return sorted({one.at for one in self._changes if start <= one.at <= end})
