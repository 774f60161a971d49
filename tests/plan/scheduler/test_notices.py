"""Spot interruption notices and the seconds that are left."""

from __future__ import annotations

import pytest

from dask_starburst.plan.scheduler.notices import NOTICE_SECONDS, POLL_INTERVAL, Notice, read_action, seconds_left

NOW = 1_790_000_000.0  # 2026-09-21T14:13:20Z


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_a_notice_has_the_action_and_the_seconds_left(action: str):
    body = f'{{"action": "{action}", "time": "2026-09-21T14:15:18Z"}}'
    assert read_action(body, NOW) == Notice("interruption", 118.0, action)


@pytest.mark.parametrize("seconds", [-300.0, -1.0, 121.0, 86400.0])
def test_when_clocks_disagree_aws_s_promise_counts(seconds: float):
    assert seconds_left(seconds) == NOTICE_SECONDS - POLL_INTERVAL


def test_hibernation_begins_at_once():
    assert read_action('{"action": "hibernate", "time": "2026-09-21T14:13:20Z"}', NOW).seconds == 0


@pytest.mark.parametrize(
    "body", ["", "<html>busy</html>", "[]", "null", "{}", '{"action": "stop"}', '{"action": "stop", "time": "soon"}']
)
def test_an_invalid_notice_is_an_error(body: str):
    with pytest.raises(ValueError, match=r".+"):
        read_action(body, NOW)
