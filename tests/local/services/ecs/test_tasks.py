"""Tasks of the embedded AWS: placement and processes."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.request import urlopen

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS
from tests.local.conftest import PRINT_ENVIRONMENT, Clients, Stack, code_of, message_of, wait_for

IGNORE_SIGTERM = [
    "python",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('started', flush=True); time.sleep(600)",
]
DISTINCT = [{"type": "distinctInstance"}]


def reasons(reply: dict[str, Any]) -> list[str]:
    return [failure["reason"] for failure in reply["failures"]]


def test_a_task_becomes_a_process_and_its_output_a_log_stream(aws: LocalAWS, warm: Stack) -> None:
    arn = warm.start(warm.definition(), startedBy="sb", tags=[{"key": "a", "value": "b"}])
    wait_for(lambda: warm.lines(arn) == ["started"])
    task = warm.task(arn)
    pid = aws.status().containers[f"{arn.rsplit('/', 1)[-1]}/main"]
    assert os.getpgid(pid) == pid
    assert (task["startedBy"], task["tags"]) == ("sb", [{"key": "a", "value": "b"}])
    assert task["createdAt"] <= task["pullStartedAt"] <= task["startedAt"]
    assert task["capacityProviderName"] == warm.name


def test_a_stopped_task_gets_sigterm_and_has_the_reason(warm: Stack) -> None:
    arn = warm.start(warm.definition())
    warm.ecs.stop_task(cluster=warm.name, task=arn, reason="scaled down")
    task = warm.reaches(arn, "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == ("UserInitiated", "scaled down")
    assert task["containers"][0]["exitCode"] == 143
    assert {one["name"]: one["integerValue"] for one in warm.instances[0]["remainingResources"]}["CPU"] == 2048


def test_a_task_that_ignores_sigterm_is_killed_after_the_stop_timeout(warm: Stack) -> None:
    arn = warm.start(warm.definition(IGNORE_SIGTERM, container={"stopTimeout": 2}))
    wait_for(lambda: warm.lines(arn))
    warm.ecs.stop_task(cluster=warm.name, task=arn)
    assert warm.reaches(arn, "STOPPED")["containers"][0]["exitCode"] == 137


def desired_status(aws: LocalAWS, task: str) -> str:
    """Return what the container's metadata says, as the container reads it."""
    with urlopen(f"{aws.private_url('ecs/v4', task.rsplit('/', 1)[-1])}/task") as reply:
        return str(json.load(reply)["DesiredStatus"])


def test_the_task_metadata_tells_a_stop_by_ecs_from_a_shutdown_of_the_instance(aws: LocalAWS, warm: Stack) -> None:
    first = warm.start(warm.definition(IGNORE_SIGTERM, container={"stopTimeout": 120}))
    wait_for(lambda: warm.lines(first))
    assert desired_status(aws, first) == "RUNNING"
    warm.ecs.stop_task(cluster=warm.name, task=first)
    wait_for(lambda: desired_status(aws, first) == "STOPPED")


def test_a_task_that_exits_has_the_exit_code_and_stop_code(warm: Stack) -> None:
    reply = warm.run(warm.definition(["python", "-c", "print('last words'); raise SystemExit(3)"]))
    arn = reply["tasks"][0]["taskArn"]
    task = warm.reaches(arn, "STOPPED")
    assert (task["stopCode"], task["stoppedReason"]) == (
        "EssentialContainerExited",
        "Essential container in task exited",
    )
    assert task["containers"][0]["exitCode"] == 3
    assert warm.lines(arn) == ["last words"]


def test_a_command_that_does_not_exist_is_a_task_that_failed_to_start(warm: Stack) -> None:
    arn = warm.run(warm.definition(["no-such-program"]))["tasks"][0]["taskArn"]
    task = warm.reaches(arn, "STOPPED")
    assert task["stopCode"] == "TaskFailedToStart"
    assert task["containers"][0]["reason"].startswith("CannotStartContainerError")


