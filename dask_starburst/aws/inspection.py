"""Look at AWS's raw answers, for `starburst verify`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dask_starburst.aws.session import AWS


@dataclass(frozen=True, slots=True)
class RegisteredHost:
    """A container instance: its EC2 id and type, its registered memory (MiB) and its capacity provider."""

    instance: str
    type: str
    memory: int
    provider: str


async def registered(aws: AWS, cluster: str) -> list[RegisteredHost]:
    """Return what the container instances of a cluster have registered."""
    arns = await aws.pages("ecs", "ListContainerInstances", "containerInstanceArns", cluster=cluster)
    if not arns:
        return []
    answer = await aws.call("ecs", "DescribeContainerInstances", cluster=cluster, containerInstances=arns[:100])
    return [_registered(found) for found in answer["containerInstances"]]


def _registered(found: dict[str, Any]) -> RegisteredHost:
    attributes = {each["name"]: each.get("value", "") for each in found.get("attributes", [])}
    memory = sum(each["integerValue"] for each in found["registeredResources"] if each["name"] == "MEMORY")
    kind = attributes.get("ecs.instance-type", "")
    return RegisteredHost(found["ec2InstanceId"], kind, memory, found.get("capacityProviderName", ""))


async def instance_tags(aws: AWS, instances: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the tags of instances, by instance."""
    reservations = await aws.pages("ec2", "DescribeInstances", "Reservations", InstanceIds=sorted(instances))
    found = [instance for reservation in reservations for instance in reservation["Instances"]]
    return {i["InstanceId"]: {tag["Key"]: tag["Value"] for tag in i.get("Tags", [])} for i in found}


async def newest_definition(aws: AWS, family: str) -> str:
    """Return the ARN of the latest active revision of a task definition family."""
    answer = await aws.call("ecs", "DescribeTaskDefinition", taskDefinition=family)
    return str(answer["taskDefinition"]["taskDefinitionArn"])


async def run_task(aws: AWS, cluster: str, definition: str, **request: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """Run one task; return AWS's description of it and the reasons of failures, as RunTask answered."""
    answer = await aws.call("ecs", "RunTask", cluster=cluster, taskDefinition=definition, count=1, **request)
    return answer["tasks"], [failure.get("reason", "") for failure in answer["failures"]]


async def describe_task(aws: AWS, cluster: str, task: str) -> dict[str, Any]:
    """Return ECS's description of a task; empty if it shows none."""
    answer = await aws.call("ecs", "DescribeTasks", cluster=cluster, tasks=[task])
    return answer["tasks"][0] if answer["tasks"] else {}


async def lifecycle_states(aws: AWS, group: str) -> dict[str, str]:
    """Return the lifecycle state of each instance of an Auto Scaling group."""
    answer = await aws.call("autoscaling", "DescribeAutoScalingGroups", AutoScalingGroupNames=[group])
    return {i["InstanceId"]: i["LifecycleState"] for found in answer["AutoScalingGroups"] for i in found["Instances"]}


async def schedule_maximum(aws: AWS, group: str, action: str, at: float) -> None:
    """Let an empty group have one instance, and schedule its maximum to become zero (seconds since the epoch)."""
    await aws.call("autoscaling", "UpdateAutoScalingGroup", AutoScalingGroupName=group, MaxSize=1)
    await aws.call(
        "autoscaling",
        "PutScheduledUpdateGroupAction",
        AutoScalingGroupName=group,
        ScheduledActionName=action,
        StartTime=datetime.fromtimestamp(int(at), UTC),
        MaxSize=0,
    )


async def log_lines(aws: AWS, group: str, prefix: str, since: float) -> list[str]:
    """Return the log lines of the streams with this prefix, since a time (seconds since the epoch)."""
    wanted = {"logGroupName": group, "logStreamNamePrefix": prefix, "startTime": int(since * 1000)}
    return [event["message"] for event in await aws.pages("logs", "FilterLogEvents", "events", **wanted)]
