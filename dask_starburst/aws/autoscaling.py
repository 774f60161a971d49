"""Auto Scaling: groups, their capacity, their lease."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from tlz import partition_all

from dask_starburst.aws import launch_rights
from dask_starburst.aws.faults import EXISTS, code_of, lacks_capacity, meaning
from dask_starburst.aws.patience import unseen
from dask_starburst.aws.session import AWS
from dask_starburst.errors import PermissionDenied, StarburstError

#: Lifecycle states of instances that are leaving or have left the group.
_LEAVING = ("Terminating", "Terminated", "Detaching", "Detached", "Standby")
#: The most instances of one TerminateInstanceInAutoScalingGroup call (aws-facts §1.4).
_MOST_TERMINATED = 100
#: Launch failures of this many last seconds count against a zone.
_RECENT = 1800.0
#: The number of scaling activities to read, latest first (AWS keeps six weeks).
_NEWEST = 50
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GroupSeen:
    """The description of an Auto Scaling group.

    ``instances`` holds (id, type, leaving), ``types`` its instance types, ``spot`` whether it launches Spot instances.
    """

    name: str
    arn: str
    desired: int
    maximum: int
    instances: tuple[tuple[str, str, bool], ...]
    types: tuple[str, ...] = ()
    spot: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def staying(self) -> tuple[tuple[str, str], ...]:
        """Id and type of the instances that are not leaving."""
        return tuple((instance, kind) for instance, kind, leaving in self.instances if not leaving)


async def ensure_group(aws: AWS, request: dict[str, Any]) -> GroupSeen:
    """Create a group if it does not exist; return its description.

    Raises
    ------
    AWSError
        Also while AWS does not show a new group yet, see `aws.patience`.
    """
    name = request["AutoScalingGroupName"]
    found = await describe(aws, [name])
    if not found:
        try:
            await _with_template(aws, "CreateAutoScalingGroup", request)
        except StarburstError as error:
            if code_of(error) not in EXISTS:
                raise
        found = await describe(aws, [name])
    if name not in found:
        raise unseen(f"the group {name}", "autoscaling:DescribeAutoScalingGroups")
    return found[name]


async def describe(aws: AWS, names: Iterable[str], *, instances: bool = True) -> dict[str, GroupSeen]:
    """Return the existing groups among these names.

    Parameters
    ----------
    aws : AWS
    names : iterable of str
    instances : bool, optional
        Whether to include their instances. For a group of thousands the call with them is slow, and is
        throttled first (docs.aws.amazon.com/autoscaling/ec2/APIReference/API_DescribeAutoScalingGroups.html,
        ``IncludeInstances``).
    """
    found = await aws.pages(
        "autoscaling",
        "DescribeAutoScalingGroups",
        "AutoScalingGroups",
        AutoScalingGroupNames=list(names),
        IncludeInstances=instances,
    )
    return {g["AutoScalingGroupName"]: _seen(g) for g in found}


def _seen(group: dict[str, Any]) -> GroupSeen:
    policy = group.get("MixedInstancesPolicy", {}).get("InstancesDistribution", {})
    return GroupSeen(
        name=group["AutoScalingGroupName"],
        arn=group["AutoScalingGroupARN"],
        desired=group["DesiredCapacity"],
        maximum=group["MaxSize"],
        instances=tuple(
            (i["InstanceId"], i.get("InstanceType", ""), i["LifecycleState"].startswith(_LEAVING))
            for i in group.get("Instances", [])
        ),
        types=tuple(
            o["InstanceType"]
            for o in group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {}).get("Overrides", [])
            if "InstanceType" in o
        ),
        spot=policy.get("OnDemandPercentageAboveBaseCapacity", 100) == 0,
        tags={t["Key"]: t["Value"] for t in group.get("Tags", [])},
    )


async def tagged(aws: AWS, key: str, value: str | None = None) -> dict[str, list[tuple[GroupSeen, bool]]]:
    """Return the groups with a tag by the tag's value, each with whether it launches Spot instances."""
    one = {"Name": "tag-key", "Values": [key]} if value is None else {"Name": f"tag:{key}", "Values": [value]}
    answer = await aws.pages("autoscaling", "DescribeAutoScalingGroups", "AutoScalingGroups", Filters=[one])
    found: dict[str, list[tuple[GroupSeen, bool]]] = {}
    for group in answer:
        seen = _seen(group)
        found.setdefault(seen.tags[key], []).append((seen, seen.spot))
    return found