def test_a_missing_log_group_stops_the_task(warm: Stack) -> None:
    logging = warm.logging(**{"awslogs-group": "/missing/log-group"})
    arn = warm.run(warm.definition(container={"logConfiguration": logging}))["tasks"][0]["taskArn"]
    task = warm.reaches(arn, "STOPPED")
    assert task["stopCode"] == "TaskFailedToStart"
    assert "The specified log group does not exist" in task["containers"][0]["reason"]


def test_a_container_has_its_own_environment_and_little_of_the_server_s(
    aws: LocalAWS, warm: Stack, clients: Clients
) -> None:
    clients.ssm.put_parameter(Name=f"/{warm.name}/token", Value="hush", Type="SecureString")
    secret = clients.secretsmanager.create_secret(Name=warm.name, SecretString='{"password": "sesame"}')["ARN"]
    definition = warm.definition(
        PRINT_ENVIRONMENT,
        executionRoleArn="arn:aws:iam::123456789012:role/x",
        container={
            "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
            "secrets": [
                {"name": "TOKEN", "valueFrom": f"arn:aws:ssm:us-east-1:123456789012:parameter/{warm.name}/token"},
                {"name": "PASSWORD", "valueFrom": f"{secret}:password::"},
            ],
        },
    )
    override = {"containerOverrides": [{"name": "main", "environment": [{"name": "B", "value": "2"}]}]}
    arn = warm.run(definition, overrides=override)["tasks"][0]["taskArn"]
    warm.reaches(arn, "STOPPED")
    found = json.loads(warm.lines(arn)[0])
    identity, instance_id = arn.rsplit("/", 1)[-1], warm.instances[0]["ec2InstanceId"]
    assert {name: found[name] for name in ("A", "B", "TOKEN", "PASSWORD")} == {
        "A": "1",
        "B": "2",
        "TOKEN": "hush",
        "PASSWORD": "sesame",
    }
    assert found["ECS_CONTAINER_METADATA_URI_V4"] == aws.private_url("ecs/v4", identity)
    assert found["AWS_EC2_METADATA_SERVICE_ENDPOINT"] == aws.private_url("imds", instance_id) + "/"
    assert found["AWS_CONTAINER_CREDENTIALS_FULL_URI"] == aws.private_url("credentials", identity)
    assert (found["AWS_ENDPOINT_URL"], found["AWS_EXECUTION_ENV"]) == (aws.endpoint_url, "AWS_ECS_EC2")
    assert "AWS_SECRET_ACCESS_KEY" not in found
    assert "PYTEST_CURRENT_TEST" not in found


def test_a_missing_secret_stops_the_task(warm: Stack) -> None:
    secrets = [{"name": "TOKEN", "valueFrom": "/missing/parameter"}]
    definition = warm.definition(executionRoleArn="arn:aws:iam::123456789012:role/x", container={"secrets": secrets})
    task = warm.reaches(warm.run(definition)["tasks"][0]["taskArn"], "STOPPED")
    assert task["stoppedReason"].startswith("ResourceInitializationError: unable to pull secrets or registry auth:")
    assert task["stopCode"] == "TaskFailedToStart"


def test_a_task_can_read_its_metadata(warm: Stack) -> None:
    ask = (
        "import os, urllib.request as u; print(u.urlopen(os.environ['ECS_CONTAINER_METADATA_URI_V4'] + '/task')"
        ".read().decode())"
    )
    arn = warm.run(warm.definition(["python", "-c", ask]))["tasks"][0]["taskArn"]
    warm.reaches(arn, "STOPPED")
    assert json.loads(warm.lines(arn)[0])["TaskARN"] == arn


