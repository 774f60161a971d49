"""A roster that is saved and restored: nothing is lost, and the next decision is the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dask_starburst.errors import StarburstError
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.controller.snapshot import VERSION
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.interruptions import Succession
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Name, Observed, Task, Worker, WorkerState
from tests.support.placements import HEAD, ON_DEMAND, SPOT, WITH_FALLBACK
from tests.support.situations import NOW, Situation, situations

LIMITS = Limits(placements=WITH_FALLBACK)


def saved_and_restored(roster: Roster) -> Roster:
    """Return the roster of another process that has read the snapshot as JSON."""
    return Roster.restore(json.loads(json.dumps(roster.snapshot())), LIMITS, lambda: NOW)


@given(situations())
def test_a_restored_roster_decides_the_same(situation: Situation):
    roster = Roster(LIMITS, lambda: NOW, situation.workers, situation.observed)
    again = saved_and_restored(roster)
    assert again.workers == roster.workers
    assert again.observed == roster.observed
    decisions = [step(each.workers.values(), each.observed, NOW, LIMITS) for each in (roster, again)]
    assert decisions[0] == decisions[1]


@given(situations(), st.sampled_from([0.0, 30.0, 500.0]))
def test_a_restored_roster_tracks_its_workers_alike(situation: Situation, later: float):
    roster = Roster(LIMITS, lambda: NOW, situation.workers, situation.observed)
    again = saved_and_restored(roster)
    for each in (roster, again):
        each.track(NOW + later)
    assert again.snapshot() == roster.snapshot()


def launched(name: Name = 0) -> Roster:
    """Return a roster with one launched worker."""
    roster = Roster(LIMITS, lambda: NOW, [Worker(name, SPOT, WorkerState.CAPACITY, launch=3)])
    roster.place([Task("t-0", name, 3, "PENDING", "arn:i-0")], NOW)
    return roster


def test_the_logs_of_launched_processes_can_still_be_read():
    assert saved_and_restored(launched()).launched == launched().launched


@pytest.mark.parametrize("name", [0, "0", SCHEDULER])
def test_a_name_keeps_its_type(name: Name):
    """Dask's names are numbers; the text "0" is another worker."""
    assert list(saved_and_restored(launched(name)).workers) == [name]


def test_launch_numbers_are_not_used_again():
    roster = Roster(LIMITS, lambda: NOW, [Worker(0, SPOT, WorkerState.STOPPED, launch=7, requested=False)])
    roster.track(NOW)
    again = saved_and_restored(roster)
    again.request(0, DEFAULT)
    assert again.workers[0].launch == 8


def test_the_message_of_a_failed_worker_is_kept():
    failed = Worker(0, SPOT, WorkerState.FAILED, attempt=2, launch=4)
    roster = Roster(LIMITS, lambda: NOW, [failed])
    roster.explain(failed, "worker 0 failed: no capacity")
    assert saved_and_restored(roster).reason_of(failed) == "worker 0 failed: no capacity"


@pytest.mark.parametrize("placement", [None, ON_DEMAND])
def test_a_worker_that_waits_for_its_replacement_is_still_held(placement: Any):
    roster = launched()
    roster.hold(0)
    roster.succeed(Succession(0, 1, placement))
    again = saved_and_restored(roster)
    assert again.successions == roster.successions
    again.cancel(0)
    assert again.workers[0].requested


def test_a_hold_without_a_replacement_is_not_kept_because_nothing_would_end_it():
    roster = launched()
    roster.hold(0)
    again = saved_and_restored(roster)
    again.cancel(0)
    assert not again.workers[0].requested


@pytest.mark.parametrize("version", [None, 0, VERSION + 1])
def test_another_format_is_refused_with_what_to_do(version: int | None):
    data = {**launched().snapshot(), "version": version}
    with pytest.raises(StarburstError, match=r"format .*reads 1.*Use the version"):
        Roster.restore(data, LIMITS, lambda: NOW)


def test_an_empty_roster_can_be_saved():
    roster = Roster(LIMITS, lambda: NOW, observed=Observed())
    assert saved_and_restored(roster).snapshot() == roster.snapshot()
    assert HEAD not in saved_and_restored(roster).observed.groups
