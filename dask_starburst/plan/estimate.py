"""How long work would take and what it would cost, here and on workers, by what a sample of it took."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from statistics import mean, median

from dask_starburst.plan.budget import MINIMUM_SECONDS

#: More items than these are not scheduled one by one: what is over is spread evenly.
_MOST = 20_000
#: The cloud is worth it when it is so many times as fast; below that a computer of one's own is less trouble.
_WORTH = 1.3


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do the work: on so many threads, after so many seconds of start-up, at USD an hour."""

    name: str
    threads: int
    startup: float = 0.0
    usd_per_hour: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """What one way comes to: seconds with its start-up, and USD."""

    way: Way
    seconds: float
    usd: float


@dataclass(frozen=True, slots=True, repr=False)
class Estimate:
    """What work would take.

    Attributes
    ----------
    n : int
        How many items there are.
    sample : tuple of float
        Seconds that each item of the sample took here.
    rows : tuple of Row
        The ways to do it, here first.
    notes : tuple of str
        What it was reckoned with.
    """

    n: int
    sample: tuple[float, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def here(self) -> Row:
        """The fastest way without a cloud."""
        return min((row for row in self.rows if not row.way.workers), key=lambda row: row.seconds)

    @property
    def fastest(self) -> Row:
        """The fastest way."""
        return min(self.rows, key=lambda row: (row.seconds, row.usd))

    @property
    def worth_it(self) -> bool:
        """Whether the cloud is so much faster that it is worth its trouble."""
        return self.fastest.way.workers > 0 and self.here.seconds >= _WORTH * self.fastest.seconds

    @property
    def verdict(self) -> str:
        """What to do, in a sentence."""
        here, best = self.here, self.fastest
        if not best.way.workers:
            return (
                f"Stay here: {here.way.name} takes {span(here.seconds)}, and no cluster is faster, its start included."
            )
        ratio = here.seconds / best.seconds
        if not self.worth_it:
            return f"Stay here: with {best.way.name} it would be only {ratio:.1f} times as fast, for ${best.usd:.4f}."
        good = [row for row in self.rows if row.way.workers and row.seconds * _WORTH <= here.seconds]
        cheap = min(good, key=lambda row: (row.usd, row.seconds))
        text = f"The cloud is worth it: with {best.way.name} it takes {span(best.seconds)} for ${best.usd:.4f},"
        text = f"{text} {ratio:.1f} times as fast as here"
        if cheap.way == best.way:
            return f"{text}."
        return f"{text}; cheapest with {cheap.way.name}, {span(cheap.seconds)} for ${cheap.usd:.4f}."

    def __repr__(self) -> str:
        width = max(len(row.way.name) for row in self.rows)
        lines = [
            f"{self.n} items, {len(self.sample)} tried here: {median(self.sample):.3g} s each"
            f" ({min(self.sample):.3g} to {max(self.sample):.3g})"
        ]
        for row in self.rows:
            money = f"  ${row.usd:.4f}" if row.way.workers else ""
            lines.append(f"  {row.way.name:<{width}}  {span(row.seconds):>10}{money}")
        return "\n".join([*lines, self.verdict, *self.notes])


def estimate(
    n: int, sample: Sequence[float], ways: Sequence[Way], *, speed: float = 1.0, notes: Sequence[str] = ()
) -> Estimate:
    """Reckon what each way would take.

    Parameters
    ----------
    n : int
        Items.
    sample : sequence of float
        Seconds that some of them took here, one after another.
    ways : sequence of Way
        Those with workers are `speed` times as fast a thread as here.
    speed : float
        See there.
    notes : sequence of str
        What to say besides.
    """
    rows = []
    for way in ways:
        pace = speed if way.workers else 1.0
        work = makespan(n, [seconds / pace for seconds in sample], way.threads)
        seconds = way.startup + work
        usd = way.usd_per_hour * max(MINIMUM_SECONDS, seconds) / 3600 if way.workers else 0.0
        rows.append(Row(way, seconds, usd))
    return Estimate(n, tuple(sample), tuple(rows), tuple(notes))


def makespan(n: int, sample: Sequence[float], threads: int) -> float:
    """Return the seconds until the last of `n` items is done, when each thread takes the next one that is left.

    The items last as long as those of the sample, in turn; so the last one of a slow kind counts as it does in life.
    """
    busy = [0.0] * min(threads, n)
    placed = min(n, _MOST)
    for seconds in islice(cycle(sample), placed):
        heapq.heapreplace(busy, busy[0] + seconds)
    return max(busy, default=0.0) + (n - placed) * mean(sample) / threads


def span(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
