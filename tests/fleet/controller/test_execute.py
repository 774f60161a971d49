"""The effect of AWS's responses to RunTask and SetDesiredCapacity on the worker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dask_starburst.catalog import find
from dask_starburst.catalog.markets import Market
from dask_starburst.errors import (
    AWSError,
    AWSUnavailable,
    CredentialsExpired,
    NoCredentials,
    PermissionDenied,
    StarburstError,
    Throttled,
)
from dask_starburst.events import CallFailed, CredentialsRefused, Event, EventLog, TaskRefused
from dask_starburst.fleet.capacity.ec2 import EC2Capacity
from dask_starburst.fleet.capacity.launch import Launcher
from dask_starburst.fleet.controller.background import Background
from dask_starburst.fleet.controller.execute import Executor
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.controller.troubles import Troubles
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.state import (
    Action,
    Instance,
    Limits,
    Observed,
    RunTask,
    ScalingGroup,
    SetDesired,
    Worker,
    WorkerState,
)
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.plan.requests.sizing import worker_group
from dask_starburst.plan.requests.tasks import Launch, Place, run_request
from tests.support.no_capacity import NoDask
from tests.support.placements import HEAD, SPOT

S = WorkerState
NOW = 10_000.0
RUN = RunTask(0, SPOT, 3, "i-0")
ORDER = SetDesired(SPOT, 1)
GIB = 1024**3


class Scripted:
    """Returns the same response to every call."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.renewed = 0
        self.calls: list[str] = []

    def now(self) -> float:
        return NOW

    def renew_credentials(self) -> None:
        self.renewed += 1

    async def call(self, service: str, operation: str, **_: Any) -> Any:
        self.calls.append(operation)
        if isinstance(self._answer, StarburstError):
            raise self._answer
        return self._answer


