"""How long work would take and what it would cost, here and on workers, by what a sample of it took."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import cycle, islice
from statistics import mean, median

from dask_starburst.catalog import EBS_GP3_GB_MONTH, PUBLIC_IPV4_HOUR
from dask_starburst.plan.money.budget import MINIMUM_SECONDS
from dask_starburst.plan.money.quote import HOURS_A_MONTH, Quote

#: Seconds of the one scheduler for each task: "200 us to 1 ms" (Dask documentation, Best Practices), the worse of it.
TASK_SECONDS = 0.001
#: More items than these are not scheduled one by one: what is over is spread evenly.
_MOST = 20_000
#: The cloud is worth it when it is so many times as fast; below that a computer of one's own is less trouble.
_WORTH = 1.3
#: Where the cloud begins to be worth it is looked for among so many items, each size scheduled this finely.
_MOST_ITEMS, _ROUGHLY = 2**40, 500


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
    worth_from : int or None
        From about how many such items on the cloud is worth it; None if it never is.
    """

    n: int
    sample: tuple[float, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)
    worth_from: int | None = None

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
        return _worth(self.rows)

    @property
    def verdict(self) -> str:
        """What to do, in a sentence."""
        here, best = self.here, self.fastest
        ratio = here.seconds / best.seconds
        later = "With such items it never is worth it."
        if self.worth_from is not None:
            later = f"It is worth it from about {float(f'{self.worth_from:.2g}'):,.0f} such items on."
        if not best.way.workers:
            took = f"{here.way.name.removeprefix('here, ')} it takes {span(here.seconds)}"
            return f"Stay here: {took}, and no cluster is faster, its start included. {later}"
        if not self.worth_it:
            only = f"with {best.way.name} it would be only {ratio:.1f} times as fast, for ${best.usd:.4f}"
            return f"Stay here: {only}. {later}"
        good = [row for row in self.rows if row.way.workers and row.seconds * _WORTH <= here.seconds]
        cheap = min(good, key=lambda row: (row.usd, row.seconds))
        text = f"The cloud is worth it: with {best.way.name} it takes {span(best.seconds)} for ${best.usd:.4f},"
        text = f"{text} {ratio:.1f} times as fast as here"
        if cheap.way == best.way:
            return f"{text}."
        return f"{text}; cheapest with {cheap.way.name}, {span(cheap.seconds)} for ${cheap.usd:.4f}."

    @property
    def title(self) -> str:
        """What was tried."""
        seconds = self.sample
        spread = f" ({span(min(seconds))} to {span(max(seconds))})" if len(seconds) > 1 else ""
        return f"{self.n:,} items, {len(seconds)} tried here: {span(median(seconds))} each{spread}"

    def __repr__(self) -> str:
        width = max(len(row.way.name) for row in self.rows)
        lines = [f"  {name:<{width}}  {took:>13}  {costs}".rstrip() for name, took, costs in _cells(self.rows)]
        return "\n".join([self.title, *lines, self.verdict, *(f"- {note}" for note in self.notes)])

    def _repr_html_(self) -> str:
        rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in _cells(self.rows))
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f"<div><p>{escape(self.title)}</p><table><tr><th></th><th>takes</th><th>costs</th></tr>{rows}</table>"
            f"<p><b>{escape(self.verdict)}</b></p><ul>{notes}</ul></div>"
        )


def _cells(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    return [(row.way.name, span(row.seconds), f"${row.usd:.4f}" if row.way.workers else "") for row in rows]


def _worth(rows: Sequence[Row]) -> bool:
    here = min(row.seconds for row in rows if not row.way.workers)
    return any(row.way.workers and here >= _WORTH * row.seconds for row in rows)


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
    rows = _rows(n, sample, ways, speed, _MOST)
    worth_from = _first(lambda items: _worth(_rows(items, sample, ways, speed, _ROUGHLY)))
    return Estimate(n, tuple(sample), rows, tuple(notes), worth_from)


def _rows(n: int, sample: Sequence[float], ways: Sequence[Way], speed: float, most: int) -> tuple[Row, ...]:
    return tuple(_row(n, sample, way, speed, most) for way in ways)


def _row(n: int, sample: Sequence[float], way: Way, speed: float, most: int) -> Row:
    if not way.workers:
        return Row(way, makespan(n, sample, way.threads, most), 0.0)
    work = makespan(n, [seconds / speed for seconds in sample], way.threads, most)
    seconds = way.startup + max(work, n * TASK_SECONDS)
    return Row(way, seconds, way.usd_per_hour * max(MINIMUM_SECONDS, seconds) / 3600)


def _first(true: Callable[[int], bool]) -> int | None:
    """Return about the first number from which on something is true, by halving."""
    high = 1
    while not true(high):
        if high >= _MOST_ITEMS:
            return None
        high *= 2
    low = high // 2
    while high - low > max(1, high // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if true(middle) else (middle, high)
    return high


def per_hour(quote: Quote, workers: int) -> float:
    """Return what a cluster of the same kind costs an hour with another number of workers, in USD.

    Parameters
    ----------
    quote : Quote
        With one worker at least.
    workers : int
        That number.
    """
    (line,) = (line for line in quote.lines if line.what == "workers")
    extra = PUBLIC_IPV4_HOUR + EBS_GP3_GB_MONTH * quote.spec.volume_gb / HOURS_A_MONTH
    return quote.usd_per_hour + (workers - line.count) * (line.usd / line.count + extra)


def makespan(n: int, sample: Sequence[float], threads: int, most: int = _MOST) -> float:
    """Return the seconds until the last of `n` items is done, when each thread takes the next one that is left.

    The items last as long as those of the sample, in turn; so the last one of a slow kind counts as it does in life.
    """
    busy = [0.0] * min(threads, n)
    placed = min(n, max(most, threads))
    for seconds in islice(cycle(sample), placed):
        heapq.heapreplace(busy, busy[0] + seconds)
    return max(busy, default=0.0) + (n - placed) * mean(sample) / threads


def span(seconds: float) -> str:
    """Write a time for people."""
    if seconds < 1:
        return f"{seconds * 1e6:.3g} µs" if seconds < 0.001 else f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"
