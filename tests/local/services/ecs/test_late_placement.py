"""Tasks that RunTask returns before ECS has placed them (real-aws R1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS, faults
from tests.local.conftest import Stack, code_of, message_of, wait_for


@pytest.fixture(autouse=True)
def clear_faults(aws: LocalAWS) -> Iterator[None]:
    yield
    aws.play([faults.Clear()])


def is_hidden(task: dict[str, Any]) -> bool:
    return task["lastStatus"] == "PROVISIONING" and task["containers"] == [] and "containerInstanceArn" not in task


def test_a_task_is_returned_without_an_instance_and_placed_later(aws: LocalAWS, warm: Stack) -> None:
    aws.play([faults.LatePlacement(seconds=3)])
    reply = warm.run(warm.definition())
    (task,) = reply["tasks"]
    assert is_hidden(task)
    assert is_hidden(warm.task(task["taskArn"]))
    assert warm.ecs.list_tasks(cluster=warm.name)["taskArns"] == [task["taskArn"]]
    placed = warm.reaches(task["taskArn"], "RUNNING")
    assert placed["containerInstanceArn"] == warm.instances[0]["containerInstanceArn"]
    assert [one["name"] for one in placed["containers"]] == ["main"]


def test_a_task_that_cannot_be_placed_later_stops_with_the_reason(aws: LocalAWS, warm: Stack) -> None:
    aws.play([faults.LatePlacement(seconds=0)])
    reply = warm.run(warm.definition(cpu="4096", memory="64"))
    assert reply["failures"] == []
    task = warm.reaches(reply["tasks"][0]["taskArn"], "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == ("TaskFailedToStart", "RESOURCE:CPU")
    elsewhere = [{"type": "memberOf", "expression": "ec2InstanceId in ['i-0123456789abcdef0']"}]
    reply = warm.run(warm.definition(), placementConstraints=elsewhere)
    task = warm.reaches(reply["tasks"][0]["taskArn"], "STOPPED")
    assert task["stoppedReason"] == "MemberOf placement constraint unsatisfied."


def test_a_provider_without_instances_shows_only_in_the_stopped_task(aws: LocalAWS, stack: Stack) -> None:
    stack.group()
    stack.cluster()
    aws.play([faults.LatePlacement(seconds=0)])
    task = stack.reaches(stack.run(stack.definition())["tasks"][0]["taskArn"], "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == ("TaskFailedToStart", "EMPTY CAPACITY PROVIDER")


def test_a_scenario_chooses_the_reason_and_the_number_of_tasks(aws: LocalAWS, warm: Stack) -> None:
    aws.play([faults.LatePlacement(seconds=0, fails="AGENT", count=1, family=warm.name)])
    late, now = warm.run(warm.definition(["true"]), count=2)["tasks"][::-1]
    assert "containerInstanceArn" in now
    assert warm.reaches(late["taskArn"], "STOPPED")["stoppedReason"] == "AGENT"


def test_a_task_stopped_before_it_is_placed_never_runs(aws: LocalAWS, warm: Stack) -> None:
    aws.play([faults.LatePlacement(seconds=2)])
    arn = warm.run(warm.definition())["tasks"][0]["taskArn"]
    warm.ecs.stop_task(cluster=warm.name, task=arn)
    stopped = warm.reaches(arn, "STOPPED")
    then = aws.status().now + 3
    wait_for(lambda: aws.status().now > then)
    assert warm.task(arn) == stopped


def test_a_repeated_client_token_returns_the_task_that_waits(aws: LocalAWS, warm: Stack) -> None:
    aws.play([faults.LatePlacement(seconds=1)])
    definition = warm.definition()
    first, again = (warm.run(definition, clientToken="once")["tasks"] for _ in range(2))
    assert [task["taskArn"] for task in first] == [task["taskArn"] for task in again]


def test_at_most_500_tasks_of_a_cluster_wait_for_a_place(aws: LocalAWS, stack: Stack) -> None:
    stack.group()
    stack.cluster()
    aws.play([faults.LatePlacement(seconds=3600)])
    definition = stack.definition()
    for _ in range(50):
        stack.run(definition, count=10)
    with pytest.raises(ClientError) as error:
        stack.run(definition)
    assert (code_of(error), message_of(error)) == ("ClientException", "Tasks provisioning capacity limit exceeded.")


def test_the_launch_type_has_tasks_placed_at_once(aws: LocalAWS, warm: Stack) -> None:
    aws.play([faults.LatePlacement(seconds=3600)])
    (task,) = warm.run(warm.definition(["true"]), launchType="EC2")["tasks"]
    assert "containerInstanceArn" in task
