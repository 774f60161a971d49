"""EC2: network, security groups, launch templates, addresses of instances."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from tlz import partition_all

from dask_starburst.aws.patience import unseen
from dask_starburst.aws.session import AWS
from dask_starburst.aws.tolerant import create, delete, get
from dask_starburst.cancellation import together

ALL_TCP = {"IpProtocol": "tcp", "FromPort": 0, "ToPort": 65535}
#: The most values of one DescribeInstances filter (EC2 API reference, Filter).
_MOST_IDS = 200
#: The states in which an instance or its volumes cost money.
_BILLED = ["pending", "running", "stopping", "stopped"]
#: EC2 User Guide, "Find interrupted Spot Instances".
_TAKEN = "Server.SpotInstanceTermination"
#: Marks the rules of `admit_caller` in a security group.
_CALLER = "dask-starburst: the caller"
_ENDED = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")


async def ensure_security_group(aws: AWS, vpc: str, name: str, description: str, tags: dict[str, str]) -> str:
    """Create a security group without rules if it does not exist; return its id.

    It is looked up first, so that no right to create is needed where it exists.

    Raises
    ------
    AWSError
        Also while AWS does not show a new group yet, see `aws.patience`.
    """
    filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = await aws.call("ec2", "DescribeSecurityGroups", Filters=filters)
    if found["SecurityGroups"]:
        return str(found["SecurityGroups"][0]["GroupId"])
    made = await create(
        aws,
        "ec2",
        "CreateSecurityGroup",
        GroupName=name,
        Description=description,
        VpcId=vpc,
        TagSpecifications=_tag_specification("security-group", tags),
    )
    if made is None:
        raise unseen(f"the security group {name}", "ec2:DescribeSecurityGroups")
    return str(made["GroupId"])


async def security_group_state(aws: AWS, vpc: str, name: str) -> Literal["there", "missing", "incomplete"]:
    """Return whether a security group exists whose members may reach each other."""
    filters = [{"Name": "group-name", "Values": [name]}, {"Name": "vpc-id", "Values": [vpc]}]
    found = (await aws.call("ec2", "DescribeSecurityGroups", Filters=filters))["SecurityGroups"]
    if not found:
        return "missing"
    group, rules = found[0]["GroupId"], found[0]["IpPermissions"]
    admitted = (pair["GroupId"] for rule in rules for pair in rule.get("UserIdGroupPairs", []))
    return "there" if group in admitted else "incomplete"


async def admit_each_other(aws: AWS, group: str) -> None:
    """Allow all TCP traffic between members of a security group.

    It is looked at first, so that no right to change it is needed where it has the rule.
    """
    found = await aws.call("ec2", "DescribeSecurityGroups", GroupIds=[group])
    if any(_admits(permission, group) for permission in found["SecurityGroups"][0]["IpPermissions"]):
        return
    rule = {**ALL_TCP, "UserIdGroupPairs": [{"GroupId": group}]}
    await create(aws, "ec2", "AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[rule])


def _admits(permission: dict[str, Any], group: str) -> bool:
    members = [pair.get("GroupId") for pair in permission.get("UserIdGroupPairs", [])]
    return group in members and all(permission.get(key) == value for key, value in ALL_TCP.items())


async def admit_caller(aws: AWS, group: str, cidr: str, ports: tuple[int, ...]) -> None:
    """Allow one CIDR to reach these TCP ports, and revoke the rules that earlier calls have made.

    Rules of others, such as an administrator's for a monitoring system, stay.
    """
    found = await aws.call("ec2", "DescribeSecurityGroups", GroupIds=[group])
    requested = [_port_rule(cidr, port) for port in ports]
    stale = [rule for rule in _caller_rules(found["SecurityGroups"][0]) if rule not in requested]
    if stale:
        await delete(aws, "ec2", "RevokeSecurityGroupIngress", GroupId=group, IpPermissions=stale)
    for rule in requested:  # one by one: AWS refuses the whole request if one rule exists
        await create(aws, "ec2", "AuthorizeSecurityGroupIngress", GroupId=group, IpPermissions=[rule])


async def dismiss_callers(aws: AWS, group: str) -> None:
    """Revoke the rules that `admit_caller` has made."""
    found = await aws.call("ec2", "DescribeSecurityGroups", GroupIds=[group])
    rules = _caller_rules(found["SecurityGroups"][0])
    if rules:
        await delete(aws, "ec2", "RevokeSecurityGroupIngress", GroupId=group, IpPermissions=rules)


def _caller_rules(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rules of `admit_caller`, which have its description. A rule for all traffic has no port."""
    return [
        _port_rule(range_["CidrIp"], permission["FromPort"])
        for permission in group["IpPermissions"]
        for range_ in permission.get("IpRanges", [])
        if range_.get("Description") == _CALLER and "FromPort" in permission
    ]


