"""Auto Scaling's calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls import launch
from dask_starburst.local.iam.calls.inventory import Inventory, Rule, request_tags, resource_tags
from dask_starburst.local.iam.model import Check, Context

_SERVICE_ROLE = ("autoscaling.amazonaws.com", "AWSServiceRoleForAutoScaling")


def _on_group(action: str, facts: Callable[[Request], Context] = lambda request: {}) -> Rule:
    """Return the rule of a call on one group; `facts` gives the keys of the request."""

    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        yield group_check(inventory, f"autoscaling:{action}", request.get("AutoScalingGroupName", "*"), facts(request))

    return rule


def group_check(inventory: Inventory, action: str, name: str, facts: Context) -> Check:
    """Return the check of an action on a group, with its tags. A group that does not exist has no id yet."""
    group = inventory.group(name)
    if group is None:
        arn = inventory.arn("autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{name}")
        return Check(action, arn, facts)
    tags = {key: str(tag.get("Value", "")) for key, tag in group.tags.items()}
    return Check(action, group.arn, {**facts, **resource_tags("autoscaling", tags)})


def _sizes(request: Request) -> dict[str, tuple[str, ...]]:
    return {f"autoscaling:{key.lower()}": (str(request[key]),) for key in ("MinSize", "MaxSize") if key in request}


def _settings(request: Request) -> dict[str, tuple[str, ...]]:
    found = _sizes(request)
    if request.get("VPCZoneIdentifier"):
        found["autoscaling:vpczoneidentifiers"] = tuple(_subnets(request))
    types = _types(request)
    if types:
        found["autoscaling:instancetypes"] = tuple(types)
    specification = _specification(request)
    if specification:
        versioned = str(specification.get("Version", "$Default")) not in ("$Latest", "$Default")
        found["autoscaling:launchtemplateversionspecified"] = (str(versioned).lower(),)
    return found


def _specification(holder: Mapping[str, Any]) -> dict[str, Any]:
    mixed = (holder.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    return dict(holder.get("LaunchTemplate") or mixed.get("LaunchTemplateSpecification") or {})


def _types(holder: Mapping[str, Any]) -> list[str]:
    mixed = (holder.get("MixedInstancesPolicy") or {}).get("LaunchTemplate") or {}
    return [each["InstanceType"] for each in mixed.get("Overrides") or () if each.get("InstanceType")]


def _subnets(holder: Mapping[str, Any]) -> list[str]:
    return [subnet for subnet in str(holder.get("VPCZoneIdentifier") or "").split(",") if subnet]


def _create(inventory: Inventory, request: Request) -> Iterator[Check]:
    name, tags = request["AutoScalingGroupName"], request_tags(request.get("Tags"))
    yield group_check(inventory, "autoscaling:CreateAutoScalingGroup", name, {**_settings(request), **tags})
    if tags:
        yield group_check(inventory, "autoscaling:CreateOrUpdateTags", name, tags)
    yield from inventory.service_linked_role(*_SERVICE_ROLE)
    yield from launch.from_template(inventory, _specification(request), _types(request), _subnets(request))


def _update(inventory: Inventory, request: Request) -> Iterator[Check]:
    name = request["AutoScalingGroupName"]
    yield group_check(inventory, "autoscaling:UpdateAutoScalingGroup", name, _settings(request))
    group = inventory.group(name)
    stored = {"MixedInstancesPolicy": group.mixed, "LaunchTemplate": group.template} if group else {}
    asked = _specification(request) or (_specification(stored) if inventory.template_rights else {})
    if asked:
        subnets = _subnets(request) or (group.subnets if group else [])
        yield from launch.from_template(inventory, asked, _types(request) or _types(stored), subnets)


def _tags(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        named: dict[str, list[dict[str, str]]] = {}
        for tag in request.get("Tags", []):
            named.setdefault(tag.get("ResourceId", "*"), []).append(tag)
        for name, tags in named.items():
            yield group_check(inventory, f"autoscaling:{action}", name, request_tags(tags))

    return rule


def _force(request: Request) -> Context:
    return {"autoscaling:forcedelete": (str(request.get("ForceDelete", False)).lower(),)}


def _terminate(inventory: Inventory, request: Request) -> Iterator[Check]:
    """The call may name instances only; then each one's group is the resource."""
    ids = [*request.get("InstanceIds", []), *([request["InstanceId"]] if "InstanceId" in request else [])]
    names = {request["AutoScalingGroupName"]} if "AutoScalingGroupName" in request else set()
    names |= {group.name for group in inventory.backend.groups.values() if set(ids) & set(group.members)}
    for name in sorted(names) or ["*"]:
        yield group_check(inventory, "autoscaling:TerminateInstanceInAutoScalingGroup", name, {})


RULES: Mapping[str, Rule] = {
    "autoscaling:CreateAutoScalingGroup": _create,
    "autoscaling:UpdateAutoScalingGroup": _update,
    "autoscaling:DeleteAutoScalingGroup": _on_group("DeleteAutoScalingGroup", _force),
    "autoscaling:TerminateInstanceInAutoScalingGroup": _terminate,
    "autoscaling:PutScheduledUpdateGroupAction": _on_group("PutScheduledUpdateGroupAction", _sizes),
    "autoscaling:CreateOrUpdateTags": _tags("CreateOrUpdateTags"),
    "autoscaling:DeleteTags": _tags("DeleteTags"),
    **{
        f"autoscaling:{action}": _on_group(action)
        for action in (
            "SetDesiredCapacity",
            "DeleteScheduledAction",
            "SuspendProcesses",
            "ResumeProcesses",
            "SetInstanceProtection",
        )
    },
}
