"""The choice of a zone for a cluster."""

from __future__ import annotations

from dataclasses import replace

from dask_starburst.plan.requests.placement import Zone, best, mean_of_cheapest

TYPES = frozenset({"head", "a", "b"})
A = Zone("subnet-a", "vpc", "zone-a", TYPES, 4096)
B = Zone("subnet-b", "vpc", "zone-b", TYPES, 4096)


def chosen(*zones: Zone) -> str:
    return best(list(zones), "head").name


def test_a_zone_must_offer_the_scheduler_type_and_then_most_worker_types():
    assert chosen(A, replace(B, available_types=TYPES - {"head"})) == "zone-a"
    assert chosen(A, replace(B, available_types=TYPES | {"c"})) == "zone-b"


def test_a_zone_without_failures_is_better_than_the_best_score():
    assert chosen(replace(A, failures=1, score=10), replace(B, score=1)) == "zone-b"


def test_a_clearly_better_score_wins_and_a_slightly_better_one_does_not():
    assert chosen(replace(A, score=9), replace(B, score=3)) == "zone-a"
    assert chosen(replace(A, score=8), replace(B, score=7)) == "zone-b"  # equal: the same one every time


def test_without_scores_the_clearly_cheaper_zone_wins():
    assert chosen(replace(A, price=0.05), replace(B, price=0.06)) == "zone-a"
    assert chosen(replace(A, price=0.0500), replace(B, price=0.0501)) == "zone-b"


def test_the_price_of_a_zone_is_the_mean_of_its_cheapest_types():
    assert mean_of_cheapest([9.0, 1.0, 2.0, 3.0]) == 2.0
    assert mean_of_cheapest([]) is None