async def remove_group(aws: AWS, name: str) -> None:
    """Force-delete a group. AWS terminates its instances after the call returns."""
    try:
        await aws.call("autoscaling", "DeleteAutoScalingGroup", AutoScalingGroupName=name, ForceDelete=True)
    except StarburstError:
        # "ValidationError" can mean that the group does not exist, or something else: check.
        if await describe(aws, [name], instances=False):
            raise


async def failures(aws: AWS, name: str, since: float) -> list[tuple[str, float]]:
    """Return the status messages and times of a group's launches that failed after `since`.

    Auto Scaling books a launch as cancelled if the instance terminated before it was in service. Other launches are
    cancelled because they are not needed any more; their message is not an error of AWS.
    """
    answer = await aws.call("autoscaling", "DescribeScalingActivities", AutoScalingGroupName=name, MaxRecords=_NEWEST)
    found = [
        (a.get("StatusMessage") or a.get("Description", ""), a.get("EndTime", a["StartTime"]).timestamp())
        for a in answer["Activities"]
        if a["StatusCode"] == "Failed" or (a["StatusCode"] == "Cancelled" and meaning(a.get("StatusMessage", "")))
    ]
    return [(text, at) for text, at in found if at > since]


async def failed_zones(aws: AWS, prefix: str) -> Counter[str]:
    """Return the number of recent capacity failures per zone, of groups with a name prefix."""
    answer = await aws.call("autoscaling", "DescribeScalingActivities", MaxRecords=100)
    found: Counter[str] = Counter()
    for activity in answer["Activities"]:
        recent = aws.now() - activity["StartTime"].timestamp() < _RECENT
        if activity["StatusCode"] != "Failed" or not recent or not activity["AutoScalingGroupName"].startswith(prefix):
            continue
        zone = json.loads(activity.get("Details") or "{}").get("Availability Zone")
        if zone and lacks_capacity(activity.get("StatusMessage", "")):
            found[zone] += 1
    return found


async def set_maximum(aws: AWS, name: str, maximum: int, policy: dict[str, Any]) -> None:
    """Set a group's maximum size and its MixedInstancesPolicy."""
    request = {"AutoScalingGroupName": name, "MaxSize": maximum, "MixedInstancesPolicy": policy}
    await _with_template(aws, "UpdateAutoScalingGroup", request)


async def set_purchases(aws: AWS, name: str, policy: dict[str, Any]) -> None:
    """Set a group's MixedInstancesPolicy."""
    request = {"AutoScalingGroupName": name, "MixedInstancesPolicy": policy}
    await _with_template(aws, "UpdateAutoScalingGroup", request)


async def _with_template(aws: AWS, operation: str, request: dict[str, Any]) -> None:
    """Call an operation for which AWS checks the rights of the launch template; a refusal names the right."""
    try:
        await aws.call("autoscaling", operation, **request)
    except PermissionDenied as refusal:
        if not launch_rights.hides_the_right(refusal):
            raise
        raise await launch_rights.find(aws, refusal, request) from refusal


async def set_desired(aws: AWS, name: str, desired: int) -> None:
    """Order instances."""
    await aws.call(
        "autoscaling",
        "SetDesiredCapacity",
        AutoScalingGroupName=name,
        DesiredCapacity=desired,
        HonorCooldown=False,
    )


