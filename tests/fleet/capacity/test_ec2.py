"""The calls that actions become on EC2, in which batches, and how each outcome is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from dask_starburst.catalog import find
from dask_starburst.catalog.markets import Market
from dask_starburst.errors import AWSError, StarburstError
from dask_starburst.fleet.capacity.ec2 import EC2Capacity
from dask_starburst.fleet.capacity.interface import Accepted, Capacity, Failed, Outcome
from dask_starburst.fleet.capacity.launch import Launcher
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.state import (
    SCHEDULER,
    Action,
    Instance,
    Observed,
    RunTask,
    SetDesired,
    StopTask,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.plan.requests.sizing import worker_group
from tests.support.placements import HEAD, ON_DEMAND, SPOT

Answer = Callable[[str, dict[str, Any]], Any]


class Scripted:
    """AWS that answers as told; it notes the calls."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def now(self) -> float:
        return 1000.0

    def renew_credentials(self) -> None:
        """Do nothing."""

    async def call(self, service: str, operation: str, **request: Any) -> Any:
        self.calls.append((operation, request))
        answer = self._answer(operation, request)
        if isinstance(answer, StarburstError):
            raise answer
        return answer

    async def pages(self, service: str, operation: str, key: str, **request: Any) -> Any:
        return (await self.call(service, operation, **request))[key]


def capacity_on(answer: Answer, *, private: str = "10.0.0.1", public: str = "") -> tuple[Capacity, Scripted]:
    aws: Any = Scripted(answer)
    spec: Any = SimpleNamespace(placements=(HEAD, SPOT, ON_DEMAND), tags={})
    pool = Pool(aws, spec, PoolNames("starburst-test-0"), "session", "sg-1")
    group = worker_group(DEFAULT, (find("c7g.xlarge"),), (Market.SPOT,), None, None)
    launcher = Launcher({DEFAULT: "arn:d"}, 8786, {DEFAULT: group}, private=private, public=public)
    return EC2Capacity(pool, launcher, 1.5), aws


def applied(actions: list[Action], answer: Answer, observed: Observed | None = None) -> tuple[list[Outcome], Scripted]:
    capacity, aws = capacity_on(answer)
    outcomes: list[Outcome] = []
    asyncio.run(capacity.apply(actions, observed or Observed(), outcomes.append))
    return outcomes, aws


def test_an_accepted_action_is_reported():
    actions: list[Action] = [SetDesired(SPOT, 3), StopTask("t-0", "no longer requested")]
    outcomes, aws = applied(actions, lambda operation, request: {})
    assert sorted(map(str, outcomes)) == sorted(str(Accepted(action)) for action in actions)  # type: ignore[arg-type]  # none is RunTask
    assert {operation for operation, _ in aws.calls} == {"SetDesiredCapacity", "StopTask"}


def test_a_failed_action_does_not_affect_the_others():
    def answer(operation: str, request: dict[str, Any]) -> Any:
        return AWSError("refused") if operation == "SetDesiredCapacity" else {}

    outcomes, _ = applied([SetDesired(SPOT, 3), StopTask("t-0", "")], answer)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Accepted", "Failed"]


def ends(count: int) -> list[Action]:
    return [Terminate(f"i-{number}", SPOT) for number in range(count)]


def test_instances_are_terminated_together_and_by_group():
    outcomes, aws = applied([*ends(150), Terminate("i-x", ON_DEMAND)], lambda operation, request: {})
    assert sorted(len(request["InstanceIds"]) for _, request in aws.calls) == [1, 50, 100]
    assert len(outcomes) == 151


def test_an_instance_that_is_gone_does_not_keep_the_others_of_its_batch():
    def answer(operation: str, request: dict[str, Any]) -> Any:
        return AWSError("i-1 not found") if "i-1" in request["InstanceIds"] else {}

    outcomes, aws = applied(ends(3), answer)
    failed = [outcome.actions for outcome in outcomes if isinstance(outcome, Failed)]
    assert failed == [(Terminate("i-1", SPOT),)]
    assert sum(isinstance(outcome, Accepted) for outcome in outcomes) == 2
    assert len(aws.calls) == 4


def test_a_failed_start_is_reported_for_the_whole_call():
    seen = {i: Instance(i, SPOT, "c7g.xlarge", f"arn:x/{i}", connected=True) for i in ("i-0", "i-1")}
    runs: list[Action] = [RunTask(0, SPOT, 1, "i-0"), RunTask(1, SPOT, 1, "i-1")]
    outcomes, _ = applied(runs, lambda operation, request: AWSError("denied"), Observed(instances=seen))
    reported = {action for outcome in outcomes if isinstance(outcome, Failed) for action in outcome.actions}
    assert reported == set(runs)


def test_workers_wait_for_the_address_of_the_scheduler():
    capacity, _ = capacity_on(lambda operation, request: {}, private="")
    assert not capacity.ready(RunTask(0, SPOT, 0, "i-0"))
    assert capacity.ready(RunTask(SCHEDULER, HEAD, 0, "i-h"))
    assert capacity.ready(SetDesired(SPOT, 1))


def test_the_client_is_told_the_public_address_and_workers_the_private_one():
    capacity, _ = capacity_on(lambda operation, request: {}, public="3.3.3.3")
    assert (capacity.scheduler_address, capacity.contact_address) == ("tls://10.0.0.1:8786", "tls://3.3.3.3:8786")
    assert capacity.reachable
    assert not capacity_on(lambda operation, request: {})[0].reachable


def test_an_instance_is_billed_from_its_launch_until_its_termination():
    launched, ended = datetime(2026, 11, 25, 12, tzinfo=UTC), datetime(2026, 11, 25, 13, tzinfo=UTC)
    instance = {
        "InstanceId": "i-0",
        "InstanceType": "c7g.xlarge",
        "Placement": {"AvailabilityZone": "us-east-1a"},
        "LaunchTime": launched,
        "State": {"Name": "terminated"},
        "StateTransitionReason": "User initiated (2026-11-25 13:00:00 GMT)",
        "StateReason": {"Code": "Server.SpotInstanceTermination"},
    }
    capacity, _ = capacity_on(lambda operation, request: {"Reservations": [{"Instances": [instance]}]})
    (times,) = asyncio.run(capacity.billable(["i-0"]))
    assert (times.launched, times.ended) == (launched.timestamp(), ended.timestamp())
    assert (times.zone, times.taken) == ("us-east-1a", True)


WORKER = Worker(0, SPOT, WorkerState.STARTED, task="arn:aws:ecs:x:1:task/pool/abc")


def test_the_log_of_a_process_is_the_stream_of_its_task():
    capacity, aws = capacity_on(lambda operation, request: {"events": [{"message": "hello"}], "nextBackwardToken": "b"})
    assert asyncio.run(capacity.explain(WORKER, 5))[-1] == "hello"
    _, request = aws.calls[0]
    assert request["logStreamName"] == "starburst-test-0/worker/abc"


def test_a_log_that_cannot_be_read_says_why():
    capacity, _ = capacity_on(lambda operation, request: AWSError("AWS denies logs:GetLogEvents."))
    assert asyncio.run(capacity.explain(WORKER, 5)) == ["(its log cannot be read: AWS denies logs:GetLogEvents.)"]
