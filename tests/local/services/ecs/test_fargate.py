"""Fargate and network mode awsvpc: validation, and the network interface of a task."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS, faults
from tests.local.conftest import PRINT_ENVIRONMENT, SLEEP, Clients, Stack, code_of, log_lines, message_of, wait_for

ROLE = "arn:aws:iam::123456789012:role/any"


class Fargate:
    """A cluster with the Fargate capacity providers."""

    def __init__(self, clients: Clients) -> None:
        self.name = f"f-{uuid.uuid4().hex[:10]}"
        self.ecs, self.ec2, self.logs = clients.ecs, clients.ec2, clients.logs
        self.ecs.create_cluster(clusterName=self.name, capacityProviders=["FARGATE", "FARGATE_SPOT"])
        self.logs.create_log_group(logGroupName=self.name)
        subnet = self.ec2.describe_subnets()["Subnets"][0]
        self.subnet = subnet["SubnetId"]
        self.group = self.ec2.create_security_group(GroupName=self.name, Description="x", VpcId=subnet["VpcId"])[
            "GroupId"
        ]

    def definition(self, command: list[str] = SLEEP, **changes: Any) -> str:
        options = {"awslogs-group": self.name, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "sb"}
        container = {
            "name": "main",
            "image": "any",
            "command": command,
            "logConfiguration": {"logDriver": "awslogs", "options": options},
        }
        document = {
            "family": self.name,
            "networkMode": "awsvpc",
            "requiresCompatibilities": ["FARGATE"],
            "cpu": "256",
            "memory": "512",
            "executionRoleArn": ROLE,
            "containerDefinitions": [container],
            **changes,
        }
        kept = {key: value for key, value in document.items() if value is not None}
        arn: str = self.ecs.register_task_definition(**kept)["taskDefinition"]["taskDefinitionArn"]
        return arn

    def run(self, definition: str, **changes: Any) -> Any:
        request = {
            "cluster": self.name,
            "taskDefinition": definition,
            "launchType": "FARGATE",
            "networkConfiguration": self.network(),
            **changes,
        }
        return self.ecs.run_task(**{key: value for key, value in request.items() if value is not None})

    def network(self, **changes: Any) -> dict[str, Any]:
        return {
            "awsvpcConfiguration": {
                "subnets": [self.subnet],
                "securityGroups": [self.group],
                "assignPublicIp": "ENABLED",
                **changes,
            }
        }

    def task(self, arn: str) -> dict[str, Any]:
        task: dict[str, Any] = self.ecs.describe_tasks(cluster=self.name, tasks=[arn])["tasks"][0]
        return task

    def reaches(self, arn: str, status: str) -> dict[str, Any]:
        wait_for(lambda: self.task(arn)["lastStatus"] == status, status)
        return self.task(arn)

    def lines(self, arn: str) -> list[str]:
        stream = f"sb/main/{arn.rsplit('/', 1)[-1]}"
        return log_lines(self.logs, self.name, stream)


@pytest.fixture
def fargate(clients: Clients) -> Iterator[Fargate]:
    made = Fargate(clients)
    yield made
    with suppress(made.ecs.exceptions.ClusterNotFoundException):  # the test has deleted it
        for arn in made.ecs.list_tasks(cluster=made.name)["taskArns"]:
            made.ecs.stop_task(cluster=made.name, task=arn)


def details(task: dict[str, Any]) -> dict[str, str]:
    (attachment,) = task["attachments"]
    return {item["name"]: item["value"] for item in attachment["details"]}


def test_a_fargate_task_has_a_reachable_interface_that_is_deleted_with_it(fargate: Fargate) -> None:
    started = fargate.run(fargate.definition())["tasks"][0]
    assert (started["lastStatus"], started["launchType"]) == ("PROVISIONING", "FARGATE")
    assert "networkInterfaceId" not in details(started)
    assert "containerInstanceArn" not in started
    task = fargate.reaches(started["taskArn"], "RUNNING")
    interface_id = details(task)["networkInterfaceId"]
    (found,) = fargate.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface_id])["NetworkInterfaces"]
    assert found["Association"]["PublicIp"] == found["PrivateIpAddress"] == details(task)["privateIPv4Address"]
    assert found["PrivateIpAddress"].startswith("127.")
    with pytest.raises(ClientError) as error:
        fargate.ec2.delete_security_group(GroupId=fargate.group)
    assert code_of(error) == "DependencyViolation"
    fargate.ecs.stop_task(cluster=fargate.name, task=task["taskArn"])
    fargate.reaches(task["taskArn"], "STOPPED")
    with pytest.raises(ClientError) as error:
        fargate.ec2.describe_network_interfaces(NetworkInterfaceIds=[interface_id])
    assert code_of(error) == "InvalidNetworkInterfaceID.NotFound"
    fargate.ec2.delete_security_group(GroupId=fargate.group)


def test_a_cluster_with_a_deprovisioning_task_cannot_be_deleted(fargate: Fargate) -> None:
    arn = fargate.run(fargate.definition(["python", "-c", ""]))["tasks"][0]["taskArn"]
    with pytest.raises(ClientError) as error:
        fargate.ecs.delete_cluster(cluster=fargate.name)
    assert code_of(error) == "ClusterContainsTasksException"
    fargate.reaches(arn, "STOPPED")
    fargate.ecs.delete_cluster(cluster=fargate.name)


def test_a_container_on_fargate_knows_its_launch_type_and_no_instance(fargate: Fargate) -> None:
    arn = fargate.run(fargate.definition(PRINT_ENVIRONMENT))["tasks"][0]["taskArn"]
    fargate.reaches(arn, "STOPPED")
    environment = json.loads(fargate.lines(arn)[0])
    assert environment["AWS_EXECUTION_ENV"] == "AWS_ECS_FARGATE"
    assert "AWS_EC2_METADATA_SERVICE_ENDPOINT" not in environment


def test_fargate_spot_is_a_capacity_provider(fargate: Fargate) -> None:
    strategy = [{"capacityProvider": "FARGATE_SPOT"}]
    task = fargate.run(fargate.definition(), launchType=None, capacityProviderStrategy=strategy)["tasks"][0]
    assert (task["capacityProviderName"], task["launchType"]) == ("FARGATE_SPOT", "FARGATE")
    described = fargate.ecs.describe_capacity_providers(capacityProviders=["FARGATE"])["capacityProviders"]
    assert [one["name"] for one in described] == ["FARGATE"]
    with pytest.raises(ClientError, match="reserved"):
        fargate.ecs.delete_capacity_provider(capacityProvider="FARGATE")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networkMode": "host"}, "Fargate only supports network mode"),
        ({"cpu": "1000"}, "No Fargate configuration exists for given values."),
        ({"memory": "4096"}, "No Fargate configuration exists for given values."),
        ({"memory": None}, "defined at the task level"),
        ({"executionRoleArn": None}, "execution role ARN to support log driver awslogs"),
    ],
)
def test_a_definition_that_is_not_valid_for_fargate_is_refused(fargate: Fargate, changes: Any, message: str) -> None:
    if "memory" in changes and changes["memory"] is None:
        changes = {**changes, "containerDefinitions": [{"name": "main", "image": "any", "memory": 64}]}
    with pytest.raises(ClientError) as error:
        fargate.definition(**changes)
    assert code_of(error) == "ClientException"
    assert message in message_of(error)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networkConfiguration": None}, "Network Configuration must be provided"),
        ({"platformVersion": "9.9.9"}, "platform version"),
        ({"placementConstraints": [{"type": "distinctInstance"}]}, "not supported"),
        ({"launchType": "EC2"}, "Assign public IP is not supported for this launch type."),
    ],
)
def test_run_task_parameters_that_fargate_does_not_support_are_refused(
    fargate: Fargate, changes: Any, message: str
) -> None:
    with pytest.raises(ClientError) as error:
        fargate.run(fargate.definition(), **changes)
    assert code_of(error) == "InvalidParameterException"
    assert message in message_of(error)


def test_an_unknown_subnet_or_security_group_is_refused(fargate: Fargate) -> None:
    for changes, code in (
        ({"subnets": ["subnet-00000000"]}, "InvalidSubnetID.NotFound"),
        ({"securityGroups": ["sg-00000000"]}, "InvalidGroup.NotFound"),
    ):
        with pytest.raises(ClientError, match=code):
            fargate.run(fargate.definition(), networkConfiguration=fargate.network(**changes))


def test_an_awsvpc_task_on_an_instance_has_its_own_address(warm: Stack) -> None:
    definition = warm.definition(networkMode="awsvpc")
    network = {"awsvpcConfiguration": {"subnets": warm.subnets}}
    arn = warm.start(definition, networkConfiguration=network)
    address = details(warm.task(arn))["privateIPv4Address"]
    (instance,) = warm.ec2.describe_instances(InstanceIds=[warm.instances[0]["ec2InstanceId"]])["Reservations"][0][
        "Instances"
    ]
    assert address != instance["PrivateIpAddress"]
    assert warm.task(arn)["containers"][0]["networkInterfaces"][0]["privateIpv4Address"] == address


def test_an_instance_attaches_no_more_interfaces_than_its_type_supports(warm: Stack) -> None:
    definition = warm.definition(networkMode="awsvpc")
    network = {"awsvpcConfiguration": {"subnets": warm.subnets}}
    # A c7g.large has three; the first is its own.
    reply = warm.run(definition, networkConfiguration=network, count=3)
    assert len(reply["tasks"]) == 2
    assert [failure["reason"] for failure in reply["failures"]] == ["RESOURCE:ENI"]


def test_no_task_is_placed_outside_the_zones_of_its_subnets(warm: Stack) -> None:
    network = {"awsvpcConfiguration": {"subnets": warm.subnets[1:]}}
    reply = warm.run(warm.definition(networkMode="awsvpc"), networkConfiguration=network)
    assert [failure["reason"] for failure in reply["failures"]] == ["ATTRIBUTE"]


def test_a_network_configuration_without_awsvpc_is_refused(warm: Stack) -> None:
    network = {"awsvpcConfiguration": {"subnets": warm.subnets}}
    with pytest.raises(ClientError, match="not valid for the given networkMode"):
        warm.run(warm.definition(), networkConfiguration=network)


def test_a_task_over_the_fargate_quota_is_a_failure_with_the_message_of_aws(aws: LocalAWS, fargate: Fargate) -> None:
    definition = fargate.definition(cpu="1024", memory="2048")
    aws.play([faults.Quota(code="L-3032A538", vcpus=2)])
    try:
        reply = fargate.run(definition, count=3)
        assert len(reply["tasks"]) == 2
        (failure,) = reply["failures"]
        assert "reached the limit on the number of vCPUs you can run concurrently" in failure["reason"]
        spot = [{"capacityProvider": "FARGATE_SPOT"}]  # has its own quota
        assert fargate.run(definition, launchType=None, capacityProviderStrategy=spot)["failures"] == []
    finally:
        aws.play([faults.Clear()])
