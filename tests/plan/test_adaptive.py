"""Adaptive decisions, as values and in virtual time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.adaptive import OurLogic, saw_tooth, simulate, square
from dask_starburst.plan.adaptive import Limits, Look, State, recommend, workers_for


def names(prefix: str, n: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{i}" for i in range(n))


counts = st.integers(0, 30)
states = st.builds(
    lambda u, b, r, looks: State(
        names("u", u), names("b", b), r, tuple(Look(float(t), n) for t, n in sorted(looks.items()))
    ),
    counts,
    counts,
    counts,
    st.dictionaries(st.integers(0, 99), counts, max_size=8),
)
bounds = st.tuples(counts, counts).map(lambda two: Limits(min(two), max(two), 60.0))


@given(states, st.integers(0, 1000), bounds)
def test_it_never_asks_for_more_than_the_maximum_nor_goes_below_the_minimum(state, target, limits):
    decision = recommend(state, target, 100.0, limits)
    assert decision.wish <= max(state.planned, limits.maximum)
    assert decision.wish >= min(state.planned, limits.minimum)
    if decision.wish < state.planned:
        assert decision.wish >= limits.minimum
        assert state.planned - decision.wish == len(decision.cancel) + decision.retire


@given(states, st.integers(0, 1000), bounds)
def test_every_wish_is_cancelled_before_a_running_worker_is_retired(state, target, limits):
    decision = recommend(state, target, 100.0, limits)
    if decision.retire:
        assert set(decision.cancel) == {*state.unlaunched, *state.booting}


@given(states, st.integers(0, 1000), bounds)
def test_nothing_launched_goes_while_it_was_asked_for_lately(state, target, limits):
    decision = recommend(state, target, 100.0, limits)
    launched = decision.retire + len(set(decision.cancel) & set(state.booting))
    lately = [look.target for look in state.looks if look.at > 40]
    watched = any(look.at <= 40 for look in state.looks)
    if launched:
        assert watched
        assert decision.wish >= max([*lately, limits.minimum])


def test_what_boots_is_not_asked_for_again():
    state = State(booting=names("b", 4))
    assert recommend(state, 4, 0.0, Limits()).wish == 4


def test_the_first_step_is_small_and_the_maximum_is_near_all_the_same():
    limits = Limits(0, 500)
    steps, planned = [], 0
    for look in range(5):
        planned = recommend(State(booting=names("b", planned)), 500, 5.0 * look, limits).wish
        steps.append(planned)
    assert steps == [50, 100, 200, 400, 500]
    assert recommend(State(), 10, 0.0, Limits(0, 10)).wish == 4
    assert recommend(State(), 10, 0.0, Limits(8, 10)).wish == 8


def test_without_workers_the_target_is_threads():
    assert workers_for(10, 4, known=0) == 3
    assert workers_for(10, 4, known=2) == 10


@pytest.mark.parametrize("demand", [saw_tooth(20, 80), saw_tooth(60, 80), square(20, 40, 80)])
def test_a_saw_tooth_shorter_than_a_boot_launches_hardly_more_than_the_ideal(demand):
    result = simulate(OurLogic, demand)
    assert result.launches <= 1.2 * result.ideal_launches


@pytest.mark.xfail(reason="a peak is forgotten after scale-down-after, 60 s, which is shorter than a boot of 90 s")
def test_a_saw_tooth_longer_than_the_patience_launches_hardly_more_than_the_ideal():
    result = simulate(OurLogic, saw_tooth(85, 160))
    assert result.launches <= 1.2 * result.ideal_launches
