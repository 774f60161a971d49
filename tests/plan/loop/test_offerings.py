"""Refusals of AWS are remembered for a while and decide what is left to try."""

from __future__ import annotations

import pytest

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import LAUNCH_SLACK, REFUSAL_TTL, Kind, Refusal, closed, launchable, remember
from tests.support.placements import ON_DEMAND, SPOT

NOW = 1000.0
ALLOWED = ("a.large", "b.large", "c.large")


def refused(type: str = "", kind: Kind = "capacity", at: float = NOW, placement: Placement = SPOT) -> Refusal:
    return Refusal(placement, kind, f"no {type}", at, type)


def test_a_refusal_is_remembered_for_three_minutes():
    known = [refused("a.large", at=NOW)]
    assert remember(known, [], {}, NOW + REFUSAL_TTL - 1) == tuple(known)
    assert remember(known, [], {}, NOW + REFUSAL_TTL) == ()


def test_the_newest_refusal_of_a_type_counts():
    newer = refused("a.large", at=NOW + 5)
    assert remember([refused("a.large")], [newer], {}, NOW + 6) == (newer,)


def test_a_refusal_of_a_whole_group_ends_when_the_group_gets_an_instance():
    known = [refused(), refused("a.large")]
    assert remember(known, [], {SPOT: NOW + LAUNCH_SLACK}, NOW + 20) == tuple(known)  # launched together with it
    assert remember(known, [], {SPOT: NOW + LAUNCH_SLACK + 1}, NOW + 20) == (known[1],)
    assert remember(known, [], {ON_DEMAND: NOW + 19}, NOW + 20) == tuple(known)


def test_failed_types_are_excluded_until_all_have_failed():
    assert launchable(ALLOWED, [], SPOT) == ALLOWED
    assert launchable(ALLOWED, [refused("a.large")], SPOT) == ("b.large", "c.large")
    assert launchable(ALLOWED, [refused("a.large", placement=ON_DEMAND)], SPOT) == ALLOWED
    assert launchable(ALLOWED, [refused(t) for t in ALLOWED], SPOT) == ALLOWED


def test_a_group_is_closed_when_no_type_is_left_to_try():
    some = [refused("a.large"), refused("b.large", at=NOW + 1)]
    assert closed(ALLOWED, some, SPOT) is None
    last = refused("c.large", at=NOW + 2)
    assert closed(ALLOWED, [*some, last], SPOT) == last
    assert closed(ALLOWED, [*some, last], ON_DEMAND) is None


@pytest.mark.parametrize("kind", ["quota", "fault"])
def test_a_quota_or_a_fault_closes_the_whole_group(kind: Kind):
    against = refused(kind=kind)
    assert closed(ALLOWED, [against], SPOT) == against