async def ensure_launch_template(aws: AWS, name: str, data: dict[str, Any], tags: dict[str, str]) -> None:
    """Create a launch template if it does not exist; the content of a name never changes."""
    data = {**data, "UserData": base64.b64encode(data["UserData"].encode()).decode()}
    # Uses botocore's random client token: with a token derived from the name, AWS could take
    # the creation after a deletion for a retry, and create nothing.
    await create(
        aws,
        "ec2",
        "CreateLaunchTemplate",
        LaunchTemplateName=name,
        LaunchTemplateData=data,
        TagSpecifications=_tag_specification("launch-template", tags),
    )


async def remove_launch_templates(aws: AWS, key: str, value: str) -> None:
    """Delete the launch templates with this tag."""
    filters = [{"Name": f"tag:{key}", "Values": [value]}]
    for found in await aws.pages("ec2", "DescribeLaunchTemplates", "LaunchTemplates", Filters=filters):
        await remove_launch_template(aws, found["LaunchTemplateId"])


async def remove_security_groups(aws: AWS, key: str, value: str) -> None:
    """Delete the security groups with this tag; AWS refuses while an instance uses one."""
    filters = [{"Name": f"tag:{key}", "Values": [value]}]
    for found in await aws.pages("ec2", "DescribeSecurityGroups", "SecurityGroups", Filters=filters):
        await remove_security_group(aws, found["GroupId"])


async def remove_launch_template(aws: AWS, template: str) -> None:
    """Delete a launch template by its id. No-op if it does not exist."""
    await delete(aws, "ec2", "DeleteLaunchTemplate", LaunchTemplateId=template)


async def remove_security_group(aws: AWS, group: str) -> None:
    """Delete a security group by its id; AWS refuses while an instance uses it."""
    await delete(aws, "ec2", "DeleteSecurityGroup", GroupId=group)


async def terminate(aws: AWS, instance: str) -> None:
    """Terminate an instance. No-op if it does not exist."""
    await delete(aws, "ec2", "TerminateInstances", InstanceIds=[instance])


async def addresses(aws: AWS, instance: str) -> tuple[str, str]:
    """Return the private and public IPv4 address of an instance (empty if it has none, or EC2 shows it later)."""
    answer = await get(aws, "ec2", "DescribeInstances", InstanceIds=[instance])
    shown = [i for reservation in (answer or {}).get("Reservations", []) for i in reservation["Instances"]]
    found = shown[0] if shown else {}
    return found.get("PrivateIpAddress", ""), found.get("PublicIpAddress", "")


async def billed(aws: AWS, key: str, value: str) -> list[str]:
    """Return the ids of instances with this tag that are billed or whose volumes are.

    ``shutting-down`` instances are not (EC2 User Guide, "Amazon EC2 instance state changes").
    """
    filters = [{"Name": f"tag:{key}", "Values": [value]}, {"Name": "instance-state-name", "Values": _BILLED}]
    reservations = await aws.pages("ec2", "DescribeInstances", "Reservations", Filters=filters)
    return [instance["InstanceId"] for reservation in reservations for instance in reservation["Instances"]]


@dataclass(frozen=True, slots=True)
class Life:
    """When an instance ran, in seconds since the epoch; `ended` is None until AWS reports a time.

    `taken`: whether Spot interrupted it.
    """

    id: str
    type: str
    zone: str
    market: str
    launched: float
    ended: float | None = None
    taken: bool = False


async def lives(aws: AWS, instances: Iterable[str]) -> list[Life]:
    """Return the launch and termination times of instances that EC2 still describes.

    EC2 does so for about an hour after their end. The end time is in ``StateTransitionReason`` as
    ``User initiated (2026-11-25 12:00:00 GMT)``, for terminations through the API.
    """
    ids = sorted(instances)
    filters = ([{"Name": "instance-id", "Values": list(part)}] for part in partition_all(_MOST_IDS, ids))
    parts = await together(*(aws.pages("ec2", "DescribeInstances", "Reservations", Filters=one) for one in filters))
    return [_life(instance) for part in parts for reservation in part for instance in reservation["Instances"]]


def _life(instance: dict[str, Any]) -> Life:
    gone = instance["State"]["Name"] in ("shutting-down", "terminated")
    ended = _ENDED.search(instance.get("StateTransitionReason", "")) if gone else None
    return Life(
        id=instance["InstanceId"],
        type=instance["InstanceType"],
        zone=instance["Placement"]["AvailabilityZone"],
        market=instance.get("InstanceLifecycle", "on-demand"),
        launched=instance["LaunchTime"].timestamp(),
        ended=datetime.strptime(f"{ended[1]} +0000", "%Y-%m-%d %H:%M:%S %z").timestamp() if ended else None,
        taken=instance.get("StateReason", {}).get("Code") == _TAKEN,
    )


def _port_rule(cidr: str, port: int) -> dict[str, Any]:
    return {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": port,
        "IpRanges": [{"CidrIp": cidr, "Description": _CALLER}],
    }


def _tag_specification(kind: str, tags: dict[str, str]) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}]