class Setting:
    """An executor, and what happens with one worker that has waited for 100 s."""

    def __init__(self, action: Action, answer: Any) -> None:
        self.aws, self.events, self.lease = Scripted(answer), EventLog(), Lease(1800, NOW)
        self.errors: list[StarburstError] = []
        spec = SimpleNamespace(placements=(HEAD, SPOT), tags={})
        pool = Pool(cast(Any, self.aws), cast(Any, spec), PoolNames("starburst-test-0"), "session", "sg-1")
        group = worker_group(DEFAULT, (find("c7g.xlarge"),), (Market.SPOT,), None, None)
        self.launcher = Launcher({DEFAULT: "arn:definition"}, 8786, {DEFAULT: group}, private="10.0.0.1")
        instance = Instance("i-0", SPOT, "c7g.xlarge", "arn:aws:ecs:x/i-0", connected=True, seen=True)
        observed = Observed({SPOT: ScalingGroup(SPOT, 0)}, {"i-0": instance}, in_flight={action: NOW})
        worker = Worker(0, SPOT, S.CAPACITY, since=NOW - 100, launch=3)
        self.roster, emit = Roster(Limits(), self.aws.now, [worker], observed), self.events.emit
        self.capacity = EC2Capacity(pool, self.launcher, 1.5)
        self.troubles = Troubles(self.roster, self.capacity, self.lease, emit, self.errors.append)
        self.dask, self.background = NoDask(), Background()
        self.executor = Executor(
            self.roster, self.capacity, self.dask, emit, self.background.spawn, self.troubles.note, lambda: None
        )

    def execute(self, action: Action) -> None:
        asyncio.run(self.executor.execute([action]))

    @property
    def kinds(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


def after(action: Action, answer: Any) -> tuple[Worker, Setting]:
    """Return the worker after an action, and the rest."""
    setting = Setting(action, answer)
    setting.execute(action)
    return setting.roster.workers[0], setting


def failing(reason: str) -> dict[str, Any]:
    return {"tasks": [], "failures": [{"arn": "arn:aws:ecs:x/i-0", "reason": reason}]}


def answered(*places: Place, instance: str | None = None) -> dict[str, Any]:
    """Return RunTask's answer of one task for these places."""
    request = run_request(Launch("pool", "session", SPOT, "worker", "d:1", places, 1024, 2048, {}, {}))
    task = {"taskArn": "arn:aws:ecs:x:1:task/pool/t", "lastStatus": "PROVISIONING", "containers": []}
    where = {"containerInstanceArn": instance} if instance else {}
    return {"tasks": [{**task, **where, "overrides": request["overrides"]}], "failures": []}


HERE, THERE = Place("i-0", "i-0", 0, 3, GIB), Place("i-1", "i-1", 1, 0, GIB)


def test_a_task_without_an_instance_waits_for_its_place_and_is_started_alone_from_then_on():
    worker, setting = after(RUN, answered(HERE))
    assert (worker.state, worker.awaits_place, worker.launch) == (S.CAPACITY, True, 3)
    assert RUN not in setting.roster.observed.in_flight
    assert setting.roster.observed.occupied == {worker.instance}
    assert setting.roster.launched == (worker,)
    assert setting.launcher.together is False


def test_tasks_that_are_placed_within_the_call_are_started_together_from_then_on():
    worker, setting = after(RUN, answered(HERE, instance="arn:aws:ecs:x/i-0"))
    assert worker.state is S.PLACED
    assert setting.launcher.together is True
    runs = [RUN._replace(worker=n) for n in range(12)]
    assert [len(batch) for batch in setting.launcher.batches(runs, setting.roster.observed)] == [10, 2]


def test_a_batch_that_is_not_placed_within_the_call_is_started_again_one_by_one():
    worker, setting = after(RUN, answered(HERE, THERE))
    assert (worker.state, worker.launch, worker.refusal, worker.task) == (S.CAPACITY, 4, "", None)
    runs = [RUN._replace(worker=n) for n in range(3)]
    assert [len(batch) for batch in setting.launcher.batches(runs, setting.roster.observed)] == [1, 1, 1]
    assert setting.aws.calls == ["RunTask", "StopTask"]


OUTAGES = [
    Throttled("AWS throttles ecs:RunTask", code="ThrottlingException"),
    AWSUnavailable("ecs:RunTask failed", code="ServerException"),
    AWSUnavailable("ecs:RunTask cannot reach AWS: Connection was closed before we received a valid response"),
    CredentialsExpired("AWS refuses the credentials", code="ExpiredTokenException"),
    NoCredentials("no AWS credentials were found."),
]


@pytest.mark.parametrize("action", [RUN, ORDER], ids=["RunTask", "SetDesiredCapacity"])
@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
def test_during_an_outage_no_attempt_is_counted_and_the_timeout_restarts(action: Action, error: StarburstError):
    worker, setting = after(action, error)
    assert (worker.state, worker.attempt, worker.launch, worker.refusal) == (S.CAPACITY, 0, 3, "")
    assert worker.since == NOW
    refused = isinstance(error, CredentialsExpired | NoCredentials)
    assert setting.kinds == [CredentialsRefused if refused else CallFailed]
    assert not setting.errors


@pytest.mark.parametrize("error", OUTAGES, ids=lambda error: type(error).__name__)
def test_an_action_that_aws_may_have_executed_stays_in_flight(error: StarburstError):
    _, setting = after(RUN, error)
    assert (RUN in setting.roster.observed.in_flight) is isinstance(error, AWSUnavailable)


def _run_task(text: str, code: str) -> AWSError:
    return AWSError(f"ecs:RunTask failed: {text}", code=code, operation="ecs:RunTask")


PASSING = [
    *map(failing, ["AGENT", "RESOURCE:MEMORY", "RESOURCE:CPU", "RESOURCE:PORTS", "MEMBEROF", "MISSING", "INACTIVE"]),
    failing("DistinctInstance placement constraint unsatisfied"),
    failing("MemberOf placement constraint unsatisfied."),
    failing("EMPTY CAPACITY PROVIDER"),
    failing("NO ACTIVE INSTANCES"),
    _run_task("Cluster not found.", "ClusterNotFoundException"),
    _run_task("ECS was unable to assume the role 'arn:r'.", "ClientException"),
    _run_task("TaskDefinition not found.", "ClientException"),
    _run_task("busy", "UpdateInProgressException"),
    _run_task("Tasks provisioning capacity limit exceeded.", "ClientException"),
]


@pytest.mark.parametrize("answer", PASSING, ids=str)
def test_a_temporary_refusal_is_retried_with_another_token_within_the_same_deadline(answer: Any):
    worker, setting = after(RUN, answer)
    assert (worker.state, worker.attempt, worker.launch, worker.refusal) == (S.CAPACITY, 0, 4, "")
    assert worker.since == NOW - 100
    assert RUN not in setting.roster.observed.in_flight
    assert setting.roster.observed.instances["i-0"].refused_at == NOW, "other instances are tried first"


@pytest.mark.parametrize(
    "answer",
    [
        failing("ATTRIBUTE"),
        failing("LOCATION"),
        PermissionDenied("AWS denies iam:PassRole", code="AccessDeniedException"),
        AWSError("ecs:RunTask failed: Invalid cpu", code="InvalidParameterException"),
    ],
    ids=str,
)
def test_a_permanent_refusal_counts_as_an_attempt_and_the_cluster_continues(answer: Any):
    worker, setting = after(RUN, answer)
    assert worker.refusal.startswith("ECS refused its task: ")
    assert TaskRefused in setting.kinds
    assert not setting.errors


def test_a_denied_capacity_request_is_the_reason_of_the_waiting_worker():
    worker, setting = after(ORDER, PermissionDenied("AWS denies autoscaling:SetDesiredCapacity", code="AccessDenied"))
    assert worker.reason == "AWS denies autoscaling:SetDesiredCapacity"
    assert worker.since == NOW - 100
    assert not setting.errors


def test_refused_credentials_are_reloaded_and_end_the_cluster_only_with_its_lease():
    error = CredentialsExpired("AWS refuses the credentials: expired.", code="ExpiredToken")
    _, setting = after(RUN, error)
    for _ in range(5):
        setting.troubles.note(error)
    assert setting.kinds == [CredentialsRefused]
    assert setting.aws.renewed == 6
    assert not setting.errors
    setting.lease.until = NOW + 10
    setting.troubles.note(error)
    (ended,) = setting.errors
    assert isinstance(ended, CredentialsExpired)
    assert "expired" in str(ended)
    assert "lease ends at" in str(ended)


def test_the_scheduler_may_extend_the_lease_but_not_shorten_it():
    lease = Lease(1800, NOW)
    lease.extend(NOW + 5000)
    assert lease.until == NOW + 5000
    lease.extend(0.0)
    assert lease.until == NOW + 5000


def test_the_same_refusal_is_emitted_once():
    _, setting = after(RUN, failing("AGENT"))
    setting.execute(RUN._replace(launch=4))
    assert setting.kinds == [TaskRefused]
