"""Trying some of the work here, to say what all of it would take on workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from dask.sizeof import sizeof
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from dask_starburst.cluster.quote import quote
from dask_starburst.cost.record import Record, load_records
from dask_starburst.errors import BadArgument
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.plan.loop.adaptive import Patience
from dask_starburst.plan.money.estimate import TASK_SECONDS, Estimate, Way, per_hour
from dask_starburst.plan.money.estimate import estimate as reckon
from dask_starburst.settings import Settings

#: Seconds after which no further item of a sample is tried.
_LONG_ENOUGH = 30.0
#: How many workers are reckoned with where nobody says it.
WORKERS = (1, 10, 50)
#: So many of the clusters that were closed last on this computer say how long a boot takes.
_LAST = 10
#: A sample of fewer items says little of how much they differ.
_FEW = 5
#: Bytes of all items and results from which on moving them is worth a word.
_MUCH = 100e6


@dataclass(frozen=True, slots=True)
class Tried:
    """What the items of a sample took, in seconds, and the bytes of an item with its result."""

    seconds: tuple[float, ...]
    item_bytes: float


def estimate(
    fn: Callable[[Any], Any],
    sample: Iterable[Any],
    n: int,
    *,
    workers: int | Sequence[int] = WORKERS,
    startup: float | None = None,
    speed: float = 1.0,
    **settings: Any,
) -> Estimate:
    """Run a sample here, and say what all of the work would take and cost on 1, 10 and 50 workers, and whether at all.

    Nothing is launched. It is about work that consists of independent items, as in ``client.map(fn, items)``; moving
    data, and what workers say to each other, is not in it. With credentials AWS is asked for prices and quotas, once;
    without, the bundled prices count.

    Parameters
    ----------
    fn : callable
        What is done with each item.
    sample : iterable
        Some of the items, typical ones; they are tried one after another, until 30 s are over.
    n : int
        How many items there are in all.
    workers : int or sequence of int, optional
        The sizes of the cluster to reckon with.
    startup : float, optional
        Seconds from ``StarburstCluster()`` to the first worker. By default what boots took of the last clusters that
        ran on AWS and were closed on this computer; without any 90 s, which is assumed.
    speed : float, optional
        How many times as fast as here a thread of a worker is. Nobody knows it before it is measured; 1 by default.
    **settings
        Arguments of :class:`.StarburstCluster`, such as ``arch`` or ``spot_policy``.

    Returns
    -------
    Estimate
        Its repr is for people, its ``rows`` are for programs.

    Raises
    ------
    BadArgument
        The sample is empty, larger than `n`, or a number makes no sense.

    Examples
    --------
    >>> estimate(len, ["a", "b"], 1000)  # doctest: +SKIP
    """
    items, sizes = list(sample), (workers,) if isinstance(workers, int) else tuple(workers)
    _check(items, n, sizes, startup, speed)
    if "n_workers" in settings:
        raise BadArgument(f"n_workers={settings['n_workers']!r}: give the sizes to reckon with as workers=(1, 10, 50).")
    threads = blueprint(Settings.load(**settings), "").size.nthreads
    tried = try_out(fn, items)
    plan = quote(**{**settings, "n_workers": max(sizes)})
    boot, whence = start_of(load_records()) if startup is None else (startup, "as given")
    ways = [
        Way("here, one after another", 1),
        Way(f"here, on {CPU_COUNT} cores", CPU_COUNT),
        *(
            Way(f"{count} worker{'' if count == 1 else 's'}", count * threads, boot, per_hour(plan, count), count)
            for count in sizes
        ),
    ]
    notes = [
        f"Workers of {threads} thread{'' if threads == 1 else 's'}, {plan.spec.types[0]} in {plan.where};"
        f" {plan.sources}.",
        f"Start-up {boot:.3g} s, {whence}.",
        f"A thread there is taken to be {f'{speed:g} times ' if speed != 1.0 else ''}as fast as one here,"
        f" {'assumed: speed= says otherwise' if speed == 1.0 else 'as given'}.",
        *_cautions(tried, n, threads, max(sizes), speed),
        *(f"{fact[0].upper()}{fact[1:].removesuffix('.')}." for fact in plan.facts),
        *([f"{max(sizes)} workers would be refused: {plan.refusal}"] if plan.refusal else []),
    ]
    return reckon(n, tried.seconds, ways, speed=speed, notes=notes)


def start_of(records: Iterable[Record]) -> tuple[float, str]:
    """Return how many seconds a cluster takes to start, and how we know.

    Parameters
    ----------
    records : iterable of Record
        Of clusters that are closed, the newest first. What ran on the embedded AWS says nothing of AWS.
    """
    startups = [record.boot_seconds for record in records if record.boot_seconds and not record.simulated][:_LAST]
    if startups:
        some = f"median of your last {len(startups)} clusters" if len(startups) > 1 else "by your last cluster"
        return median(startups), f"measured: {some}"
    return Patience().boot, (
        "assumed, as no cluster of yours was measured: 20 to 50 instances took 75 to 105 s in the runs of staRburst"
        " on AWS in July 2026"
    )


def try_out(fn: Callable[[Any], Any], items: Sequence[Any]) -> Tried:
    """Try as many items as are done before it has been long enough, one at least."""
    seconds: list[float] = []
    sizes: list[int] = []
    for number, item in enumerate(items):
        before = time.perf_counter()
        try:
            result = fn(item)
        except Exception as error:  # whatever the user's own function raises is the user's to see, with the item
            error.add_note(f"estimate() was trying item {number} of the sample: {item!r:.80}")
            raise
        seconds.append(time.perf_counter() - before)
        sizes.append(sizeof(item) + sizeof(result))
        if sum(seconds) >= _LONG_ENOUGH:
            break
    return Tried(tuple(seconds), mean(sizes))


def _cautions(tried: Tried, n: int, threads: int, workers: int, speed: float) -> list[str]:
    """Return what would make the numbers wrong, as far as the sample shows it."""
    said, seconds = [], tried.seconds
    if threads > 1:
        said.append(
            f"A worker is taken to do {threads} items at a time. Pure Python does not, for it holds the interpreter"
            ' lock: for that ask with worker={"nthreads": 1}.'
        )
    if mean(seconds) / speed < TASK_SECONDS * threads * workers:
        said.append(
            f"Dask's one scheduler needs up to {TASK_SECONDS * 1000:g} ms for each item, and with {workers} workers"
            " that is what takes the time: let one call do many items."
        )
    if n * tried.item_bytes > _MUCH:
        said.append(
            f"Items and results are {format_bytes(int(n * tried.item_bytes))} in all; moving them is not counted."
        )
    if len(seconds) < _FEW:
        said.append(
            f"{len(seconds)} tried {'say' if len(seconds) > 1 else 'says'} little of how much the items differ."
        )
    elif seconds[0] > 3 * median(seconds[1:]):
        said.append("The first took the longest by far: if that was an import, call the function once before.")
    return said


def _check(items: Sequence[Any], n: int, workers: Sequence[Any], startup: float | None, speed: float) -> None:
    if not items:
        raise BadArgument("the sample is empty; give some typical items of the work.")
    if n < len(items):
        raise BadArgument(f"n={n} is less than the {len(items)} items of the sample; give the number of all items.")
    if not workers or any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in workers):
        raise BadArgument(f"workers={tuple(workers)!r}: give numbers of workers from 1 on, such as (1, 10, 50).")
    if startup is not None and startup < 0:
        raise BadArgument(f"startup={startup:g} s is negative.")
    if speed <= 0:
        raise BadArgument(f"speed={speed:g} has to be above zero; 1 is as fast as here.")
