"""The resources of an account and region that carry a tag or a name of ours, by kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tlz import partition_all

from dask_starburst.aws.session import AWS

#: The most clusters of one DescribeClusters call (ECS API reference).
_MOST_CLUSTERS = 100


@dataclass(frozen=True, slots=True)
class Found:
    """A resource: its id, its name, and the value of the tag; empty if it is not tagged."""

    id: str
    name: str
    tag: str = ""


async def clusters(aws: AWS, key: str) -> list[Found]:
    """Return the active ECS clusters with a tag."""
    arns = await aws.pages("ecs", "ListClusters", "clusterArns")
    calls = (
        aws.call("ecs", "DescribeClusters", clusters=list(part), include=["TAGS"])
        for part in partition_all(_MOST_CLUSTERS, arns)
    )
    found = [each for answer in await asyncio.gather(*calls) for each in answer["clusters"]]
    made = (Found(each["clusterArn"], each["clusterName"], _ecs_tag(each, key)) for each in found if _active(each))
    return [each for each in made if each.tag]


async def capacity_providers(aws: AWS, key: str) -> list[Found]:
    """Return the active capacity providers of the account, tagged or not."""
    found: list[dict[str, Any]] = []
    more: dict[str, str] = {}
    while True:  # botocore has no paginator for it
        answer = await aws.call("ecs", "DescribeCapacityProviders", include=["TAGS"], **more)
        found += answer["capacityProviders"]
        if not answer.get("nextToken"):
            break
        more = {"nextToken": answer["nextToken"]}
    return [Found(each["capacityProviderArn"], each["name"], _ecs_tag(each, key)) for each in found if _active(each)]


async def task_definitions(aws: AWS, prefix: str, ours: Callable[[str], object]) -> list[Found]:
    """Return the active task definitions of the families with this prefix that are `ours`; the tag is the family."""
    families = await aws.pages("ecs", "ListTaskDefinitionFamilies", "families", familyPrefix=prefix, status="ACTIVE")
    mine = [family for family in families if ours(family)]
    # `familyPrefix` is the whole family here, in spite of its name (ECS API reference, ListTaskDefinitions).
    calls = (aws.pages("ecs", "ListTaskDefinitions", "taskDefinitionArns", familyPrefix=each) for each in mine)
    arns = await asyncio.gather(*calls)
    return [Found(arn, arn.rpartition("/")[2], family) for family, part in zip(mine, arns, strict=True) for arn in part]


async def launch_templates(aws: AWS, key: str) -> list[Found]:
    """Return the launch templates with a tag."""
    found = await aws.pages("ec2", "DescribeLaunchTemplates", "LaunchTemplates", Filters=_tagged(key))
    return [Found(each["LaunchTemplateId"], each["LaunchTemplateName"], _tag(each, key)) for each in found]


async def security_groups(aws: AWS, key: str) -> list[Found]:
    """Return the security groups with a tag."""
    found = await aws.pages("ec2", "DescribeSecurityGroups", "SecurityGroups", Filters=_tagged(key))
    return [Found(each["GroupId"], each["GroupName"], _tag(each, key)) for each in found]


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance, its type, whether it is Spot, and the Auto Scaling group that launched it."""

    found: Found
    type: str
    spot: bool
    group: str


async def instances(aws: AWS, key: str, states: list[str]) -> list[Instance]:
    """Return the instances with a tag that are in one of these states."""
    filters = [*_tagged(key), {"Name": "instance-state-name", "Values": states}]
    found = await aws.pages("ec2", "DescribeInstances", "Reservations", Filters=filters)
    return [
        Instance(
            Found(each["InstanceId"], each["InstanceId"], _tag(each, key)),
            each["InstanceType"],
            each.get("InstanceLifecycle") == "spot",
            _tag(each, "aws:autoscaling:groupName"),
        )
        for reservation in found
        for each in reservation["Instances"]
    ]


async def repositories(aws: AWS, key: str, ours: Callable[[str], bool]) -> list[Found]:
    """Return the ECR repositories whose name is `ours`, tagged or not."""
    found = await aws.pages("ecr", "DescribeRepositories", "repositories")
    mine = [each for each in found if ours(each["repositoryName"])]
    calls = (aws.call("ecr", "ListTagsForResource", resourceArn=each["repositoryArn"]) for each in mine)
    return [
        Found(each["repositoryArn"], each["repositoryName"], _tag({"Tags": answer["tags"]}, key))
        for each, answer in zip(mine, await asyncio.gather(*calls), strict=True)
    ]


async def roles(aws: AWS, path: str) -> list[Found]:
    """Return the IAM roles below a path."""
    found = await aws.pages("iam", "ListRoles", "Roles", PathPrefix=path)
    return [Found(each["Arn"], each["RoleName"]) for each in found]


async def instance_profiles(aws: AWS, path: str) -> list[Found]:
    """Return the instance profiles below a path."""
    found = await aws.pages("iam", "ListInstanceProfiles", "InstanceProfiles", PathPrefix=path)
    return [Found(each["Arn"], each["InstanceProfileName"]) for each in found]


async def log_group(aws: AWS, name: str) -> tuple[Found, int] | None:
    """Return a log group and its stored bytes, which CloudWatch updates with hours of delay; None if there is none."""
    found = await aws.call("logs", "DescribeLogGroups", logGroupNamePrefix=name)
    group = next((each for each in found["logGroups"] if each["logGroupName"] == name), None)
    return None if group is None else (Found(name, name), int(group.get("storedBytes", 0)))


def _tagged(key: str) -> list[dict[str, Any]]:
    return [{"Name": "tag-key", "Values": [key]}]


def _tag(resource: dict[str, Any], key: str) -> str:
    return next((str(each["Value"]) for each in resource.get("Tags", []) if each["Key"] == key), "")


def _ecs_tag(resource: dict[str, Any], key: str) -> str:
    return next((str(each["value"]) for each in resource.get("tags", []) if each["key"] == key), "")


def _active(resource: dict[str, Any]) -> bool:
    return bool(resource["status"] == "ACTIVE")
