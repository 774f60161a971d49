"""Compare programs that run in turns, so that other load of this computer affects all of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def alternate(
    programs: Mapping[Key, Callable[[], Value]], repeat: int, *, warm_up: bool = False
) -> dict[Key, list[Value]]:
    """Run all programs in turns, and return the results of each.

    Parameters
    ----------
    programs : mapping of hashable to callable
        What is compared.
    repeat : int
        The number of turns.
    warm_up : bool
        Whether a first turn is discarded: it compiles bytecode and fills the page cache.
    """
    found: dict[Key, list[Value]] = {name: [] for name in programs}
    for turn in range(repeat + warm_up):
        for name, program in programs.items():
            result = program()
            if turn >= warm_up:
                found[name].append(result)
    return found


def median_ratio(these: Sequence[float], those: Sequence[float]) -> float:
    """Return the median of the ratios of each turn."""
    return median(this / that for this, that in zip(these, those, strict=True))
