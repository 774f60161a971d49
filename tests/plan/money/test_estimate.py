"""Estimates of time and cost: schedules, and the verdict that follows from them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.plan.money.estimate import TASK_SECONDS, Estimate, Way, estimate, makespan, span

HERE = [Way("here, one after another", 1), Way("here, on 4 cores", 4)]


def with_workers(n: int, seconds: float, startup: float = 90.0, **more: Any) -> Estimate:
    ways = [Way(f"{count} workers", 4 * count, startup, 0.1 * count, count) for count in (1, 10, 50)]
    return estimate(n, [seconds], [*HERE, *ways], **more)


def test_items_run_in_waves():
    assert makespan(10, [1.0], 4) == pytest.approx(3.0)
    assert makespan(8, [1.0], 4) == pytest.approx(2.0)
    assert makespan(3, [1.0], 100) == pytest.approx(1.0)
    assert makespan(0, [1.0], 4) == 0.0


def test_a_straggler_determines_the_makespan():
    assert makespan(4, [1.0, 1.0, 1.0, 10.0], 4) == pytest.approx(10.0)


@given(st.integers(1, 300), st.lists(st.floats(0.01, 10), min_size=1, max_size=5), st.integers(1, 64))
def test_no_schedule_is_shorter_than_possible_or_longer_than_grahams_bound(n: int, sample: list[float], threads: int):
    work = sum(sample[i % len(sample)] for i in range(n))
    took = makespan(n, sample, threads)
    assert max(work / threads, min(sample)) - 1e-6 <= took <= work / threads + max(sample) + 1e-6


def test_very_many_items_are_spread_evenly():
    assert makespan(1_000_000, [1.0], 100) == pytest.approx(10_000, rel=0.01)


def test_work_shorter_than_the_cluster_startup_runs_locally():
    found = with_workers(100, 0.1)
    assert not found.worth_it
    assert found.verdict.startswith("Run it locally")


def test_long_work_goes_to_the_cloud():
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


def test_at_least_one_minute_is_billed():
    found = with_workers(1, 0.1, startup=1.0)
    assert [row.usd for row in found.rows if row.way.workers == 1] == [pytest.approx(0.1 * 60 / 3600)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0000123, "12.3 µs"), (0.25, "250 ms"), (5.25, "5.25 s"), (605, "10 min 5 s"), (9000, "2 h 30 min")],
)
def test_durations_are_readable(seconds: float, text: str):
    assert span(seconds) == text


def test_the_verdict_changes_at_the_break_even_number_of_items():
    start = with_workers(10, 1.0).worth_from
    assert start is not None
    assert not with_workers(round(start * 0.9), 1.0).worth_it
    assert with_workers(round(start * 1.1), 1.0).worth_it
    assert "The cloud is worth it from about" in with_workers(10, 1.0).verdict


def test_items_shorter_than_the_scheduler_overhead_run_locally():
    found = with_workers(1_000_000, 1e-5)
    assert found.rows[-1].seconds == pytest.approx(90 + 1_000_000 * TASK_SECONDS)
    assert found.worth_from is None
    assert "The cloud is never worth it for such items" in found.verdict


def test_html_shows_every_way_and_the_verdict_and_escapes_markup():
    ways = [Way("here & now", 1), Way("<2> workers", 8, 90.0, 0.2, 2)]
    html = estimate(1000, [1.0], ways, notes=["<b>"])._repr_html_()
    assert "here &amp; now" in html
    assert "&lt;2&gt; workers" in html
    assert "&lt;b&gt;" in html
    assert "worth it" in html