async def set_zero(aws: AWS, name: str) -> None:
    """Set all sizes of a group to zero in one call. No-op if it does not exist."""
    sizes = {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
    try:
        await aws.call("autoscaling", "UpdateAutoScalingGroup", AutoScalingGroupName=name, **sizes)
    except StarburstError as error:
        # "ValidationError" can mean that the group does not exist, or something else: check.
        if code_of(error) != "ValidationError" or await describe(aws, [name], instances=False):
            raise


async def resize(aws: AWS, name: str, size: int, policy: dict[str, Any]) -> None:
    """Set a group's desired and maximum size to `size`, and its MixedInstancesPolicy."""
    await aws.call(
        "autoscaling",
        "UpdateAutoScalingGroup",
        AutoScalingGroupName=name,
        MinSize=0,
        MaxSize=size,
        DesiredCapacity=size,
        MixedInstancesPolicy=policy,
    )


async def tag(aws: AWS, names: Iterable[str], key: str, value: str) -> None:
    """Tag groups; their instances do not get the tag."""
    tags = [_tag(name, key) | {"Value": value, "PropagateAtLaunch": False} for name in names]
    await aws.call("autoscaling", "CreateOrUpdateTags", Tags=tags)


async def untag(aws: AWS, names: Iterable[str], key: str) -> None:
    """Remove a tag from groups."""
    await aws.call("autoscaling", "DeleteTags", Tags=[_tag(name, key) for name in names])


def _tag(name: str, key: str) -> dict[str, Any]:
    return {"ResourceId": name, "ResourceType": "auto-scaling-group", "Key": key}


def batches(items: list[T]) -> list[list[T]]:
    """Split a list into batches for `terminate`."""
    return [list(part) for part in partition_all(_MOST_TERMINATED, items)]


async def terminate(aws: AWS, name: str, instances: list[str]) -> None:
    """Terminate these instances of a group and lower its desired capacity; all or none."""
    await aws.call(
        "autoscaling",
        "TerminateInstanceInAutoScalingGroup",
        AutoScalingGroupName=name,
        InstanceIds=instances,
        ShouldDecrementDesiredCapacity=True,
    )


async def terminate_present(aws: AWS, name: str, instances: list[str]) -> None:
    """Terminate these instances of a group, except those that terminate already.

    AWS refuses a whole call if one of its instances has just terminated.

    Raises
    ------
    StarburstError
        AWS refused the call although all its instances are there.
    """
    for part in batches(instances):
        try:
            await terminate(aws, name, part)
        except StarburstError:
            staying = {instance for instance, _ in (await describe(aws, [name]))[name].staying}
            left = [instance for instance in part if instance in staying]
            if left == part:
                raise
            await terminate_present(aws, name, left)


async def put_lease(aws: AWS, name: str, action: str, until: float) -> None:
    """Schedule Auto Scaling to empty the group at `until` (seconds since the epoch).

    The same action name replaces the action, so renewing is the same call (aws-facts §7, L3). AWS documents
    ``StartTime`` in whole seconds (API_PutScheduledUpdateGroupAction: ``2019-06-01T00:00:00Z``).
    """
    await aws.call(
        "autoscaling",
        "PutScheduledUpdateGroupAction",
        AutoScalingGroupName=name,
        ScheduledActionName=action,
        StartTime=datetime.fromtimestamp(math.ceil(until), UTC),
        MinSize=0,
        MaxSize=0,
        DesiredCapacity=0,
    )


async def lease_end(aws: AWS, name: str, action: str) -> float | None:
    """Return the end of a group's lease (seconds since the epoch); None if it has none."""
    answer = await aws.call("autoscaling", "DescribeScheduledActions", AutoScalingGroupName=name)
    ends = [a["StartTime"] for a in answer["ScheduledUpdateGroupActions"] if a["ScheduledActionName"] == action]
    return float(ends[0].timestamp()) if ends else None


async def drop_lease(aws: AWS, name: str, action: str) -> None:
    """Delete the scheduled action. No-op if it has been executed."""
    answer = await aws.call("autoscaling", "DescribeScheduledActions", AutoScalingGroupName=name)
    if any(a["ScheduledActionName"] == action for a in answer["ScheduledUpdateGroupActions"]):
        await aws.call(
            "autoscaling",
            "DeleteScheduledAction",
            AutoScalingGroupName=name,
            ScheduledActionName=action,
        )
