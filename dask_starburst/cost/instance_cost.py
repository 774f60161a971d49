"""The account of one instance: when it ran, at which prices, and what it did meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from dask_starburst.catalog import Price
from dask_starburst.plan.money.budget import MINIMUM_SECONDS

#: A Spot instance that AWS interrupts in its first hour is not charged, though its address and its volume are
#: (EC2 User Guide, "Billing for interrupted Spot Instances"; Linux other than SUSE).
_FREE = 3600.0

Market = Literal["spot", "on-demand"]
#: What an instance's time went into. ``scheduler``: the head's, all of it. ``boot``: until its worker is up.
#: ``work``: its worker had tasks. ``idle``: it had none, or there was no worker on it. ``interrupted``: from the
#: moment at which it was known that AWS takes it, or ECS drains it, to its end.
Cause = Literal["scheduler", "boot", "work", "idle", "interrupted"]
T = TypeVar("T")
#: Between ``boot`` and the end a worker is ``up``: what of that is work, the scheduler counts.
_Mark = Literal["scheduler", "boot", "up", "idle", "interrupted"]


@dataclass
class _Past:
    """Sums of what was before a time, from which on the changes themselves are kept; None: from the start."""

    priced: float | None = None
    marked: float | None = None
    usd: float = 0.0
    live: bool = False
    seconds: defaultdict[_Mark, float] = field(default_factory=lambda: defaultdict(float))


@dataclass
class InstanceCost:
    """One instance. Times are seconds on any clock, the same for all; ``ended`` is None while it runs.

    ``taken``: whether AWS has interrupted it. ``price`` may change while it runs, as Spot does: ``prices`` holds from
    when on which was asked for. None: nobody knows its price. What is long over is only summed up: `settle`.
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
        """Return the moment up to which AWS bills it: a minute after its start at the least."""
        return max(self.started + MINIMUM_SECONDS, now if self.ended is None else self.ended)

    def hours(self, now: float) -> float:
        """Return the hours that AWS bills up to `now`."""
        return (self.until(now) - self.started) / 3600

    def priced(self, now: float) -> Iterator[tuple[float, Price | None]]:
        """Return the billed hours at each price, as far as they are not summed up."""
        for seconds, price in _parts(self.prices, self._priced_from, self.until(now)):
            yield seconds / 3600, price

    def usd(self, now: float) -> float:
        """Return what the instance alone has cost: neither its address nor its volume."""
        if self.taken and self.ended is not None and self.ended - self.started < _FREE:
            return 0.0
        return self._past.usd + _usd_of(self.priced(now))

    @property
    def _priced_from(self) -> float:
        return self.started if self._past.priced is None else self._past.priced

    @property
    def settled(self) -> bool:
        """Whether some of it is only summed up."""
        return self._past.priced is not None

    def settle(self, before: float) -> list[Price | None]:
        """Sum up what was before a time (seconds), of which nothing new is heard any more; return its prices.

        A Spot price may change every hour, and workers come and go, on an instance that lives for months.
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
        """Count at another price from when AWS says that it holds, else from `at`; AWS's first word from the start."""
        known = self._past.live or any(p and p.kind == "live" for _, p in self.prices)
        if price is not None and price.kind == "live" and not known:
            self.prices = [(self._priced_from, price)]
        elif not self.prices or (self.ended is None and _usd(self.prices[-1][1]) != _usd(price)):
            since = None if price is None or not self.prices else price.since
            self.prices.append((at if since is None else min(at, max(since, self.prices[-1][0])), price))

    def mark(self, what: _Mark, at: float) -> None:
        """Say what its time goes into from now on; what is interrupted stays so."""
        if not self.marks or self.marks[-1][1] not in (what, "interrupted", "scheduler"):
            self.marks.append((at, what))

    def shares(self, now: float) -> Mapping[Cause, float]:
        """Return which part of its time went into what; they add up to 1."""
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
    """Cut the time from `start` to `end` where something changes; what is first counts from the start."""
    for number, (at, what) in enumerate(changes):
        begins = start if number == 0 else max(at, start)
        ends = changes[number + 1][0] if number + 1 < len(changes) else end
        if (seconds := min(ends, end) - begins) > 0:
            yield seconds, what


def _cut(
    changes: list[tuple[float, T]], start: float, before: float
) -> tuple[list[tuple[float, T]], list[tuple[float, T]], float]:
    """Return what is over before a time, in parts as `_parts` does; the changes that are left; and their start."""
    count = max(0, sum(at <= before for at, _ in changes) - 1)
    if not count:
        return [], changes, start
    left = changes[count:]
    return list(_parts(changes[: count + 1], start, left[0][0])), left, left[0][0]


def _usd_of(parts: Iterable[tuple[float, Price | None]]) -> float:
    return sum(hours * price.usd_per_hour for hours, price in parts if price is not None)


def _usd(price: Price | None) -> float | None:
    return None if price is None else price.usd_per_hour
