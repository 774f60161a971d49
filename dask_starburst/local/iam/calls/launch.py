"""The rights that launching instances needs, directly or through an Auto Scaling group.

docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-launch-template-permissions.html, and
docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html for the tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from moto.ec2.models import ec2_backends

from dask_starburst.local.backend.account import partition
from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.iam.calls.inventory import Inventory, Template, pass_role, request_tags
from dask_starburst.local.iam.model import Check, Context

_RUN, _TAG = "ec2:RunInstances", "ec2:CreateTags"


def from_template(
    inventory: Inventory, specification: Mapping[str, Any], types: Iterable[str], subnets: Iterable[str]
) -> Iterator[Check]:
    """Yield the checks of an Auto Scaling group over a launch template.

    Each fails with the same message, which does not name the right that is missing (real-aws R5).
    """
    template = inventory.template(specification)
    if template is None:
        return  # Auto Scaling refuses the call
    name = template.arn.rpartition("/")[2]
    opaque = f"You are not authorized to use launch template: {name}"
    for check in launch(inventory, template.data, template, types, subnets):
        yield Check(check.action, check.resource, check.context, opaque)


def launch(
    inventory: Inventory,
    data: Mapping[str, Any],
    template: Template | None,
    types: Iterable[str],
    subnets: Iterable[str],
) -> Iterator[Check]:
    """Yield the checks of RunInstances with these parameters."""
    common: dict[str, tuple[str, ...]] = {"ec2:region": (inventory.region,)}
    if template is not None:
        common |= {"ec2:launchtemplate": (template.arn,)}
    named = {**common, "ec2:islaunchtemplateresource": ("true" if template else "false",)}
    given = {**common, "ec2:islaunchtemplateresource": ("false",)}
    profile = data.get("IamInstanceProfile") or {}
    profile_name = str(profile.get("Arn") or profile.get("Name") or "")
    of_instance: Context = {"ec2:instanceprofile": (inventory.profile_arn(profile_name),)} if profile_name else {}
    tags = {each.get("ResourceType"): request_tags(_tags_of(each)) for each in data.get("TagSpecifications") or ()}
    yield Check(_RUN, f"arn:{partition()}:ec2:{inventory.region}::image/{data.get('ImageId', '*')}", named)
    for kind in dict.fromkeys(types) or (data.get("InstanceType", "m5.large"),):
        own = {**of_instance, **tags.get("instance", {}), "ec2:instancetype": (str(kind),)}
        yield Check(_RUN, inventory.arn("ec2", "instance/*"), {**named, **own})
    yield Check(_RUN, inventory.arn("ec2", "volume/*"), {**named, **tags.get("volume", {})})
    yield from _network(inventory, data, named, given, tags.get("network-interface", {}), tuple(subnets))
    if template is not None:
        yield Check(_RUN, template.arn, {**named, **inventory.ec2_tags(template.arn.rpartition("/")[2])})
    creation = {"ec2:createaction": ("RunInstances",), "ec2:region": (inventory.region,)}
    for resource_type, requested in tags.items():
        yield Check(_TAG, inventory.arn("ec2", f"{resource_type}/*"), {**requested, **creation})
    for role in inventory.roles_of_profile(profile_name):
        yield pass_role(role, "ec2.amazonaws.com")


def _network(
    inventory: Inventory,
    data: Mapping[str, Any],
    named: Context,
    given: Context,
    tags: Context,
    subnets: tuple[str, ...],
) -> Iterator[Check]:
    interfaces = data.get("NetworkInterfaces") or [{}]
    public = str(interfaces[0].get("AssociatePublicIpAddress", "false")).lower()
    found = list(subnets) or [each["SubnetId"] for each in interfaces if each.get("SubnetId")] or ["*"]
    for subnet in found:
        vpc = _vpc_of(inventory, subnet)
        where = {"ec2:subnet": (inventory.arn("ec2", f"subnet/{subnet}"),), **vpc}
        context = {**named, **where, **tags, "ec2:associatepublicipaddress": (public,)}
        yield Check(_RUN, inventory.arn("ec2", "network-interface/*"), context)
        own = {"ec2:subnetid": (subnet,), **vpc, **inventory.ec2_tags(subnet)}
        yield Check(_RUN, inventory.arn("ec2", f"subnet/{subnet}"), {**given, **own})
    groups = [*(data.get("SecurityGroupIds") or ()), *(g for each in interfaces for g in each.get("Groups") or ())]
    for group in dict.fromkeys(groups):
        context = {**named, **_vpc_of(inventory, found[0]), **inventory.ec2_tags(group)}
        yield Check(_RUN, inventory.arn("ec2", f"security-group/{group}"), context)


def _vpc_of(inventory: Inventory, subnet: str) -> Context:
    for subnets in ec2_backends[ACCOUNT][inventory.region].subnets.values():
        if subnet in subnets:
            return {"ec2:vpc": (inventory.arn("ec2", f"vpc/{subnets[subnet].vpc_id}"),)}
    return {}


def _tags_of(specification: Mapping[str, Any]) -> list[dict[str, str]]:
    tags = specification.get("Tags") or specification.get("Tag") or []
    return list(tags)
