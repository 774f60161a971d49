"""Trying some of the work here, to say what all of it would take on workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from dask.system import CPU_COUNT

from dask_starburst.errors import BadArgument
from dask_starburst.plan.adaptive import Patience
from dask_starburst.plan.estimate import Estimate, Way
from dask_starburst.plan.estimate import estimate as reckon
from dask_starburst.preview import quote

#: Seconds after which no further item of a sample is tried.
_LONG_ENOUGH = 30.0
#: How many workers are reckoned with where nobody says it.
WORKERS = (1, 10, 50)


def estimate(
    fn: Callable[[Any], Any],
    sample: Iterable[Any],
    n: int,
    *,
    workers: Sequence[int] = WORKERS,
    startup: float | None = None,
    speed: float = 1.0,
    **settings: Any,
) -> Estimate:
    """Run a sample here, and say what all of the work would take and cost on 1, 10 and 50 workers, and whether at all.

    Nothing is launched. It is about work that consists of independent items, as in ``client.map(fn, items)``; moving
    data, and what workers say to each other, is not in it.

    Parameters
    ----------
    fn : callable
        What is done with each item.
    sample : iterable
        Some of the items, typical ones; they are tried one after another, until 30 s are over.
    n : int
        How many items there are in all.
    workers : sequence of int, optional
        The sizes of the cluster to reckon with.
    startup : float, optional
        Seconds from ``StarburstCluster()`` to the first worker. By default 90 s, what a cluster takes a boot to last
        before it has seen one.
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
    items = list(sample)
    _check(items, n, workers, startup, speed)
    seconds = try_out(fn, items)
    boot = Patience().boot if startup is None else startup
    plans = {count: quote(**{**settings, "n_workers": count}) for count in workers}
    threads = quote_threads(settings)
    ways = [
        Way("here, one after another", 1),
        Way(f"here, on {CPU_COUNT} cores", CPU_COUNT),
        *(
            Way(f"{count} worker{'' if count == 1 else 's'}", count * threads, boot, plan.usd_per_hour, count)
            for count, plan in plans.items()
        ),
    ]
    any_plan = next(iter(plans.values()))
    notes = [
        f"Workers of {threads} threads, {any_plan.wanted.types[0]} in {any_plan.where}; {any_plan.sources}.",
        f"Start-up {boot:g} s ({'assumed' if startup is None else 'as given'}); a thread there is taken to be"
        f" {speed:g} times as fast as one here ({'assumed' if speed == 1.0 else 'as given'}).",
    ]
    return reckon(n, seconds, ways, speed=speed, notes=notes)


def try_out(fn: Callable[[Any], Any], items: Sequence[Any]) -> list[float]:
    """Return the seconds that each item took, as many as are done before it has been long enough."""
    seconds: list[float] = []
    for item in items:
        before = time.perf_counter()
        fn(item)
        seconds.append(time.perf_counter() - before)
        if sum(seconds) >= _LONG_ENOUGH:
            break
    return seconds


def quote_threads(settings: dict[str, Any]) -> int:
    """Return the threads of one worker with these settings."""
    from dask_starburst.fleet.session import blueprint
    from dask_starburst.settings import Settings

    return blueprint(Settings.load(**settings), "").size.nthreads


def _check(items: Sequence[Any], n: int, workers: Sequence[int], startup: float | None, speed: float) -> None:
    if not items:
        raise BadArgument("the sample is empty; give some typical items of the work.")
    if n < len(items):
        raise BadArgument(f"n={n} is less than the {len(items)} items of the sample; give the number of all items.")
    if not workers or any(isinstance(count, bool) or count < 1 for count in workers):
        raise BadArgument(f"workers={tuple(workers)!r}: give numbers of workers from 1 on, such as (1, 10, 50).")
    if startup is not None and startup < 0:
        raise BadArgument(f"startup={startup:g} s is negative.")
    if speed <= 0:
        raise BadArgument(f"speed={speed:g} has to be above zero; 1 is as fast as here.")