def test_tasks_end_with_their_host(warm: Stack) -> None:
    arn = warm.start(warm.definition(IGNORE_SIGTERM))
    wait_for(lambda: warm.lines(arn))
    instance_id = warm.instances[0]["ec2InstanceId"]
    warm.autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=instance_id, ShouldDecrementDesiredCapacity=True
    )
    task = warm.reaches(arn, "STOPPED")
    assert task["stoppedReason"] == f"Host EC2 (instance {instance_id}) terminated."
    assert task["containers"][0]["exitCode"] == 137


def test_an_empty_provider_fails_at_once(stack: Stack) -> None:
    stack.group()
    stack.cluster()
    reply = stack.run(stack.definition())
    assert (reply["tasks"], reasons(reply)) == ([], ["EMPTY CAPACITY PROVIDER"])
    with pytest.raises(ClientError) as error:
        stack.run(stack.definition(), launchType="EC2")
    assert code_of(error) == "InvalidParameterException"
    assert message_of(error) == "No Container Instances were found in your cluster."


def test_no_task_is_placed_on_an_instance_whose_agent_is_not_connected_yet(stack: Stack) -> None:
    stack.group(size=1)
    stack.cluster()
    wait_for(lambda: stack.instances)
    reply = stack.run(stack.definition())
    # The agent may connect between the two calls.
    assert reasons(reply) == ["AGENT"] or stack.instances[0]["agentConnected"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cpu": "4096", "memory": "64"}, "RESOURCE:CPU"),
        ({"memory": "9000"}, "RESOURCE:MEMORY"),
        ({"runtimePlatform": {"cpuArchitecture": "X86_64"}}, "ATTRIBUTE"),
    ],
    ids=["cpu", "memory", "architecture"],
)
def test_a_task_that_does_not_fit_is_refused_with_the_reason_of_ecs(
    warm: Stack, changes: dict[str, Any], reason: str
) -> None:
    reply = warm.run(warm.definition(**changes))
    assert (reply["tasks"], reasons(reply)) == ([], [reason])
    assert reply["failures"][0]["arn"] == warm.instances[0]["containerInstanceArn"]


def test_as_many_tasks_are_placed_as_fit(warm: Stack) -> None:
    reply = warm.run(warm.definition(["true"], cpu="700"), count=5)
    assert len(reply["tasks"]) == 2
    assert reasons(reply) == ["RESOURCE:CPU"]


def test_the_sizes_of_a_task_can_be_overridden(warm: Stack) -> None:
    override = {"cpu": "2048", "memory": "128"}
    task = warm.run(warm.definition(["true"]), overrides=override)["tasks"][0]
    assert (task["cpu"], task["memory"]) == ("2048", "128")
    assert reasons(warm.run(warm.definition(["true"]), overrides=override)) == ["RESOURCE:CPU"]


def test_distinct_tasks_of_a_group_never_share_an_instance(stack: Stack) -> None:
    stack.group(size=2)
    stack.cluster()
    stack.connected(2)
    definition = stack.definition()
    reply = stack.run(definition, count=3, group="workers", placementConstraints=DISTINCT)
    assert len({task["containerInstanceArn"] for task in reply["tasks"]}) == 2
    assert len(reply["failures"]) == 2
    again = stack.run(definition, group="workers", placementConstraints=DISTINCT)
    assert again["tasks"] == []
    other = stack.run(definition, group="others", placementConstraints=DISTINCT)
    assert other["failures"] == []


def test_a_host_port_is_used_only_once(warm: Stack) -> None:
    definition = warm.definition(container={"portMappings": [{"containerPort": 8786}]})
    warm.start(definition)
    assert reasons(warm.run(definition)) == ["RESOURCE:PORTS"]


def test_no_task_is_placed_on_a_draining_instance(warm: Stack) -> None:
    arn = warm.instances[0]["containerInstanceArn"]
    running = warm.start(warm.definition())
    warm.ecs.update_container_instances_state(cluster=warm.name, containerInstances=[arn], status="DRAINING")
    assert reasons(warm.run(warm.definition())) == ["NO ACTIVE INSTANCES"]
    assert warm.task(running)["lastStatus"] == "RUNNING"


