"""How much data a worker can transfer within a notice."""

from __future__ import annotations

import pytest

from dask_starburst.plan.scheduler.moving import (
    RESERVE,
    bandwidth,
    most_bytes,
    must_move,
    restrict_to_staying,
    too_much,
)


def test_an_xlarge_moves_about_fifteen_gigabytes_and_a_larger_one_more():
    assert most_bytes(bandwidth(4)) == pytest.approx(15.15e9)
    assert most_bytes(bandwidth(16)) == pytest.approx(4 * most_bytes(bandwidth(4)))


def test_a_shorter_notice_moves_less_and_a_very_short_one_nothing():
    assert most_bytes(1e9, 60) == pytest.approx(41e9)
    assert most_bytes(1e9, 19) == most_bytes(1e9, 5) == 0


def test_it_warns_only_of_more_data_than_can_be_moved():
    most = most_bytes(bandwidth(4))
    assert too_much(most, bandwidth(4)) is None
    warning = too_much(most + 1e9, bandwidth(4))
    assert warning is not None
    assert "16.15 GB" in warning
    assert "15.15 GB" in warning
    assert "0.15 GB/s" in warning


def test_a_worker_without_data_may_take_part_nearly_until_the_deadline():
    assert not must_move(0, bandwidth(4), left=3)
    assert must_move(0, bandwidth(4), left=1)


def test_a_worker_with_much_data_stops_in_time_to_move_it():
    held = 6e9
    alone = held / bandwidth(4)
    assert not must_move(held, bandwidth(4), left=RESERVE * alone + 5)
    assert must_move(held, bandwidth(4), left=RESERVE * alone)
    assert must_move(held, bandwidth(4), left=alone)


def test_a_task_is_kept_from_workers_that_leave_but_runs_there_when_all_do():
    staying = frozenset({"b", "c"})
    assert restrict_to_staying(None, False, staying) == (staying, True)
    assert restrict_to_staying(None, False, frozenset()) == (None, False)


def test_a_restriction_of_the_user_is_kept():
    staying = frozenset({"b", "c"})
    assert restrict_to_staying(frozenset({"a", "b"}), False, staying) == (frozenset({"b"}), False)
    assert restrict_to_staying(frozenset({"a"}), False, staying) == (frozenset({"a"}), False)
    assert restrict_to_staying(frozenset({"a"}), True, staying) == (staying, True)
    assert restrict_to_staying(frozenset({"a"}), True, frozenset()) == (frozenset({"a"}), True)
