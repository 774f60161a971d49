"""Actions stay in flight only until they may be repeated."""

from __future__ import annotations

from dask_starburst.fleet.controller import observe
from dask_starburst.plan.loop.state import Observed, RunTask, SetDesired
from tests.support.placements import SPOT


def test_an_action_without_a_visible_effect_leaves_in_flight_when_it_may_be_repeated():
    refused, lost, fresh = SetDesired(SPOT, 7), RunTask(0, SPOT, 1, "i-0"), SetDesired(SPOT, 2)
    observed = observe.mark_in_flight(Observed(), [refused, lost], now=0.0, repeat=20.0)
    assert observe.mark_in_flight(observed, [], now=19.0, repeat=20.0).in_flight == {refused: 0.0, lost: 0.0}
    assert observe.mark_in_flight(observed, [fresh], now=20.0, repeat=20.0).in_flight == {fresh: 20.0}
    again = observe.mark_in_flight(observed, [refused], now=30.0, repeat=20.0)
    assert again.in_flight == {refused: 30.0}
