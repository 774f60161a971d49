"""The choice of a pool, and the description of one that is kept for reuse."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.catalog.markets import Market
from dask_starburst.plan.requests.garbage import GroupFound
from dask_starburst.plan.requests.reuse import EXPIRY_MARGIN, Candidate, Kept, preferred, price_of_spares

NOW = 1_000_000.0
LATER = NOW + 600


def warm(name: str, workers: int, until: float | None = LATER) -> Candidate:
    return Candidate(name, workers + 1, workers, until)


def names(found: list[Candidate], requested: int) -> list[str]:
    return [one.name for one in preferred(found, requested, NOW)]


def test_the_smallest_sufficient_warm_pool_is_preferred_then_the_largest_then_a_cold_one():
    found = [Candidate("cold-b"), warm("two", 2), warm("nine", 9), warm("five", 5), Candidate("cold-a")]
    assert names(found, 4) == ["five", "nine", "two", "cold-a", "cold-b"]
    assert names(found, 20) == ["nine", "five", "two", "cold-a", "cold-b"]


def test_a_pool_with_only_a_scheduler_instance_is_preferred_to_a_cold_one():
    assert names([Candidate("cold"), warm("head", 0)], 1) == ["head", "cold"]


def test_a_pool_whose_lease_is_about_to_expire_is_not_used():
    assert names([warm("gone", 3, NOW - 1), warm("going", 3, NOW + EXPIRY_MARGIN / 2)], 1) == []
    # Its lease has been executed, so it is a cold pool.
    assert names([Candidate("emptied", 0, 0, NOW - 200)], 1) == ["emptied"]


@given(
    st.lists(st.builds(Candidate, st.uuids().map(str), st.integers(0, 9), st.integers(0, 9), st.just(LATER))),
    st.integers(0, 9),
)
def test_every_pool_is_tried_once_and_warm_before_cold(found: list[Candidate], requested: int):
    order = preferred(found, requested, NOW)
    assert sorted(order, key=str) == sorted(found, key=str)
    cold = [not one.instances for one in order]
    assert cold == sorted(cold)


def test_a_kept_pool_states_its_cost_and_end():
    groups = (
        GroupFound("a-0-head", 1, False, ("m7g.medium",), None),
        GroupFound("a-0-spot", 2, True, ("c7g.xlarge",) * 2, None),
    )
    kept = Kept(groups, 600.0)
    assert kept.instances == 3
    assert str(kept) == "2 c7g.xlarge spot, 1 m7g.medium on-demand, $0.1689 an hour, until 00:10:00 UTC"
    unknown = Kept((GroupFound("a-0-spot", 1, True, ("unknown.large",), None),), 600.0)
    assert "not in the catalogue" in str(unknown)


@pytest.mark.parametrize(("count", "words"), [(1, "1 spare c7g.xlarge is"), (2, "2 spare c7g.xlarge are")])
def test_the_cost_of_spares_is_described(count: int, words: str):
    assert price_of_spares("c7g.xlarge", count, Market.SPOT).startswith(words)
    assert "$" in price_of_spares("c7g.xlarge", count, Market.SPOT)
