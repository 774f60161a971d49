"""Failed AWS calls: each is said once, its end as well, and the cluster ends only if a retry cannot help."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from dask_starburst.errors import (
    AWSError,
    AWSUnavailable,
    CredentialsExpired,
    LeaseExpired,
    PermissionDenied,
    SchedulerFailed,
    StarburstError,
    Throttled,
)
from dask_starburst.events import CallFailed, EventLog
from dask_starburst.events.aws import OutageEnded
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.controller.troubles import Troubles
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Worker, WorkerState
from dask_starburst.plan.scheduler.shutdown_rules import SHUTDOWN_PREFIX
from tests.support.jumping_loop import run
from tests.support.placements import HEAD

S = WorkerState
LOST = AWSUnavailable("ecs:DescribeTasks cannot reach AWS: connection reset")
BUSY = Throttled("AWS throttles autoscaling:DescribeAutoScalingGroups", code="Throttling")
DENIED = PermissionDenied("AWS denies ecs:RunTask", code="AccessDeniedException")
REFUSED = AWSError("ecs:RunTask failed: Invalid cpu", code="InvalidParameterException")
EXPIRED = CredentialsExpired("AWS refuses the credentials: expired.", code="ExpiredToken")


class Story:
    """A cluster whose scheduler is in a state, and its failed calls."""

    def __init__(self, state: WorkerState = S.READY, log: list[list[str]] | None = None) -> None:
        self.now, self.events, self.errors = 1000.0, EventLog(), list[StarburstError]()
        self.renewed, self.log, self.reads = 0, log or [], 0
        scheduler = Worker(SCHEDULER, HEAD, state, since=900.0, task="task-0")
        roster = Roster(Limits(), lambda: self.now, [scheduler])
        capacity = SimpleNamespace(name="starburst-test-0", renew_credentials=self._renew, explain=self._tail)
        self.lease = Lease(1800.0, self.now)
        self.scheduler = scheduler
        self.troubles = Troubles(roster, cast(Any, capacity), self.lease, self.events.emit, self.errors.append)

    def _renew(self) -> None:
        self.renewed += 1

    async def _tail(self, worker: Worker, lines: int) -> list[str]:
        self.reads += 1
        return self.log.pop(0) if self.log else []

    def polls(self, *errors: StarburstError, times: int = 1, seconds: float = 1.5) -> None:
        """Let polls fail with these errors."""
        for _ in range(times):
            self.troubles.begin_poll()
            for error in errors:
                self.troubles.note(error)
            self.troubles.end_poll()
            self.now += seconds

    @property
    def said(self) -> list[type]:
        return [type(event) for event in self.events]


def test_the_next_outage_is_said_again() -> None:
    story = Story()
    for _ in range(2):
        story.polls(LOST)
        story.polls()
    assert story.said == [CallFailed, OutageEnded] * 2


def test_two_calls_that_are_refused_at_every_poll_are_said_once_each() -> None:
    """Else they would fill the log, two lines every second and a half."""
    story = Story()
    story.polls(DENIED, REFUSED, times=50)
    assert story.said == [CallFailed, CallFailed]


def test_a_refusal_during_an_outage_is_said_too() -> None:
    story = Story()
    story.polls(LOST, REFUSED, BUSY, times=5)
    assert [("Invalid cpu" in event.message) for event in story.events] == [False, True]


@pytest.mark.parametrize(("state", "ends"), [(S.CAPACITY, True), (S.READY, False)], ids=["start", "running"])
def test_a_start_waits_half_a_minute_for_valid_credentials_and_a_cluster_until_its_lease(
    state: WorkerState, ends: bool
) -> None:
    story = Story(state)
    story.polls(EXPIRED, times=2, seconds=29.0)
    assert story.errors == []
    story.polls(EXPIRED, times=2)
    assert bool(story.errors) is ends


def test_the_scheduler_s_own_reason_replaces_that_its_lease_expired() -> None:
    """Its last lines arrive in CloudWatch some seconds late."""
    story = Story(log=[["starting"], ["starting"], [f"{SHUTDOWN_PREFIX} idle for 20 minutes"]])
    error = run(story.troubles.reason(LeaseExpired("the lease expired"), story.scheduler))
    assert isinstance(error, SchedulerFailed)
    assert "the scheduler has ended the cluster: idle for 20 minutes" in str(error)
    assert story.reads == 3


def test_without_a_reason_in_the_log_the_error_stays_as_it_was() -> None:
    story, expired, failed = Story(), LeaseExpired("the lease expired"), SchedulerFailed("the scheduler was lost")

    async def reasons() -> list[StarburstError]:
        return [await story.troubles.reason(error, story.scheduler) for error in (expired, failed)]

    assert run(reasons()) == [expired, failed]
    assert story.reads == 8 + 1, "only after an expired lease it waits for late lines"
