"""Failed calls: each is emitted once, waited out, and ends the cluster only if waiting cannot help."""

from __future__ import annotations

import asyncio

import pytest

from dask_starburst.errors import (
    AWSError,
    AWSUnavailable,
    CredentialsExpired,
    PermissionDenied,
    StarburstError,
    Throttled,
)
from dask_starburst.events import CallFailed, CredentialsAccepted, CredentialsRefused, Event, EventLog, OutageEnded
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.controller.troubles import Troubles
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Worker, WorkerState
from dask_starburst.plan.scheduler.shutdown_rules import SHUTDOWN_PREFIX
from tests.support.no_capacity import NoCapacity
from tests.support.placements import HEAD

S = WorkerState
NOW = 1000.0
DENIED = PermissionDenied("AWS denies ecs:RunTask.", code="AccessDeniedException")
EXPIRED = CredentialsExpired("AWS refuses the credentials.", code="ExpiredToken")


class Setting:
    """The troubles of a cluster whose scheduler is in some state."""

    def __init__(self, state: WorkerState = S.READY, *lines: str) -> None:
        self.capacity, self.events = NoCapacity(NOW, lines), EventLog(now=lambda: 0.0)
        self.errors: list[StarburstError] = []
        self.scheduler = Worker(SCHEDULER, HEAD, state, task="t-0")
        roster = Roster(Limits(), self.capacity.now, [self.scheduler])
        lease = Lease(1800, NOW)
        self.troubles = Troubles(roster, self.capacity, lease, self.events.emit, self.errors.append)

    def poll(self, *errors: StarburstError, seconds: float = 10.0) -> None:
        """Pass through one poll in which calls fail."""
        self.capacity.time += seconds
        self.troubles.begin_poll()
        for error in errors:
            self.troubles.note(error)
        self.troubles.end_poll()

    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


def test_an_error_that_comes_back_in_each_poll_is_emitted_once():
    here = Setting()
    here.poll(DENIED)
    here.poll(DENIED)
    assert here.kinds() == [CallFailed]
    here.poll()
    assert not here.troubles.any
    here.poll(DENIED)
    assert here.kinds() == [CallFailed, CallFailed]


def test_an_outage_is_emitted_at_its_begin_and_at_its_end_with_its_length():
    here = Setting()
    here.poll(AWSUnavailable("ecs:ListTasks cannot reach AWS."))
    here.poll(Throttled("AWS throttles ecs:DescribeTasks."))
    here.poll()
    assert here.kinds() == [CallFailed, OutageEnded]
    (ended,) = (event for event in here.events if isinstance(event, OutageEnded))
    assert ended.seconds == 20.0
    assert here.errors == []


def test_refused_credentials_are_loaded_again_until_they_are_accepted():
    here = Setting()
    here.poll(EXPIRED)
    here.poll(EXPIRED)
    assert here.capacity.credentials_renewed == 2
    here.poll()
    assert here.kinds() == [CredentialsRefused, CredentialsAccepted]
    assert here.errors == []


def test_a_cluster_without_credentials_ends_shortly_before_its_lease():
    here = Setting()
    here.poll(EXPIRED)
    here.poll(EXPIRED, seconds=1800 - 60)
    (error,) = here.errors
    assert isinstance(error, CredentialsExpired)
    assert "its lease ends at" in str(error)


@pytest.mark.parametrize(("state", "ends"), [(S.CAPACITY, True), (S.READY, False)])
def test_a_missing_permission_ends_a_start_and_not_a_running_cluster(state: WorkerState, ends: bool):
    here = Setting(state)
    here.poll(DENIED)
    assert (here.errors == [DENIED]) is ends


def test_a_start_with_refused_credentials_is_given_up_soon_because_the_user_waits():
    here = Setting(S.CAPACITY)
    here.poll(EXPIRED)
    assert here.errors == []
    here.poll(EXPIRED, seconds=31)
    assert here.errors == [EXPIRED]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (
            f"{SHUTDOWN_PREFIX} there was no work for 1200 s (idle_timeout)",
            "the scheduler has ended the cluster: there",
        ),
        ("distributed.scheduler - INFO - Closing scheduler", "the scheduler is gone"),
    ],
    ids=["ended by itself", "unknown"],
)
def test_the_reason_of_an_end_is_what_the_scheduler_has_logged(line: str, text: str):
    here = Setting(S.READY, line)
    assert str(asyncio.run(here.troubles.reason(AWSError("the scheduler is gone"), here.scheduler))).startswith(text)


def test_without_a_task_no_log_is_read():
    here = Setting(S.READY, f"{SHUTDOWN_PREFIX} of another cluster")
    error = AWSError("the scheduler is gone")
    for scheduler in (None, Worker(SCHEDULER, HEAD, S.CAPACITY)):
        assert asyncio.run(here.troubles.reason(error, scheduler)) is error
