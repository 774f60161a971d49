"""EC2's calls. Those that only describe take no resources and need no row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls import launch
from dask_starburst.local.iam.calls.inventory import Inventory, Rule, request_tags
from dask_starburst.local.iam.model import Check, Context

#: The resource type of an EC2 id.
_KINDS = {
    "i": "instance",
    "lt": "launch-template",
    "sg": "security-group",
    "subnet": "subnet",
    "vol": "volume",
    "vpc": "vpc",
    "eni": "network-interface",
    "ami": "image",
}


def _arn(inventory: Inventory, identifier: str) -> str:
    kind = _KINDS.get(identifier.rpartition("-")[0], "instance")
    return inventory.arn("ec2", f"{kind}/{identifier}")


def _region(inventory: Inventory) -> Context:
    return {"ec2:region": (inventory.region,)}


def _on_creation(inventory: Inventory, request: Request, kind: str, action: str) -> tuple[Context, list[Check]]:
    """Return the request's tags for a new resource, and the check of CreateTags that they need."""
    specifications = [each for each in request.get("TagSpecifications", []) if each.get("ResourceType") == kind]
    tags = request_tags([tag for each in specifications for tag in each.get("Tags", [])])
    if not tags:
        return {}, []
    context = {**tags, **_region(inventory), "ec2:createaction": (action,)}
    return tags, [Check("ec2:CreateTags", inventory.arn("ec2", f"{kind}/*"), context)]


def _create_template(inventory: Inventory, request: Request) -> Iterator[Check]:
    tags, more = _on_creation(inventory, request, "launch-template", "CreateLaunchTemplate")
    arn = inventory.arn("ec2", "launch-template/*")
    yield Check("ec2:CreateLaunchTemplate", arn, {**tags, **_region(inventory)})
    yield from more


def _on_template(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        identifier = inventory.template_id(request)
        context = {**_region(inventory), **inventory.ec2_tags(identifier)}
        yield Check(f"ec2:{action}", inventory.arn("ec2", f"launch-template/{identifier}"), context)

    return rule


def _create_group(inventory: Inventory, request: Request) -> Iterator[Check]:
    tags, more = _on_creation(inventory, request, "security-group", "CreateSecurityGroup")
    yield Check("ec2:CreateSecurityGroup", inventory.arn("ec2", "security-group/*"), {**tags, **_region(inventory)})
    vpc = request.get("VpcId", "*")
    context = {**_region(inventory), "ec2:vpcid": (vpc,), **inventory.ec2_tags(vpc)}
    yield Check("ec2:CreateSecurityGroup", inventory.arn("ec2", f"vpc/{vpc}"), context)
    yield from more


def _on_group(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        name = str(request.get("GroupName") or "")
        group = str(request.get("GroupId") or (inventory.security_group_named(name) if name else None) or "*")
        context = {**_region(inventory), "ec2:securitygroupid": (group,), **inventory.ec2_tags(group)}
        yield Check(f"ec2:{action}", inventory.arn("ec2", f"security-group/{group}"), context)

    return rule


def _tag(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        tags = request_tags(request.get("Tags"))
        for identifier in request.get("Resources", []):
            context = {**_region(inventory), **tags, **inventory.ec2_tags(identifier)}
            yield Check(f"ec2:{action}", _arn(inventory, identifier), context)

    return rule


def _terminate(inventory: Inventory, request: Request) -> Iterator[Check]:
    for identifier in request.get("InstanceIds", []):
        context = {**_region(inventory), **inventory.ec2_tags(identifier)}
        yield Check("ec2:TerminateInstances", _arn(inventory, identifier), context)


def _run(inventory: Inventory, request: Request) -> Iterator[Check]:
    template = inventory.template(request.get("LaunchTemplate") or {})
    data: dict[str, Any] = {**(dict(template.data) if template else {}), **request}
    types = [data["InstanceType"]] if data.get("InstanceType") else []
    subnets = [data["SubnetId"]] if data.get("SubnetId") else []
    yield from launch.launch(inventory, data, template, types, subnets)


RULES: Mapping[str, Rule] = {
    "ec2:RunInstances": _run,
    "ec2:TerminateInstances": _terminate,
    "ec2:CreateTags": _tag("CreateTags"),
    "ec2:DeleteTags": _tag("DeleteTags"),
    "ec2:CreateLaunchTemplate": _create_template,
    "ec2:CreateLaunchTemplateVersion": _on_template("CreateLaunchTemplateVersion"),
    "ec2:DeleteLaunchTemplate": _on_template("DeleteLaunchTemplate"),
    "ec2:CreateSecurityGroup": _create_group,
    **{
        f"ec2:{action}": _on_group(action)
        for action in (
            "DeleteSecurityGroup",
            "AuthorizeSecurityGroupIngress",
            "AuthorizeSecurityGroupEgress",
            "RevokeSecurityGroupIngress",
            "RevokeSecurityGroupEgress",
        )
    },
}
