"""Run a sample of the work here, to estimate what all of it would take on workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any, Unpack

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
from dask_starburst.settings import Arguments, Settings, shows_settings

#: Seconds after which no further item of a sample is run.
_SAMPLE_SECONDS = 30.0
#: The default numbers of workers to estimate for.
WORKERS = (1, 10, 50)
#: The startup time is the median over this number of clusters that were closed last on this computer.
_LAST = 10
#: A sample of fewer items says little about their variation.
_FEW = 5
#: Bytes of all items and results above which a note mentions their transfer.
_MUCH = 100e6


@dataclass(frozen=True, slots=True)
class SampleRun:
    """The run times of a sample's items in seconds, and the mean bytes of an item with its result."""

    seconds: tuple[float, ...]
    item_bytes: float


@shows_settings
def estimate(
    fn: Callable[[Any], Any],
    sample: Iterable[Any],
    n: int,
    *,
    workers: int | Sequence[int] = WORKERS,
    startup: float | None = None,
    speed: float = 1.0,
    **settings: Unpack[Arguments],
) -> Estimate:
    """Run a sample here, and estimate the time and cost of all the work on 1, 10 and 50 workers.

    Nothing is launched. The work consists of independent items, as in ``client.map(fn, items)``. The estimate does not
    include data transfer and communication between workers. With credentials, prices and quotas are read from AWS once;
    without, the bundled prices are used.

    Parameters
    ----------
    fn : callable
        The function that is applied to each item.
    sample : iterable
        Some typical items; they are run one after another, for at most 30 s.
    n : int
        The number of items in all.
    workers : int or sequence of int, optional
        The numbers of workers to estimate for.
    startup : float, optional
        Seconds from ``StarburstCluster()`` to the first worker. By default the median startup time of the last clusters
        that ran on AWS and were closed on this computer; 90 s if there are none.
    speed : float, optional
        The speed of a worker's thread relative to this computer; 1 by default.
    **settings
        Arguments of :class:`.StarburstCluster`, such as ``arch`` or ``spot``.

    Returns
    -------
    Estimate
        Its repr is for users, its ``rows`` are for programs.

    Raises
    ------
    BadArgument
        The sample is empty or larger than `n`, or a number is out of range.

    Examples
    --------
    >>> estimate(len, ["a", "b"], 1000)  # doctest: +SKIP
    """
    items, sizes = list(sample), (workers,) if isinstance(workers, int) else tuple(workers)
    _check(items, n, sizes, startup, speed)
    if "n_workers" in settings:
        raise BadArgument(f"n_workers={settings['n_workers']!r}: give the numbers of workers as workers=(1, 10, 50).")
    threads = blueprint(Settings.load(**settings), "").default.size.nthreads
    tried = run_sample(fn, items)
    settings["n_workers"] = max(sizes)
    plan = quote(**settings)
    boot, whence = startup_seconds(load_records()) if startup is None else (startup, "as given")
    ways = [
        Way("here, one after another", 1),
        Way(f"here, on {CPU_COUNT} cores", CPU_COUNT),
        *(
            Way(f"{count} worker{'' if count == 1 else 's'}", count * threads, boot, per_hour(plan, count), count)
            for count in sizes
        ),
    ]
    notes = [
        f"Workers of {threads} thread{'' if threads == 1 else 's'}, {plan.spec.groups[0].types[0]} in {plan.where};"
        f" {plan.sources}.",
        f"Start-up {boot:.3g} s, {whence}.",
        f"A thread of a worker is {f'{speed:g} times ' if speed != 1.0 else ''}as fast as one here,"
        f" {'assumed: change it with speed=' if speed == 1.0 else 'as given'}.",
        *_cautions(tried, n, threads, max(sizes), speed),
        *(f"{fact[0].upper()}{fact[1:].removesuffix('.')}." for fact in plan.facts),
        *([f"{max(sizes)} workers would be refused: {plan.refusal}"] if plan.refusal else []),
    ]
    return reckon(n, tried.seconds, ways, speed=speed, notes=notes)


def startup_seconds(records: Iterable[Record]) -> tuple[float, str]:
    """Return the startup time of a cluster in seconds, and its source.

    Parameters
    ----------
    records : iterable of Record
        Records of closed clusters, the newest first. Those of the embedded AWS are ignored.
    """
    startups = [record.boot_seconds for record in records if record.boot_seconds and not record.simulated][:_LAST]
    if startups:
        some = f"median of your last {len(startups)} clusters" if len(startups) > 1 else "by your last cluster"
        return median(startups), f"measured: {some}"
    return Patience().boot, (
        "assumed, because none of your clusters was measured: 20 to 50 instances took 75 to 105 s in the runs of"
        " staRburst on AWS in July 2026"
    )


def run_sample(fn: Callable[[Any], Any], items: Sequence[Any]) -> SampleRun:
    """Run at least one item of the sample, and further items for at most `_SAMPLE_SECONDS`."""
    seconds: list[float] = []
    sizes: list[int] = []
    for number, item in enumerate(items):
        before = time.perf_counter()
        try:
            result = fn(item)
        except Exception as error:  # the user's function may raise anything; the note names the item
            error.add_note(f"estimate() was running item {number} of the sample: {item!r:.80}")
            raise
        seconds.append(time.perf_counter() - before)
        sizes.append(sizeof(item) + sizeof(result))
        if sum(seconds) >= _SAMPLE_SECONDS:
            break
    return SampleRun(tuple(seconds), mean(sizes))


def _cautions(tried: SampleRun, n: int, threads: int, workers: int, speed: float) -> list[str]:
    """Return the reasons for which the estimate may be wrong, as far as the sample shows them."""
    said, seconds = [], tried.seconds
    if threads > 1:
        said.append(
            f"A worker is assumed to run {threads} items at a time. Pure Python does not, because it holds the"
            ' interpreter lock: estimate it with worker={"nthreads": 1}.'
        )
    if mean(seconds) / speed < TASK_SECONDS * threads * workers:
        said.append(
            f"Dask's scheduler needs up to {TASK_SECONDS * 1000:g} ms for each item, which dominates with {workers}"
            " workers: process many items in one call."
        )
    if n * tried.item_bytes > _MUCH:
        said.append(
            f"Items and results are {format_bytes(int(n * tried.item_bytes))} in all; their transfer is not included."
        )
    if len(seconds) < _FEW:
        said.append(
            f"{len(seconds)} sample item{'s say' if len(seconds) > 1 else ' says'} little about how much items differ."
        )
    elif seconds[0] > 3 * median(seconds[1:]):
        said.append("The first item took by far the longest: if that was an import, call the function once before.")
    return said


def _check(items: Sequence[Any], n: int, workers: Sequence[Any], startup: float | None, speed: float) -> None:
    if not items:
        raise BadArgument("the sample is empty; give some typical items.")
    if n < len(items):
        raise BadArgument(f"n={n} is less than the {len(items)} items of the sample; give the number of all items.")
    if not workers or any(isinstance(count, bool) or not isinstance(count, int) or count < 1 for count in workers):
        raise BadArgument(f"workers={tuple(workers)!r}: give positive numbers of workers, such as (1, 10, 50).")
    if startup is not None and startup < 0:
        raise BadArgument(f"startup={startup:g} s is negative.")
    if speed <= 0:
        raise BadArgument(f"speed={speed:g} is not positive; 1 is as fast as this computer.")
