"""Spot prices of the embedded AWS: the bundled catalogue's, times the factor of a fault."""

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
    """The price history of Spot pools.

    Parameters
    ----------
    now : callable
        The virtual time, in seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._changes: list[_Change] = []

    def change(self, choice: Choice, times: float) -> None:
        """Multiply the prices of matching pools by `times` from now on."""
        self._changes.append(_Change(self._now(), choice, times))

    def clear(self) -> None:
        """Restore the assumed prices from now on."""
        if self._changes:
            self.change(Choice(), 1.0)

    def of(self, pool: Pool, at: float | None = None) -> float:
        """Return the USD an hour of a pool at a time, by default now. On-demand prices are constant."""
        moment = self._now() if at is None else at
        changes = [one.times for one in self._changes if one.at <= moment and one.choice.matches(pool)]
        return pool.price * (changes[-1] if changes and pool.market == "spot" else 1.0)

    def changed(self, start: float, end: float) -> list[float]:
        """Return the times of price changes in a range."""
        return sorted({one.at for one in self._changes if start <= one.at <= end})
