"""Adaptive decisions, as values and in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.adaptive import OurLogic, simulate
from benchmarks.workloads.demand import saw_tooth, square
from dask_starburst.plan.loop.adaptive import (
    Limits,
    Patience,
    Sample,
    StartupTimes,
    State,
    recommend,
    remember,
    sample_every,
    workers_for,
)


def names(prefix: str, n: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i}" for i in range(n))


counts = st.integers(0, 30)
states = st.builds(
    lambda u, b, r, samples: State(
        names("u", u), names("b", b), r, tuple(Sample(float(t), n) for t, n in sorted(samples.items()))
    ),
    counts,
    counts,
    counts,
    st.dictionaries(st.integers(0, 99), counts, max_size=8),
)
bounds = st.tuples(counts, counts).map(lambda two: Limits(min(two), max(two), 60.0))


@given(states, st.integers(0, 1000), bounds)
def test_the_target_stays_within_the_bounds(state, target, limits):
    decision = recommend(state, target, 100.0, limits)
    assert decision.target_workers <= max(state.planned, limits.maximum)
    assert decision.target_workers >= min(state.planned, limits.minimum)
    if decision.target_workers < state.planned:
        assert decision.target_workers >= limits.minimum
        assert state.planned - decision.target_workers == len(decision.cancel) + decision.retire


@given(states, st.integers(0, 1000), bounds)
def test_all_starting_workers_are_cancelled_before_a_running_one_is_retired(state, target, limits):
    decision = recommend(state, target, 100.0, limits)
    if decision.retire:
        assert set(decision.cancel) == {*state.unlaunched, *state.booting}


@given(states, st.integers(0, 1000), bounds)
def test_launched_workers_stay_while_a_recent_sample_needs_them(state, target, limits):
    decision = recommend(state, target, 100.0, limits)
    launched = decision.retire + len(set(decision.cancel) & set(state.booting))
    recent = [sample.target for sample in state.samples if sample.at > 40]
    covered = any(sample.at <= 40 for sample in state.samples)
    if launched:
        assert covered
        assert decision.target_workers >= max([*recent, limits.minimum])


def test_starting_workers_are_not_requested_again():
    state = State(booting=names("b", 4))
    assert recommend(state, 4, 0.0, Limits()).target_workers == 4


def test_the_first_step_is_small_and_the_maximum_is_reached_soon():
    limits = Limits(0, 500)
    steps, planned = [], 0
    for sample in range(5):
        planned = recommend(State(booting=names("b", planned)), 500, 5.0 * sample, limits).target_workers
        steps.append(planned)
    assert steps == [50, 100, 200, 400, 500]
    assert recommend(State(), 10, 0.0, Limits(0, 10)).target_workers == 4
    assert recommend(State(), 10, 0.0, Limits(8, 10)).target_workers == 8


@pytest.mark.parametrize(
    ("startups", "seconds"),
    [
        (StartupTimes(), 90.0),
        (StartupTimes(under_way=70.0), 90.0),
        (StartupTimes(under_way=150.0), 150.0),
        (StartupTimes((45.0,)), 60.0),
        (StartupTimes((80.0, 95.0, 300.0)), 95.0),
        (StartupTimes((80.0,), under_way=200.0), 80.0),
        (StartupTimes((900.0,)), 300.0),
    ],
    ids=str,
)
def test_the_scale_down_delay_is_the_time_of_one_startup(startups: StartupTimes, seconds: float):
    assert Patience().after(startups) == seconds


def test_samples_between_two_decisions_count_for_the_next():
    limits = Limits(0, 10, 60.0)
    samples = remember((Sample(0.0, 2),), 7, 62.0, limits)
    decision = recommend(State(running=8, samples=samples), 2, 65.0, limits)
    assert (decision.target_workers, decision.retire) == (7, 1)
    assert [sample_every(interval) for interval in (30.0, 5.0, 2.0, 0.5)] == [6.0, 1.0, 1.0, 0.5]


def test_without_workers_the_target_is_threads():
    assert workers_for(10, 4, known=0) == 3
    assert workers_for(10, 4, known=2) == 10


@pytest.mark.parametrize("demand", [saw_tooth(20, 80), saw_tooth(60, 80), saw_tooth(85, 160), square(20, 40, 80)])
def test_a_saw_tooth_shorter_than_a_startup_launches_little_more_than_the_ideal(demand):
    result = simulate(OurLogic, demand)
    assert result.launches <= 1.2 * result.ideal_launches


@settings(max_examples=25)
@given(st.floats(20, 300), st.floats(0.05, 1), st.integers(4, 200))
def test_any_saw_tooth_shorter_than_a_startup_launches_little_more_than_the_ideal(boot, part, peak):
    result = simulate(OurLogic, saw_tooth(part * boot, peak), duration=900, boot=boot)
    assert result.launches <= 1.2 * result.ideal_launches


@settings(max_examples=25)
@given(st.floats(20, 300), st.floats(10, 900), st.floats(10, 900), st.integers(4, 200))
def test_the_scale_down_delay_costs_at_most_twice_the_optimum(boot, on, off, peak):
    result = simulate(OurLogic, square(on, off, peak), duration=900, boot=boot)
    assert result.seconds <= 2 * result.least_seconds
