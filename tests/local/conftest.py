"""One embedded AWS for all tests of this folder; each test creates resources with unique names."""

from __future__ import annotations

import base64
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from dask_starburst.local import LocalAWS

T = TypeVar("T")
ARM = "/aws/service/ecs/optimized-ami/amazon-linux-2023/arm64/recommended/image_id"
SLEEP = ["python", "-c", "import time; print('started', flush=True); time.sleep(600)"]


def wait_for(ask: Callable[[], T], what: str = "", seconds: float = 10.0) -> T:
    """Poll until the result is true, and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = ask()
        if answer:
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what or ask}")


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAWS]:
    # No test here measures time, so the clock can run five times as fast.
    with LocalAWS(speed=5.0) as running:
        # The console creates this role in most accounts; without it there is no Spot.
        running.client("iam").create_service_linked_role(AWSServiceName="spot.amazonaws.com")
        yield running


def log_lines(logs: Any, group: str, stream: str) -> list[str]:
    """Return the lines of a log stream, from all of its pages."""
    request = {"logGroupName": group, "logStreamName": stream, "startFromHead": True}
    lines: list[str] = []
    while True:
        reply = logs.get_log_events(**request)
        lines += [event["message"] for event in reply["events"]]
        if reply["nextForwardToken"] == request.get("nextToken"):
            return lines
        request["nextToken"] = reply["nextForwardToken"]


class Clients:
    """One client per service, created on first use."""

    def __init__(self, aws: LocalAWS) -> None:
        self._session = aws.session()
        self._clients: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        if name not in self._clients:
            self._clients[name] = self._session.client(name)
        return self._clients[name]


@pytest.fixture(scope="session")
def clients(aws: LocalAWS) -> Clients:
    return Clients(aws)


class Stack:
    """A launch template with a group, a cluster and a capacity provider."""

    def __init__(self, clients: Clients) -> None:
        self.name = f"t-{uuid.uuid4().hex[:10]}"
        self.ecs, self.autoscaling, self.ec2, self.logs = clients.ecs, clients.autoscaling, clients.ec2, clients.logs
        self.image = clients.ssm.get_parameter(Name=ARM)["Parameter"]["Value"]
        subnets = self.ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
        self.subnets = [subnet["SubnetId"] for subnet in subnets]

    def template(self, **changes: Any) -> dict[str, Any]:
        """Create the launch template and return its specification."""
        user_data = f"#!/bin/bash\necho ECS_CLUSTER={self.name} >> /etc/ecs/ecs.config\n"
        data = {
            "ImageId": self.image,
            "InstanceType": "c7g.large",
            "UserData": base64.b64encode(user_data.encode()).decode(),
            **changes,
        }
        made = self.ec2.create_launch_template(
            LaunchTemplateName=f"{self.name}-{len(changes)}", LaunchTemplateData=data
        )
        return {"LaunchTemplateId": made["LaunchTemplate"]["LaunchTemplateId"], "Version": "1"}

    def group(self, size: int = 0, most: int = 5, **settings: Any) -> None:
        """Create the group."""
        purchase = settings if "MixedInstancesPolicy" in settings else {"LaunchTemplate": self.template(), **settings}
        self.autoscaling.create_auto_scaling_group(
            **{
                "AutoScalingGroupName": self.name,
                "MinSize": 0,
                "MaxSize": most,
                "DesiredCapacity": size,
                "VPCZoneIdentifier": self.subnets[0],
                **purchase,
            }
        )

    def cluster(self) -> None:
        """Create the cluster, the capacity provider and the log group."""
        self.logs.create_log_group(logGroupName=self.name)
        self.ecs.create_cluster(clusterName=self.name)
        provider = {
            "autoScalingGroupArn": self.described["AutoScalingGroupARN"],
            "managedScaling": {"status": "DISABLED"},
            "managedDraining": "DISABLED",
        }
        self.ecs.create_capacity_provider(name=self.name, autoScalingGroupProvider=provider)
        self.ecs.put_cluster_capacity_providers(
            cluster=self.name, capacityProviders=[self.name], defaultCapacityProviderStrategy=[]
        )

    def definition(self, command: list[str] | None = None, **changes: Any) -> str:
        """Register a task definition with one container, and return its ARN."""
        container = {
            "name": "main",
            "image": "any",
            "memory": 64,
            "command": command or SLEEP,
            "logConfiguration": self.logging(),
            **changes.pop("container", {}),
        }
        document = {"family": self.name, "networkMode": "host", "containerDefinitions": [container], **changes}
        arn: str = self.ecs.register_task_definition(**document)["taskDefinition"]["taskDefinitionArn"]
        return arn

    def logging(self, **options: str) -> dict[str, Any]:
        standard = {"awslogs-group": self.name, "awslogs-region": "us-east-1", "awslogs-stream-prefix": "sb"}
        return {"logDriver": "awslogs", "options": {**standard, **options}}

    def run(self, definition: str, **changes: Any) -> dict[str, Any]:
        """Call RunTask through the capacity provider."""
        strategy = [{"capacityProvider": self.name}]
        request = {"cluster": self.name, "taskDefinition": definition, "capacityProviderStrategy": strategy, **changes}
        if "launchType" in changes:
            del request["capacityProviderStrategy"]
        reply: dict[str, Any] = self.ecs.run_task(**request)
        return reply

    def start(self, definition: str, **changes: Any) -> str:
        """Run one task and return its ARN once it runs."""
        reply = self.run(definition, **changes)
        assert reply["failures"] == []
        arn: str = reply["tasks"][0]["taskArn"]
        self.reaches(arn, "RUNNING")
        return arn

    def task(self, arn: str) -> dict[str, Any]:
        task: dict[str, Any] = self.ecs.describe_tasks(cluster=self.name, tasks=[arn], include=["TAGS"])["tasks"][0]
        return task

    def reaches(self, arn: str, status: str, seconds: float = 10.0) -> dict[str, Any]:
        wait_for(lambda: self.task(arn)["lastStatus"] == status, f"{arn} is {status}", seconds)
        return self.task(arn)

    def lines(self, arn: str) -> list[str]:
        stream = f"sb/main/{arn.rsplit('/', 1)[-1]}"
        return log_lines(self.logs, self.name, stream)

    @property
    def described(self) -> dict[str, Any]:
        groups = self.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[self.name])["AutoScalingGroups"]
        found: dict[str, Any] = groups[0] if groups else {}
        return found

    @property
    def members(self) -> list[dict[str, Any]]:
        members: list[dict[str, Any]] = self.described.get("Instances", [])
        return members

    def in_service(self, count: int) -> list[dict[str, Any]]:
        """Wait until exactly `count` instances are in service and no others exist."""
        wait_for(
            lambda: [one["LifecycleState"] for one in self.members] == ["InService"] * count, f"{count} in service"
        )
        return self.members

    @property
    def instances(self) -> list[dict[str, Any]]:
        arns = self.ecs.list_container_instances(cluster=self.name)["containerInstanceArns"]
        if not arns:
            return []
        reply = self.ecs.describe_container_instances(cluster=self.name, containerInstances=arns)
        found: list[dict[str, Any]] = reply["containerInstances"]
        return found

    def connected(self, count: int) -> list[dict[str, Any]]:
        """Wait until `count` container instances are registered and connected."""
        wait_for(lambda: [one["agentConnected"] for one in self.instances] == [True] * count, f"{count} connected")
        return self.instances

    def close(self) -> None:
        if self.described:
            self.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=self.name, ForceDelete=True)


@pytest.fixture
def stack(clients: Clients) -> Iterator[Stack]:
    made = Stack(clients)
    yield made
    made.close()


@pytest.fixture
def warm(stack: Stack) -> Stack:
    """A stack with one connected instance."""
    stack.group(size=1)
    stack.cluster()
    stack.connected(1)
    return stack


def code_of(error: pytest.ExceptionInfo[Any]) -> str:
    """Return the AWS error code of a raised client error."""
    code: str = error.value.response["Error"]["Code"]
    return code


def message_of(error: pytest.ExceptionInfo[Any]) -> str:
    message: str = error.value.response["Error"]["Message"]
    return message


PRINT_ENVIRONMENT = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
__all__ = ["PRINT_ENVIRONMENT", "SLEEP", "Clients", "Stack", "code_of", "json", "log_lines", "message_of", "wait_for"]
