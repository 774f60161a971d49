"""What people ask of ``scale`` and ``adapt``, in workers: pure decisions, and refusals in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dask.utils import parse_bytes

from dask_starburst.errors import BadArgument
from dask_starburst.plan.loop.state import Name
from dask_starburst.settings import check_count

#: The arguments of ``adapt`` that say how many workers there may be.
BOUNDS = tuple(f"{which}{what}" for which in ("minimum", "maximum") for what in ("", "_cores", "_memory"))


@dataclass(frozen=True, slots=True)
class Shape:
    """One worker: its threads, and its memory in bytes."""

    nthreads: int
    memory: int


def workers_requested(n: Any, memory: Any, cores: Any, shape: Shape, most: int) -> int:
    """Return the workers that ``scale(n, memory, cores)`` asks for: as many as the greatest of the three needs.

    Raises
    ------
    BadArgument
        One of them is not such a number, negative, or needs more than `most` workers.
    """
    check_count("n", n, most)
    found = [int(n or 0)]
    for name, value, each in (("memory", memory, shape.memory), ("cores", cores, shape.nthreads)):
        if value is not None:
            found.append(_of(name, value, each, most, math.ceil))
    return max(found)


def bounds(given: Mapping[str, Any], usual: tuple[int, int], shape: Shape, most: int) -> tuple[int, int]:
    """Return the fewest and the most workers of an adaptive cluster.

    Parameters
    ----------
    asked : mapping
        What the user gave of ``minimum``, ``maximum``, and of both with ``_cores`` and ``_memory``. A ``maximum`` of
        None or infinity, as in Dask, is `most`.
    usual : tuple of int
        The bounds where the user gives none; one of them gives way to the one that the user gives.
    shape : Shape
        Of one worker.
    most : int
        ``max_workers``.

    Raises
    ------
    BadArgument
        A bound is not such a number, negative, above `most`, or above or below the other.
    """
    low, high = _bound("minimum", given, shape, most, math.ceil), _bound("maximum", given, shape, most, math.floor)
    least, greatest = min(usual[0], most), min(usual[1], most)
    if high is None:
        endless = "maximum" in given  # None or infinity was given
        high = most if endless else max(greatest, low or 0)
    if low is None:
        low = min(least, high)
    if low > high:
        raise BadArgument(f"{_words(given, 'minimum', low)} is above {_words(given, 'maximum', high)}; swap them.")
    return low, high


def _bound(
    which: str, given: Mapping[str, Any], shape: Shape, most: int, rounding: Callable[[float], int]
) -> int | None:
    """Return one bound in workers, the strictest of those that were given; None where none was."""
    found = []
    count = given.get(which)
    if count is not None and not (which == "maximum" and count == math.inf):
        check_count(which, count, most)
        found.append(int(count))
    for what, each in (("cores", shape.nthreads), ("memory", shape.memory)):
        value = given.get(f"{which}_{what}")
        if value is not None:
            found.append(_of(f"{which}_{what}", value, each, most, rounding))
    if not found:
        return None
    return max(found) if which == "minimum" else min(found)


def _of(name: str, value: Any, each: int, most: int, rounding: Callable[[float], int]) -> int:
    """Return how many workers have so much memory, or so many threads, together."""
    memory = name.endswith("memory")
    kind = "an amount of memory, such as '100 GiB'" if memory else "a number of threads, such as 16"
    try:
        number = parse_bytes(value) if memory else float(value) if not isinstance(value, str | bool) else math.nan
    except (ValueError, TypeError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise BadArgument(f"{name}={value!r} is not {kind}.")
    count = rounding(number / each)
    one = f"one worker has {each / 2**30:.3g} GiB" if memory else f"one worker has {each} thread{'s' * (each != 1)}"
    if count == 0 < number:
        raise BadArgument(f"{name}={value!r} is less than one worker, so none would ever come: {one}.")
    if count > most:
        raise BadArgument(
            f"{name}={value!r} is {count} workers, which is above max_workers={most}, which protects your bill ({one});"
            f" raise it with max_workers={count} if you mean it."
        )
    return count


def _words(given: Mapping[str, Any], which: str, workers: int) -> str:
    """Name a bound as the user gave it, and in workers where that is something else."""
    parts = [f"{k}={v!r}" for k, v in given.items() if k.startswith(which) and v is not None]
    plain = f"{which}={workers}"
    return plain if parts in ([], [plain]) else f"{', '.join(parts)} ({workers} workers)"


def first_to_go(plan: Iterable[Name], registered: Collection[Name], unordered: Collection[Name]) -> list[Name]:
    """Return the workers that are requested and not up, in the order in which to take requests back.

    First those for which nothing has been ordered, because they cost nothing; then those that boot. Of each the latest
    request first: the earlier ones will be up sooner.

    Parameters
    ----------
    plan : iterable of names
        Everything that is requested, in the order of the requests.
    registered : collection of names
        The workers that are up.
    unordered : collection of names
        The requests for which no instance is on its way.
    """
    absent = [name for name in reversed(list(plan)) if name not in registered]
    return sorted(absent, key=lambda name: name not in unordered)
