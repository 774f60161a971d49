"""What work would take: schedules are as long as they are, and the verdict follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.plan.estimate import Estimate, Way, estimate, makespan, span

HERE = [Way("here, one after another", 1), Way("here, on 4 cores", 4)]


def with_workers(n: int, seconds: float, startup: float = 90.0, **more: Any) -> Estimate:
    ways = [Way(f"{count} workers", 4 * count, startup, 0.1 * count, count) for count in (1, 10, 50)]
    return estimate(n, [seconds], [*HERE, *ways], **more)


def test_items_are_done_in_waves():
    assert makespan(10, [1.0], 4) == pytest.approx(3.0)
    assert makespan(8, [1.0], 4) == pytest.approx(2.0)
    assert makespan(3, [1.0], 100) == pytest.approx(1.0)
    assert makespan(0, [1.0], 4) == 0.0


def test_a_straggler_keeps_all_waiting():
    assert makespan(4, [1.0, 1.0, 1.0, 10.0], 4) == pytest.approx(10.0)


@given(st.integers(1, 300), st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(1, 64))
def test_no_schedule_is_shorter_than_possible_or_longer_than_grahams_bound(n: int, sample: list[float], threads: int):
    work = sum(sample[i % len(sample)] for i in range(n))
    took = makespan(n, sample, threads)
    assert max(work / threads, min(sample)) - 1e-6 <= took <= work / threads + max(sample) + 1e-6


def test_a_million_items_are_spread_evenly_in_the_end():
    assert makespan(1_000_000, [1.0], 100) == pytest.approx(10_000, rel=0.01)


def test_work_that_is_done_before_a_cluster_is_up_stays_here():
    found = with_workers(100, 0.1)
    assert not found.worth_it
    assert found.verdict.startswith("Stay here")


def test_long_work_goes_to_the_cloud_and_the_cheapest_that_is_faster_is_named():
    found = with_workers(20_000, 1.0)
    assert found.worth_it
    assert found.fastest.way.name == "50 workers"
    assert "The cloud is worth it: with 50 workers" in found.verdict
    assert found.fastest.usd == pytest.approx(5.0 * (90 + 100) / 3600)
    assert "50 workers" in repr(found)


def test_faster_threads_make_a_cloud_worth_it_sooner():
    assert not with_workers(400, 1.0).worth_it
    assert with_workers(400, 1.0, startup=10.0).worth_it
    slow = with_workers(20_000, 1.0, speed=0.5).fastest.seconds
    assert slow == pytest.approx(90 + 2 * 100)


def test_a_minute_is_paid_for_at_the_least():
    found = with_workers(1, 0.1, startup=1.0)
    assert [row.usd for row in found.rows if row.way.workers == 1] == [pytest.approx(0.1 * 60 / 3600)]


@pytest.mark.parametrize(("seconds", "text"), [(5.25, "5.25 s"), (600, "10 min"), (9000, "2.5 h")])
def test_times_are_written_for_people(seconds: float, text: str):
    assert span(seconds) == text
