"""The Auto Scaling API: describe calls, tags and scheduled actions."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from dask_starburst.local.backend.account import partition
from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.state import Group, Membership, ScheduledAction
from dask_starburst.local.http.protocols import Reply, Request, ServiceError, page
from dask_starburst.local.services.autoscaling.groups import Groups
from dask_starburst.local.services.autoscaling.operations import GroupOperations, invalid
from dask_starburst.local.services.ec2.instances import Ec2

_BAD_TOKEN = "InvalidNextToken"


class GroupViews:
    """Describe Auto Scaling groups, their instances and their activities."""

    def __init__(self, backend: Backend, ec2: Ec2) -> None:
        self._backend = backend
        self._ec2 = ec2

    def describe_auto_scaling_groups(self, request: Request) -> Reply:
        """Describe groups by name or by tag."""
        requested = request.get("AutoScalingGroupNames")
        names = sorted(self._backend.groups)
        filters = request.get("Filters", [])
        chosen = [
            name
            for name in names
            if (not requested or name in requested)
            and _matches(self._backend.groups[name], filters)
            and not self._backend.consistency.hides("groups", self._backend.groups[name].created_at)
        ]
        chosen, token = page(chosen, request.get("NextToken"), _size(request, 50, 100), _BAD_TOKEN)
        whole = request.get("IncludeInstances", True)
        groups = [self._describe(self._backend.groups[name], whole) for name in chosen]
        return {"AutoScalingGroups": groups, "NextToken": token}

    def describe_auto_scaling_instances(self, request: Request) -> Reply:
        """Describe instances with their groups."""
        members = {
            identity: (group, member)
            for group in self._backend.groups.values()
            for identity, member in group.members.items()
            if not self._backend.consistency.hides("group-instances", member.ec2_instance.launched_at)
        }
        requested = request.get("InstanceIds")
        chosen = [identity for identity in sorted(members) if not requested or identity in requested]
        chosen, token = page(chosen, request.get("NextToken"), _size(request, 50, 50), _BAD_TOKEN)
        instances = [
            {**_instance(member), "AutoScalingGroupName": group.name, "HealthStatus": _health(member).upper()}
            for group, member in (members[identity] for identity in chosen)
        ]
        return {"AutoScalingInstances": instances, "NextToken": token}

    def describe_scaling_activities(self, request: Request) -> Reply:
        """List scaling activities, latest first."""
        name, requested = request.get("AutoScalingGroupName"), request.get("ActivityIds")
        groups = [group for group in self._backend.groups.values() if name in (None, group.name)]
        if name is not None and not groups:
            raise invalid(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
        found = {
            activity["ActivityId"]: activity
            for group in groups
            for activity in group.activities
            if not requested or activity["ActivityId"] in requested
        }
        chosen, token = page(list(found), request.get("NextToken"), _size(request, 100, 100), _BAD_TOKEN)
        return {"Activities": [dict(found[identity]) for identity in chosen], "NextToken": token}

    def _describe(self, group: Group, whole: bool) -> dict[str, Any]:
        return {
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": group.arn,
            "MinSize": group.min_size,
            "MaxSize": group.max_size,
            "DesiredCapacity": group.desired,
            "CreatedTime": group.created_at,
            "AvailabilityZones": sorted({self._ec2.zone_of(subnet) or "" for subnet in group.subnets}),
            "VPCZoneIdentifier": ",".join(group.subnets),
            "LaunchTemplate": self._template(group.template),
            "MixedInstancesPolicy": group.mixed,
            "LoadBalancerNames": [],
            "TargetGroupARNs": [],
            "TrafficSources": [],
            "EnabledMetrics": [],
            "TerminationPolicies": ["Default"],
            "NewInstancesProtectedFromScaleIn": False,
            "ServiceLinkedRoleARN": f"arn:{partition()}:iam::{group.arn.split(':')[4]}:role/aws-service-role/"
            "autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling",
            **group.settings,
            "Instances": [_instance(member) for member in self._visible(group)] if whole else [],
            "SuspendedProcesses": [
                {"ProcessName": process, "SuspensionReason": why} for process, why in group.suspended.items()
            ],
            "Tags": [group.tags[key] for key in sorted(group.tags)],
            "Status": "Delete in progress" if group.deleting else None,
        }

    def _visible(self, group: Group) -> list[Membership]:
        hides = self._backend.consistency.hides
        return [one for one in group.members.values() if not hides("group-instances", one.ec2_instance.launched_at)]

    def _template(self, specification: dict[str, Any] | None) -> dict[str, Any] | None:
        if specification is None:
            return None
        try:
            template = self._ec2.template(specification).template
        except ServiceError:
            return specification
        shown = {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name}
        return {**shown, "Version": specification.get("Version", "$Default")}


class TagOperations:
    """The tags of Auto Scaling groups."""

    def __init__(self, backend: Backend, operations: GroupOperations) -> None:
        self._backend = backend
        self._operations = operations

    def create_or_update_tags(self, request: Request) -> Reply:
        """Tag groups."""
        for tag in request["Tags"]:
            group = self._operations.find(tag.get("ResourceId", ""))
            group.tags[tag["Key"]] = {
                "ResourceId": group.name,
                "ResourceType": "auto-scaling-group",
                "Key": tag["Key"],
                "Value": tag.get("Value", ""),
                "PropagateAtLaunch": bool(tag.get("PropagateAtLaunch", False)),
            }
        return {}

    def delete_tags(self, request: Request) -> Reply:
        """Remove tags from groups."""
        for tag in request["Tags"]:
            self._operations.find(tag.get("ResourceId", "")).tags.pop(tag["Key"], None)
        return {}

    def describe_tags(self, request: Request) -> Reply:
        """List the tags of groups."""
        tags = {
            f"{name}\0{key}": tag
            for name, group in sorted(self._backend.groups.items())
            for key, tag in sorted(group.tags.items())
            if _tag_matches(tag, request.get("Filters", []))
        }
        chosen, token = page(list(tags), request.get("NextToken"), _size(request, 50, 100), _BAD_TOKEN)
        return {"Tags": [tags[key] for key in chosen], "NextToken": token}


class ScheduleOperations:
    """One-time scheduled actions, which starburst uses as the lease of a pool."""

    def __init__(self, backend: Backend, operations: GroupOperations, groups: Groups) -> None:
        self._backend = backend
        self._operations = operations
        self._groups = groups

    def put_scheduled_update_group_action(self, request: Request) -> Reply:
        """Create a scheduled action, or replace the one with that name."""
        group = self._operations.find(request["AutoScalingGroupName"])
        name = request["ScheduledActionName"]
        start = request.get("StartTime") or request.get("Time")
        if request.get("Recurrence") or request.get("EndTime") or start is None:
            raise invalid("The embedded AWS implements one-time scheduled actions only: give StartTime alone.")
        if start.microsecond:
            # AWS documents whole seconds only; whether it refuses or truncates a fraction is unknown.
            raise invalid("StartTime must be in the form YYYY-MM-DDThh:mm:ssZ.")
        when = _epoch(start)
        if when < self._backend.now():
            raise invalid("Given start time is in the past")
        sizes = [request.get(key) for key in ("MinSize", "MaxSize", "DesiredCapacity")]
        if sizes == [None, None, None]:
            raise invalid("You must specify at least one of DesiredCapacity, MinSize or MaxSize.")
        action = ScheduledAction(name, when, *sizes)
        group.scheduled[name] = action
        self._backend.at(when, lambda: self._backend.after("schedule", lambda: self._execute(group, action)))
        return {}

    def describe_scheduled_actions(self, request: Request) -> Reply:
        """List pending scheduled actions."""
        name, requested = request.get("AutoScalingGroupName"), request.get("ScheduledActionNames")
        actions = {
            f"{group.name}\0{action.name}": (group, action)
            for group in self._backend.groups.values()
            for action in group.scheduled.values()
            if name in (None, group.name) and (not requested or action.name in requested)
        }
        chosen, token = page(sorted(actions), request.get("NextToken"), _size(request, 50, 100), _BAD_TOKEN)
        return {
            "ScheduledUpdateGroupActions": [_scheduled(*actions[key]) for key in chosen],
            "NextToken": token,
        }

    def delete_scheduled_action(self, request: Request) -> Reply:
        """Delete a scheduled action."""
        group = self._operations.find(request["AutoScalingGroupName"])
        name = request["ScheduledActionName"]
        if group.scheduled.pop(name, None) is None:
            raise invalid(f"Scheduled action name not found - Scheduled action {name} not found")
        return {}

    def _execute(self, group: Group, action: ScheduledAction) -> None:
        # If it was renewed or deleted meanwhile, its name has a newer record or none.
        if group.scheduled.get(action.name) is not action or group.deleting:
            return
        if "ScheduledActions" in group.suspended:
            return
        del group.scheduled[action.name]
        before = group.desired
        group.min_size = group.min_size if action.min_size is None else action.min_size
        group.max_size = group.max_size if action.max_size is None else action.max_size
        requested = before if action.desired is None else action.desired
        group.desired = max(group.min_size, min(requested, group.max_size))
        self._groups.resize(
            group,
            f"the scheduled action {action.name} executed. Setting desired capacity from {before} to {group.desired}.",
        )


def _size(request: Request, default: int, most: int) -> int:
    size = int(request.get("MaxRecords") or default)
    if not 1 <= size <= most:
        raise invalid(f"Value '{size}' at 'maxRecords' failed to satisfy constraint: between 1 and {most}")
    return size


def _matches(group: Group, filters: Iterable[dict[str, Any]]) -> bool:
    for one in filters:
        name, values = one.get("Name", ""), one.get("Values", [])
        if name == "tag-key":
            matched = any(key in values for key in group.tags)
        elif name == "tag-value":
            matched = any(tag["Value"] in values for tag in group.tags.values())
        elif name.startswith("tag:"):
            tag = group.tags.get(name.removeprefix("tag:"))
            matched = tag is not None and tag["Value"] in values
        else:
            raise invalid(
                f"Filter type {name} is not correct. Allowed Filter types are: [tag-key, tag-value, tag:<key>]"
            )
        if not matched:
            return False
    return True


def _tag_matches(tag: dict[str, Any], filters: Iterable[dict[str, Any]]) -> bool:
    fields = {"auto-scaling-group": "ResourceId", "key": "Key", "value": "Value"}
    for one in filters:
        if one.get("Name") == "propagate-at-launch":
            value = str(tag["PropagateAtLaunch"]).lower()
        elif one.get("Name") in fields:
            value = tag[fields[one["Name"]]]
        else:
            raise invalid(f"Filter type {one.get('Name')} is not correct.")
        if value not in one.get("Values", []):
            return False
    return True


def _instance(member: Membership) -> dict[str, Any]:
    return {
        "InstanceId": member.ec2_instance.id,
        "InstanceType": member.ec2_instance.instance_type,
        "AvailabilityZone": member.ec2_instance.zone,
        "LifecycleState": member.state,
        "HealthStatus": _health(member),
        "LaunchTemplate": member.template,
        "ProtectedFromScaleIn": member.protected,
    }


def _health(member: Membership) -> str:
    return "Healthy" if member.healthy else "Unhealthy"


def _scheduled(group: Group, action: ScheduledAction) -> dict[str, Any]:
    return {
        "AutoScalingGroupName": group.name,
        "ScheduledActionName": action.name,
        "ScheduledActionARN": f"{group.arn}:scheduledActionName/{action.name}",
        "Time": action.start,
        "StartTime": action.start,
        "MinSize": action.min_size,
        "MaxSize": action.max_size,
        "DesiredCapacity": action.desired,
    }


def _epoch(when: datetime) -> float:
    # moto's parser returns UTC without a time zone.
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
