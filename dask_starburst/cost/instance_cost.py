"""The cost of one instance: when it ran, at which prices, and how its time was used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from dask_starburst.catalog import Price
from dask_starburst.catalog.markets import Market
from dask_starburst.plan.money.budget import MINIMUM_SECONDS

#: A Spot instance that AWS interrupts in its first hour is free of charge; its address and its volume are not
#: (EC2 User Guide, "Billing for interrupted Spot Instances"; Linux other than SUSE).
_FREE = 3600.0

#: How an instance's time was used. ``scheduler``: all of the head's time. ``boot``: until its worker is up.
#: ``work``: its worker had tasks. ``idle``: its worker had none, or it had no worker. ``interrupted``: from the
#: notice that AWS interrupts it, or ECS drains it, to its end.
Cause = Literal["scheduler", "boot", "work", "idle", "interrupted"]
T = TypeVar("T")
#: A worker is ``up`` between ``boot`` and the end; the scheduler counts how much of that is work.
_Mark = Literal["scheduler", "boot", "up", "idle", "interrupted"]


@dataclass
class _Past:
    """Sums up to a time; later changes are kept one by one. None: from the start."""

    priced: float | None = None
    marked: float | None = None
    usd: float = 0.0
    live: bool = False
    seconds: defaultdict[_Mark, float] = field(default_factory=lambda: defaultdict(float))


@dataclass
class InstanceCost:
    """One instance. Times are seconds on any clock, the same for all; ``ended`` is None while it runs.

    ``taken``: whether AWS has interrupted it. ``prices``: each price with its start, as Spot prices change; None is an
    unknown price. Old changes are folded into sums: `settle`.
    """

    instance_type: str
    market: Market
    group: str
    started: float
    ended: float | None = None
    zone: str = ""
    taken: bool = False
    prices: list[tuple[float, Price | None]] = field(default_factory=list)
    marks: list[tuple[float, _Mark]] = field(default_factory=list)
    busy: float = 0.0
    _past: _Past = field(default_factory=_Past)

    def until(self, now: float) -> float:
        """Return the time up to which AWS bills it, at least a minute after its start."""
        return max(self.started + MINIMUM_SECONDS, now if self.ended is None else self.ended)

    def hours(self, now: float) -> float:
        """Return the hours that AWS bills up to `now`."""
        return (self.until(now) - self.started) / 3600

    def priced(self, now: float) -> Iterator[tuple[float, Price | None]]:
        """Return the billed hours at each price, without those folded into sums."""
        for seconds, price in _parts(self.prices, self._priced_from, self.until(now)):
            yield seconds / 3600, price

    def usd(self, now: float) -> float:
        """Return the cost of the instance in USD, without its address and its volume."""
        if self.taken and self.ended is not None and self.ended - self.started < _FREE:
            return 0.0
        return self._past.usd + _usd_of(self.priced(now))

    @property
    def _priced_from(self) -> float:
        return self.started if self._past.priced is None else self._past.priced

    @property
    def settled(self) -> bool:
        """Whether some changes have been folded into sums."""
        return self._past.priced is not None

    def settle(self, before: float) -> list[Price | None]:
        """Fold the changes before a time (seconds) into sums, and return their prices.

        On an instance that runs for months the Spot price may change every hour, and workers start and stop.
        """
        if before - self.started < _FREE:
            return []
        past = self._past
        marks, self.marks, past.marked = _cut(self.marks, self.started if past.marked is None else past.marked, before)
        for seconds, what in marks:
            past.seconds[what] += seconds
        parts, self.prices, begin = _cut(self.prices, self._priced_from, before)
        past.priced = begin if parts else past.priced
        past.usd += _usd_of((seconds / 3600, price) for seconds, price in parts)
        past.live = past.live or any(price is not None and price.kind == "live" for _, price in parts)
        return [price for _, price in parts]

    def reprice(self, price: Price | None, at: float) -> None:
        """Apply a price from the time that AWS gives, else from `at`; the first live price applies from the start."""
        known = self._past.live or any(p and p.kind == "live" for _, p in self.prices)
        if price is not None and price.kind == "live" and not known:
            self.prices = [(self._priced_from, price)]
        elif not self.prices or (self._is_billed_at(price) and _usd(self.prices[-1][1]) != _usd(price)):
            since = None if price is None or not self.prices else price.since
            self.prices.append((at if since is None else min(at, max(since, self.prices[-1][0])), price))

    def _is_billed_at(self, price: Price | None) -> bool:
        """Return whether a price applies before the end of the instance."""
        return self.ended is None or (price is not None and price.since is not None and price.since < self.ended)

    def mark(self, what: _Mark, at: float) -> None:
        """Set how its time is used from now on; an interrupted instance stays interrupted."""
        if not self.marks or self.marks[-1][1] not in (what, "interrupted", "scheduler"):
            self.marks.append((at, what))

    def shares(self, now: float) -> Mapping[Cause, float]:
        """Return the share of each cause in its time; the shares add up to 1."""
        marked, begin = self._past.seconds.copy(), self._past.marked
        for part, what in _parts(self.marks, self.started if begin is None else begin, self.until(now)):
            marked[what] += part
        seconds: defaultdict[Cause, float] = defaultdict(float)
        for what, part in marked.items():
            if what == "up":
                work = min(part, self.busy)
                seconds["work"] += work
                seconds["idle"] += part - work
            else:
                seconds[what] += part
        total = sum(seconds.values())
        return {cause: part / total for cause, part in seconds.items() if part}


def _parts(changes: list[tuple[float, T]], start: float, end: float) -> Iterator[tuple[float, T]]:
    """Cut the time from `start` to `end` at the changes; the first value applies from the start."""
    for number, (at, what) in enumerate(changes):
        begins = start if number == 0 else max(at, start)
        ends = changes[number + 1][0] if number + 1 < len(changes) else end
        if (seconds := min(ends, end) - begins) > 0:
            yield seconds, what


def _cut(
    changes: list[tuple[float, T]], start: float, before: float
) -> tuple[list[tuple[float, T]], list[tuple[float, T]], float]:
    """Return the parts that ended before a time (as `_parts`), the remaining changes, and the start of these."""
    count = max(0, sum(at <= before for at, _ in changes) - 1)
    if not count:
        return [], changes, start
    left = changes[count:]
    return list(_parts(changes[: count + 1], start, left[0][0])), left, left[0][0]


def _usd_of(parts: Iterable[tuple[float, Price | None]]) -> float:
    return sum(hours * price.usd_per_hour for hours, price in parts if price is not None)


def _usd(price: Price | None) -> float | None:
    return None if price is None else price.usd_per_hour
