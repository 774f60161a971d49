"""The account of one instance: when it ran, at which prices, and what it did meanwhile."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
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
class Account:
    """One instance. Times are seconds on any clock, the same for all; ``ended`` is None while it runs.

    ``taken``: whether AWS has interrupted it. ``price`` may change while it runs, as Spot does: ``prices`` holds from
    when on which was asked for. None: nobody knows its price.
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

    def until(self, now: float) -> float:
        """Return the moment up to which AWS bills it: a minute after its start at the least."""
        return max(self.started + MINIMUM_SECONDS, now if self.ended is None else self.ended)

    def hours(self, now: float) -> float:
        """Return the hours that AWS bills up to `now`."""
        return (self.until(now) - self.started) / 3600

    def priced(self, now: float) -> Iterator[tuple[float, Price | None]]:
        """Return the billed hours at each price."""
        for seconds, price in _parts(self.prices, self.started, self.until(now)):
            yield seconds / 3600, price

    def usd(self, now: float) -> float:
        """Return what the instance alone has cost: neither its address nor its volume."""
        if self.taken and self.ended is not None and self.ended - self.started < _FREE:
            return 0.0
        return sum(hours * price.usd_per_hour for hours, price in self.priced(now) if price is not None)

    def reprice(self, price: Price | None, at: float) -> None:
        """Count at another price from when AWS says that it holds, else from `at`; AWS's first word from the start."""
        if price is not None and price.kind == "live" and not any(p and p.kind == "live" for _, p in self.prices):
            self.prices = [(self.started, price)]
        elif not self.prices or (self.ended is None and _usd(self.prices[-1][1]) != _usd(price)):
            since = None if price is None or not self.prices else price.since
            self.prices.append((at if since is None else min(at, max(since, self.prices[-1][0])), price))

    def mark(self, what: _Mark, at: float) -> None:
        """Say what its time goes into from now on; what is interrupted stays so."""
        if not self.marks or self.marks[-1][1] not in (what, "interrupted", "scheduler"):
            self.marks.append((at, what))

    def shares(self, now: float) -> Mapping[Cause, float]:
        """Return which part of its time went into what; they add up to 1."""
        seconds: defaultdict[Cause, float] = defaultdict(float)
        for part, what in _parts(self.marks, self.started, self.until(now)):
            if what == "up":
                work = min(part, self.busy - seconds["work"])
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


def _usd(price: Price | None) -> float | None:
    return None if price is None else price.usd_per_hour
