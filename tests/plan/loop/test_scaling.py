"""The arguments of ``scale`` and ``adapt`` are converted to workers, or rejected with an explanation."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dask_starburst.errors import BadArgument
from dask_starburst.plan.loop.scaling import Shape, bounds, first_to_go, workers_requested

GIB = 2**30
SHAPE = Shape(nthreads=4, memory=8 * GIB)
USUAL = (0, 10)


def within(given: dict[str, Any], most: int = 20, usual: tuple[int, int] = USUAL) -> tuple[int, int]:
    return bounds(given, usual, SHAPE, most)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (0, 10)),
        ({"maximum": None}, (0, 20)),
        ({"maximum": math.inf}, (0, 20)),
        ({"minimum": None}, (0, 10)),
        ({"minimum": 2, "maximum": 5}, (2, 5)),
        ({"minimum": 15}, (15, 15)),
        ({"minimum_cores": 5}, (2, 10)),
        ({"maximum_cores": 50}, (0, 12)),
        ({"maximum_cores": 50, "maximum": 5}, (0, 5)),
        ({"maximum_cores": 50, "maximum": None}, (0, 12)),
        ({"minimum_memory": "17 GiB", "maximum_memory": "100 GiB"}, (3, 12)),
        ({"maximum": 0}, (0, 0)),
    ],
    ids=str,
)
def test_bounds_have_the_same_meaning_as_in_dask(given: dict[str, Any], expected: tuple[int, int]):
    assert within(given) == expected


def test_max_workers_and_given_bounds_override_the_bounds_of_the_settings():
    assert within({}, most=4) == (0, 4)
    assert within({}, most=4, usual=(6, 8)) == (4, 4)
    assert within({"maximum": 1}, usual=(2, 8)) == (1, 1)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"minimum": 3, "maximum": 2}, "minimum=3 is above maximum=2; swap them"),
        ({"minimum_cores": 40, "maximum": 2}, r"minimum_cores=40 \(10 workers\) is above maximum=2"),
        ({"minimum": -1}, "minimum=-1 is negative"),
        ({"minimum": "2"}, "minimum='2' is not a whole number"),
        ({"maximum": 2.5}, "maximum=2.5 is not a whole number"),
        ({"maximum": 21}, "maximum=21 is above max_workers=20"),
        ({"maximum_cores": 100}, "maximum_cores=100 is 25 workers, which is above max_workers=20"),
        (
            {"maximum_cores": 2},
            "maximum_cores=2 is less than one worker, so no worker would ever start: one worker has 4",
        ),
        ({"maximum_memory": "1 GiB"}, "one worker has 8 GiB"),
        ({"maximum_memory": "a lot"}, "maximum_memory='a lot' is not an amount of memory"),
        ({"minimum_cores": "8"}, "minimum_cores='8' is not a number of threads"),
        ({"minimum_cores": -8}, "minimum_cores=-8 is not a number of threads"),
    ],
    ids=str,
)
def test_invalid_bounds_are_rejected_with_an_explanation(given: dict[str, Any], words: str):
    with pytest.raises(BadArgument, match=words):
        within(given)


@pytest.mark.parametrize(
    ("n", "memory", "cores", "expected"),
    [(3, None, None, 3), (0, "20 GiB", None, 3), (0, None, 9, 3), (5, "20 GiB", 9, 5), (0, 0, 0, 0)],
)
def test_scale_uses_the_argument_that_needs_most_workers(n: int, memory: Any, cores: Any, expected: int):
    assert workers_requested(n, memory, cores, SHAPE, 20) == expected


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((-1, None, None), "n=-1 is negative"),
        ((21, None, None), "n=21 is above max_workers=20"),
        ((0, "1 TiB", None), "memory='1 TiB' is 128 workers, which is above max_workers=20"),
        ((0, None, 1000), "cores=1000 is 250 workers"),
        ((0, "much", None), "memory='much' is not an amount of memory"),
        ((0, None, math.nan), "cores=nan is not a number of threads"),
    ],
)
def test_invalid_arguments_of_scale_are_rejected_with_an_explanation(given: tuple[Any, Any, Any], words: str):
    with pytest.raises(BadArgument, match=words):
        workers_requested(*given, SHAPE, 20)


def test_free_requests_are_cancelled_first_and_then_the_latest_ones():
    assert first_to_go(range(12), registered={0, 1, 2}, unordered={3, 11}) == [11, 3, 10, 9, 8, 7, 6, 5, 4]