def test_a_provider_of_another_cluster_is_refused(warm: Stack) -> None:
    with pytest.raises(ClientError) as error:
        warm.run(warm.definition(), capacityProviderStrategy=[{"capacityProvider": "another"}])
    assert code_of(error) == "InvalidParameterException"
    assert "not associated with the cluster" in message_of(error)


def test_a_repeated_client_token_runs_no_second_task(warm: Stack) -> None:
    definition = warm.definition()
    first = warm.run(definition, clientToken="once", count=2)
    again = warm.run(definition, clientToken="once", count=2)
    assert [task["taskArn"] for task in again["tasks"]] == [task["taskArn"] for task in first["tasks"]]
    assert len(warm.ecs.list_tasks(cluster=warm.name)["taskArns"]) == 2
    with pytest.raises(ClientError) as error:
        warm.run(definition, clientToken="once", count=1)
    assert code_of(error) == "ConflictException"


@pytest.mark.parametrize("count", [0, 11])
def test_a_call_runs_one_to_ten_tasks(warm: Stack, count: int) -> None:
    with pytest.raises(ClientError) as error:
        warm.run(warm.definition(), count=count)
    assert code_of(error) == "InvalidParameterException"


def test_overrides_that_are_too_long_are_refused(warm: Stack) -> None:
    environment = [{"name": "A", "value": "x" * 8192}]
    with pytest.raises(ClientError) as error:
        warm.run(warm.definition(), overrides={"containerOverrides": [{"name": "main", "environment": environment}]})
    assert code_of(error) == "InvalidParameterException"


def test_an_inactive_definition_cannot_be_run(warm: Stack) -> None:
    definition = warm.definition()
    warm.ecs.deregister_task_definition(taskDefinition=definition)
    with pytest.raises(ClientError) as error:
        warm.run(definition)
    assert code_of(error) == "ClientException"


def test_an_unknown_task_is_missing(warm: Stack) -> None:
    reply = warm.ecs.describe_tasks(cluster=warm.name, tasks=["0" * 32])
    assert reply["tasks"] == []
    assert reasons(reply) == ["MISSING"]


def test_tasks_are_listed_by_started_by_and_in_pages(warm: Stack) -> None:
    definition = warm.definition()
    ours = {task["taskArn"] for task in warm.run(definition, startedBy="us", count=3)["tasks"]}
    warm.run(definition, startedBy="them")
    pages = warm.ecs.get_paginator("list_tasks").paginate(
        cluster=warm.name, startedBy="us", PaginationConfig={"PageSize": 2}
    )
    sizes = [page["taskArns"] for page in pages]
    assert [len(page) for page in sizes] == [2, 1]
    assert {arn for page in sizes for arn in page} == ours
    warm.ecs.stop_task(cluster=warm.name, task=min(ours))
    warm.reaches(min(ours), "STOPPED")
    stopped = warm.ecs.list_tasks(cluster=warm.name, desiredStatus="STOPPED")["taskArns"]
    assert stopped == [min(ours)]
    with pytest.raises(ClientError):
        warm.ecs.list_tasks(cluster=warm.name, startedBy="us", family=warm.name)


def test_the_end_of_an_essential_container_ends_the_others(warm: Stack) -> None:
    containers = [
        {"name": "short", "image": "any", "memory": 32, "command": ["python", "-c", "import time; time.sleep(0.3)"]},
        {"name": "long", "image": "any", "memory": 32, "command": ["sleep", "600"]},
    ]
    definition = warm.ecs.register_task_definition(family=warm.name, containerDefinitions=containers)
    arn = warm.run(definition["taskDefinition"]["taskDefinitionArn"])["tasks"][0]["taskArn"]
    task = warm.reaches(arn, "STOPPED")
    assert task["stopCode"] == "EssentialContainerExited"
    assert {one["name"]: one["exitCode"] for one in task["containers"]} == {"short": 0, "long": 143}
