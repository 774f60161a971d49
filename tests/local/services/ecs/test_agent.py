"""The agent's introspection endpoint, with the shapes of the real one."""

from __future__ import annotations

import json
import urllib.request
import uuid
from typing import Any
from urllib.error import HTTPError

import pytest

from dask_starburst.local import LocalAWS
from tests.local.conftest import Stack, wait_for


@pytest.fixture
def ask(aws: LocalAWS) -> Any:
    def ask(instance: str, path: str) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(f"{aws.private_url('agent', instance)}/v1/{path}") as reply:
                return reply.status, json.load(reply)
        except HTTPError as error:
            return error.code, json.load(error)

    return ask


def test_the_agent_reports_its_metadata(warm: Stack, ask: Any) -> None:
    [instance] = warm.instances
    status, said = ask(instance["ec2InstanceId"], "metadata")
    assert status == 200
    assert said["Version"].startswith("Amazon ECS Agent - v")
    assert said["Cluster"] == warm.name
    assert said["ContainerInstanceArn"] == instance["containerInstanceArn"]


def test_the_agent_lists_its_tasks_stopped_ones_too(warm: Stack, ask: Any) -> None:
    [instance] = (one["ec2InstanceId"] for one in warm.instances)
    assert ask(instance, "tasks") == (200, {"Tasks": []})
    arn = warm.start(warm.definition())
    [task] = ask(instance, "tasks")[1]["Tasks"]
    [container] = task.pop("Containers")
    assert task == {
        "Arn": arn,
        "DesiredStatus": "RUNNING",
        "KnownStatus": "RUNNING",
        "Family": warm.name,
        "Version": "1",
    }
    assert (container["Name"], container["Image"]) == ("main", "any")
    assert container.keys() == {"DockerId", "DockerName", "Name", "Image", "ImageID", "CreatedAt", "StartedAt"}
    warm.ecs.stop_task(cluster=warm.name, task=arn)
    warm.reaches(arn, "STOPPED")
    [task] = ask(instance, "tasks")[1]["Tasks"]
    assert (task["DesiredStatus"], task["KnownStatus"]) == ("STOPPED", "STOPPED")


def test_the_agent_lists_no_tasks_if_one_never_had_a_container(warm: Stack, ask: Any) -> None:
    [instance] = (one["ec2InstanceId"] for one in warm.instances)
    definition = warm.definition(container={"command": ["/no/such/program"]})
    arn = warm.run(definition)["tasks"][0]["taskArn"]
    warm.reaches(arn, "STOPPED")
    assert ask(instance, "tasks") == (404, {"Tasks": None})


def test_an_instance_without_an_agent_does_not_answer(stack: Stack, ask: Any) -> None:
    stack.group(size=1)  # without the cluster of its user data
    [instance] = (one["InstanceId"] for one in stack.in_service(1))
    assert ask(instance, "tasks")[0] == 503
    assert ask(f"i-{uuid.uuid4().hex[:17]}", "tasks")[0] == 503


def test_an_instance_that_shuts_down_does_not_answer(warm: Stack, ask: Any) -> None:
    [instance] = (one["ec2InstanceId"] for one in warm.instances)
    warm.ec2.terminate_instances(InstanceIds=[instance])
    wait_for(lambda: ask(instance, "tasks")[0] == 503, "the agent is gone")
