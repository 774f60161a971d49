"""Convert the arguments of ``scale`` and ``adapt`` to workers, or reject them with an explanation."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dask.utils import parse_bytes

from dask_starburst.errors import BadArgument
from dask_starburst.plan.loop.state import Name
from dask_starburst.settings import check_count

#: The arguments of ``adapt`` that bound the number of workers.
BOUNDS = tuple(f"{which}{what}" for which in ("minimum", "maximum") for what in ("", "_cores", "_memory"))


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of one worker: its threads, and its memory in bytes."""

    nthreads: int
    memory: int


def workers_requested(n: Any, memory: Any, cores: Any, shape: Shape, most: int) -> int:
    """Return the number of workers that ``scale(n, memory, cores)`` requests: the maximum of the three.

    Raises
    ------
    BadArgument
        An argument is not valid, negative, or needs more than `most` workers.
    """
    check_count("n", n, most)
    found = [int(n or 0)]
    for name, value, each in (("memory", memory, shape.memory), ("cores", cores, shape.nthreads)):
        if value is not None:
            found.append(_of(name, value, each, most, math.ceil))
    return max(found)


def bounds(given: Mapping[str, Any], usual: tuple[int, int], shape: Shape, most: int) -> tuple[int, int]:
    """Return the minimum and maximum number of workers of an adaptive cluster.

    Parameters
    ----------
    given : mapping
        The given ones of ``minimum``, ``maximum``, and both with ``_cores`` and ``_memory``. As in Dask, ``maximum``
        may be None or infinity; it then means `most`.
    usual : tuple of int
        Default bounds. A given bound takes precedence over the other default.
    shape : Shape
        Size of one worker.
    most : int
        ``max_workers``.

    Raises
    ------
    BadArgument
        A bound is not valid, negative, above `most`, or the minimum is above the maximum.
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
    """Return one bound in workers, the strictest of the given ones; None if none is given."""
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
    """Return the number of workers for a total amount of memory or of threads."""
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
        raise BadArgument(f"{name}={value!r} is less than one worker, so no worker would ever start: {one}.")
    if count > most:
        raise BadArgument(
            f"{name}={value!r} is {count} workers, which is above max_workers={most} ({one});"
            f" set max_workers={count} to allow it."
        )
    return count


def _words(given: Mapping[str, Any], which: str, workers: int) -> str:
    """Format a bound as the user gave it, and in workers if that differs."""
    parts = [f"{k}={v!r}" for k, v in given.items() if k.startswith(which) and v is not None]
    plain = f"{which}={workers}"
    return plain if parts in ([], [plain]) else f"{', '.join(parts)} ({workers} workers)"


def first_to_go(plan: Iterable[Name], registered: Collection[Name], unordered: Collection[Name]) -> list[Name]:
    """Return the workers that are requested and not up, in the order in which to cancel them.

    First those without an instance, because they cost nothing; then those that are starting. In each group the latest
    request comes first, because earlier ones will be up sooner.

    Parameters
    ----------
    plan : iterable of names
        All requested workers, in the order of the requests.
    registered : collection of names
        Workers that are up.
    unordered : collection of names
        Workers for which no instance has been requested.
    """
    absent = [name for name in reversed(list(plan)) if name not in registered]
    return sorted(absent, key=lambda name: name not in unordered)
