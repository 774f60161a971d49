"""`dask_starburst.estimate`: a sample is tried here, nothing is launched, bad input is refused."""

from __future__ import annotations

import time
from typing import Any

import pytest

import dask_starburst
from dask_starburst.errors import BadArgument


def test_a_sample_is_tried_and_all_of_it_reckoned() -> None:
    tried: list[int] = []

    def work(item: int) -> None:
        tried.append(item)
        time.sleep(0.02)

    found = dask_starburst.estimate(work, range(3), 100_000, workers=(1, 20), region="us-east-1", arch="x86_64")
    assert tried == [0, 1, 2]
    assert [row.way.workers for row in found.rows] == [0, 0, 1, 20]
    assert all(seconds >= 0.02 for seconds in found.sample)
    assert found.rows[0].seconds >= 0.02 * 100_000
    assert found.rows[3].usd > 0
    assert "c7i.xlarge in us-east-1" in repr(found)
    assert "assumed" in repr(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"sample": []}, "the sample is empty"),
        ({"n": 1}, "n=1 is less than the 2 items"),
        ({"workers": (0,)}, "give numbers of workers from 1 on"),
        ({"startup": -1.0}, "negative"),
        ({"speed": 0.0}, "above zero"),
        ({"arch": "vax"}, "arch='vax' is not known"),
    ],
)
def test_bad_input_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(BadArgument) as caught:
        dask_starburst.estimate(**{"fn": len, "sample": ["a", "b"], "n": 10, **arguments})
    assert said in str(caught.value)
