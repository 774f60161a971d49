"""When a scheduler shuts down its own pool."""

from __future__ import annotations

import pytest

from dask_starburst.errors import AWSError, BadArgument, CredentialsExpired, NoCredentials, PermissionDenied, Throttled
from dask_starburst.plan.scheduler.shutdown_rules import (
    SHUTDOWN_PREFIX,
    Lifetimes,
    repeat_after,
    shutdown_reason,
    why_end,
)

LIFETIMES = Lifetimes(lease=1800, idle=1200, no_client=300)


@pytest.mark.parametrize(
    ("idle", "alone", "named"),
    [(0, 0, None), (1199, 299, None), (1200, 0, "idle_timeout"), (0, 300, "no_client_timeout")],
)
def test_either_limit_ends_it_and_is_named(idle: float, alone: float, named: str | None):
    reason = why_end(LIFETIMES, idle, alone)
    assert reason is None if named is None else named in (reason or "")


def test_none_means_never():
    assert why_end(Lifetimes(1800, None, None), 1e9, 1e9) is None


def test_the_reason_is_found_in_a_log_among_other_lines():
    assert shutdown_reason(["a", f"12:00 - WARNING - {SHUTDOWN_PREFIX}there was no work\n", "b"]) == "there was no work"
    assert shutdown_reason(["a", "b"]) is None


@pytest.mark.parametrize("error", [PermissionDenied("no"), NoCredentials("none"), BadArgument("wrong")])
def test_a_clean_up_that_is_refused_for_good_is_not_repeated(error):
    assert repeat_after(error, 1) is None


@pytest.mark.parametrize(
    "error", [AWSError("InternalFailure"), Throttled("Throttling"), OSError("reset"), KeyError("x")]
)
def test_a_clean_up_that_fails_otherwise_is_repeated_without_end_after_pauses_that_grow(error):
    pauses = [pause for tries in range(1, 101) if (pause := repeat_after(error, tries)) is not None]
    assert len(pauses) == 100
    assert pauses == sorted(pauses)
    assert pauses[0] <= 1
    assert pauses[-1] <= 5


def test_credentials_that_are_refused_are_given_three_chances():
    pauses = [repeat_after(CredentialsExpired("expired"), tries) for tries in (1, 2, 3)]
    assert [pause is None for pause in pauses] == [False, False, True]
