"""How much a worker can hand over in a notice."""

from __future__ import annotations

import pytest

from dask_starburst.plan.moving import bandwidth, most_bytes, too_much


def test_an_xlarge_moves_about_fifteen_gigabytes_and_a_larger_one_more():
    assert most_bytes(bandwidth(4)) == pytest.approx(15.15e9)
    assert most_bytes(bandwidth(16)) == pytest.approx(4 * most_bytes(bandwidth(4)))


def test_a_shorter_notice_moves_less_and_a_very_short_one_nothing():
    assert most_bytes(1e9, 60) == pytest.approx(41e9)
    assert most_bytes(1e9, 19) == most_bytes(1e9, 5) == 0


def test_it_warns_of_what_is_too_much_and_of_nothing_else():
    most = most_bytes(bandwidth(4))
    assert too_much(most, bandwidth(4)) is None
    warning = too_much(most + 1e9, bandwidth(4))
    assert warning is not None
    assert "16.15 GB" in warning
    assert "15.15 GB" in warning
    assert "0.15 GB/s" in warning
