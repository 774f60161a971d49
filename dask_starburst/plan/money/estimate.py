"""Estimate the time and cost of work, locally and on workers, from a timed sample."""

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

#: Scheduler overhead per task in seconds: "200 us to 1 ms" (Dask documentation, Best Practices), the upper end.
TASK_SECONDS = 0.001
#: Items above this number are not scheduled one by one but spread evenly.
_MOST = 20_000
#: Minimum speedup at which the cloud is recommended; below it, running locally is simpler.
_MIN_SPEEDUP = 1.3
#: Upper end of the search for the break-even number of items, and items scheduled one by one for each size.
_MOST_ITEMS, _ROUGHLY = 2**40, 500


@dataclass(frozen=True, slots=True)
class Way:
    """One way to do the work: number of threads, startup in seconds, and USD an hour."""

    name: str
    threads: int
    startup: float = 0.0
    usd_per_hour: float = 0.0
    workers: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """The result for one way: seconds including startup, and USD."""

    way: Way
    seconds: float
    usd: float


@dataclass(frozen=True, slots=True, repr=False)
class Estimate:
    """The estimated time and cost of work.

    Attributes
    ----------
    n : int
        Number of items.
    sample : tuple of float
        Local run time of each item of the sample, in seconds.
    rows : tuple of Row
        The ways to do the work, the local ones first.
    notes : tuple of str
        Assumptions of the estimate.
    worth_from : int or None
        Approximate number of items from which the cloud is recommended; None if it never is.
    """

    n: int
    sample: tuple[float, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)
    worth_from: int | None = None

    @property
    def here(self) -> Row:
        """The fastest local way."""
        return min((row for row in self.rows if not row.way.workers), key=lambda row: row.seconds)

    @property
    def fastest(self) -> Row:
        """The fastest way."""
        return min(self.rows, key=lambda row: (row.seconds, row.usd))

    @property
    def worth_it(self) -> bool:
        """Whether the cloud is fast enough to be recommended."""
        return _worth(self.rows)

    @property
    def verdict(self) -> str:
        """The recommendation, in a sentence."""
        here, best = self.here, self.fastest
        ratio = here.seconds / best.seconds
        later = "The cloud is never worth it for such items."
        if self.worth_from is not None:
            later = f"The cloud is worth it from about {float(f'{self.worth_from:.2g}'):,.0f} such items."
        if not best.way.workers:
            took = f"{here.way.name.removeprefix('here, ')} it takes {span(here.seconds)}"
            return f"Run it locally: {took}, and no cluster is faster, including its startup. {later}"
        if not self.worth_it:
            only = f"{best.way.name} would be only {ratio:.1f} times as fast, for ${best.usd:.4f}"
            return f"Run it locally: {only}. {later}"
        good = [row for row in self.rows if row.way.workers and row.seconds * _MIN_SPEEDUP <= here.seconds]
        cheap = min(good, key=lambda row: (row.usd, row.seconds))
        text = f"The cloud is worth it: with {best.way.name} it takes {span(best.seconds)} for ${best.usd:.4f},"
        text = f"{text} {ratio:.1f} times as fast as here"
        if cheap.way == best.way:
            return f"{text}."
        return f"{text}; the cheapest way is {cheap.way.name}, {span(cheap.seconds)} for ${cheap.usd:.4f}."

    @property
    def title(self) -> str:
        """The number of items and the timed sample."""
        seconds = self.sample
        spread = f" ({span(min(seconds))} to {span(max(seconds))})" if len(seconds) > 1 else ""
        return f"{self.n:,} items, {len(seconds)} timed here: {span(median(seconds))} each{spread}"

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
    return any(row.way.workers and here >= _MIN_SPEEDUP * row.seconds for row in rows)


def estimate(
    n: int, sample: Sequence[float], ways: Sequence[Way], *, speed: float = 1.0, notes: Sequence[str] = ()
) -> Estimate:
    """Estimate the time and cost of each way.

    Parameters
    ----------
    n : int
        Number of items.
    sample : sequence of float
        Local run times of some of them in seconds, run one after another.
    ways : sequence of Way
        The ways to compare.
    speed : float
        Speed of a worker thread relative to a local one.
    notes : sequence of str
        Additional notes.
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
    """Return the approximate first number for which `true` holds, by bisection."""
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
    """Return the USD an hour of the same cluster with another number of workers.

    Parameters
    ----------
    quote : Quote
        A quote with at least one worker.
    workers : int
        Number of workers.
    """
    (line,) = (line for line in quote.lines if line.what == "workers")
    extra = PUBLIC_IPV4_HOUR + EBS_GP3_GB_MONTH * quote.spec.volume_gb / HOURS_A_MONTH
    return quote.usd_per_hour + (workers - line.count) * (line.usd / line.count + extra)


def makespan(n: int, sample: Sequence[float], threads: int, most: int = _MOST) -> float:
    """Return the seconds until the last of `n` items is done, if each free thread takes the next item.

    The items take the times of the sample in turn, so a slow item at the end counts in full.
    """
    busy = [0.0] * min(threads, n)
    placed = min(n, max(most, threads))
    for seconds in islice(cycle(sample), placed):
        heapq.heapreplace(busy, busy[0] + seconds)
    return max(busy, default=0.0) + (n - placed) * mean(sample) / threads


def span(seconds: float) -> str:
    """Format a duration."""
    if seconds < 1:
        return f"{seconds * 1e6:.3g} µs" if seconds < 0.001 else f"{seconds * 1000:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{round(seconds) // 60} min {round(seconds) % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60:,} h {minutes % 60} min"
