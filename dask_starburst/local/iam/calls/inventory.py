"""What the rules look up in the account: ARNs, tags, launch templates, roles."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ssm.models import ssm_backends

from dask_starburst.local.backend.account import iam_backend, partition
from dask_starburst.local.backend.backend import ACCOUNT, Backend
from dask_starburst.local.backend.state import Group
from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.model import Check, Context


@dataclass(frozen=True)
class Template:
    """A version of a launch template: its ARN and content."""

    arn: str
    name: str
    data: Mapping[str, Any]


class Inventory:
    """Looks up what a call refers to.

    Parameters
    ----------
    backend : Backend
        The resources of ECS and Auto Scaling; moto has the others.
    template_rights : bool
        Whether UpdateAutoScalingGroup asks for the rights of the group's launch template, even if the call does not
        change it. AWS's pages contradict each other (real-aws R4).
    """

    def __init__(self, backend: Backend, *, template_rights: bool = False) -> None:
        self.backend = backend
        self.template_rights = template_rights

    @property
    def region(self) -> str:
        """The region of the account."""
        return self.backend.region

    def arn(self, service: str, resource: str) -> str:
        """Return the ARN of a resource of this account and region."""
        return self.backend.arn(service, resource)

    def group(self, name: str) -> Group | None:
        """Return an Auto Scaling group."""
        return self.backend.groups.get(name)

    def ec2_tags(self, resource: str) -> Context:
        """Return the keys of the tags of an EC2 resource."""
        found: Mapping[str, str] = ec2_backends[ACCOUNT][self.region].tags.get(resource, {})
        return resource_tags("ec2", found)

    def security_group_named(self, name: str) -> str | None:
        """Return the id of a security group of the default VPC."""
        found = ec2_backends[ACCOUNT][self.region].get_security_group_by_name_or_id(name)
        return str(found.id) if found is not None else None

    def template(self, specification: Mapping[str, Any]) -> Template | None:
        """Return the version of a launch template that a specification names; None if it does not exist."""
        backend = ec2_backends[ACCOUNT][self.region]
        for template in backend.launch_templates.values():
            if specification.get("LaunchTemplateId") == template.id or (
                specification.get("LaunchTemplateName") == template.name
            ):
                try:
                    version = template.get_version(specification.get("Version") or "$Default")
                except Exception:  # noqa: BLE001 -- moto raises several; the service answers with its own error
                    version = template.latest_version()
                return Template(self.arn("ec2", f"launch-template/{template.id}"), template.name, version.data)
        return None

    def template_id(self, request: Mapping[str, Any]) -> str:
        """Return the id of the launch template that a request names; ``*`` if there is none."""
        found = self.template(request)
        return found.arn.rpartition("/")[2] if found else str(request.get("LaunchTemplateId") or "*")

    def parameter_tags(self, name: str) -> Context:
        """Return the keys of the tags of a parameter of SSM."""
        tags = ssm_backends[ACCOUNT][self.region]._resource_tags["Parameter"].get(name, {})
        return resource_tags("ssm", tags)

    def role_arn(self, name: str) -> str:
        """Return the ARN of a role by its name; without a path if it does not exist."""
        for role in iam_backend().roles.values():
            if name in (role.name, role.arn):
                return str(role.arn)
        return name if name.startswith("arn:") else f"arn:{partition()}:iam::{ACCOUNT}:role/{name}"

    def profile_arn(self, name: str) -> str:
        """Return the ARN of an instance profile by its name."""
        for profile in iam_backend().instance_profiles.values():
            if name in (profile.name, profile.arn):
                return str(profile.arn)
        return name if name.startswith("arn:") else f"arn:{partition()}:iam::{ACCOUNT}:instance-profile/{name}"

    def roles_of_profile(self, name: str) -> list[str]:
        """Return the ARNs of the roles in an instance profile."""
        for profile in iam_backend().instance_profiles.values():
            if name in (profile.name, profile.arn):
                return [str(role.arn) for role in profile.roles]
        return []

    def has_role(self, name: str) -> bool:
        """Return whether a role of this name exists."""
        return any(role.name == name for role in iam_backend().roles.values())

    def service_linked_role(self, service: str, name: str) -> list[Check]:
        """Return the check for a service-linked role that AWS makes with the caller's rights if it is missing."""
        return [] if self.has_role(name) else [service_linked(service, name)]


Rule = Callable[[Inventory, Request], Iterable[Check]]


def service_linked(service: str, name: str) -> Check:
    """Return the check of CreateServiceLinkedRole."""
    arn = f"arn:{partition()}:iam::{ACCOUNT}:role/aws-service-role/{service}/{name}"
    return Check("iam:CreateServiceLinkedRole", arn, {"iam:awsservicename": (service,)})


def pass_role(arn: str, service: str, opaque: str = "") -> Check:
    """Return the check of passing a role to a service such as ``"ec2.amazonaws.com"``."""
    return Check("iam:PassRole", arn, {"iam:passedtoservice": (service,)}, opaque)


def anywhere(action: str) -> Rule:
    """Return the rule of a call whose action takes resources, but which is about all of them."""
    return lambda inventory, request: (Check(action),)


def resource_tags(service: str, tags: Mapping[str, str]) -> Context:
    """Return the condition keys of the tags of an existing resource."""
    return {
        f"{prefix}:resourcetag/{key}".lower(): (value,) for key, value in tags.items() for prefix in ("aws", service)
    }


def request_tags(tags: Iterable[Mapping[str, str]] | None) -> Context:
    """Return the condition keys of the tags in a request, in either spelling of ``key`` and ``value``."""
    pairs = [(tag.get("Key") or tag.get("key", ""), tag.get("Value") or tag.get("value", "")) for tag in tags or ()]
    return tag_context(dict(pairs))


def tag_context(tags: Mapping[str, str]) -> Context:
    """Return the condition keys of the tags that a request sets."""
    if not tags:
        return {}
    keys = {f"aws:requesttag/{key}".lower(): (value,) for key, value in tags.items()}
    return {**keys, "aws:tagkeys": tuple(tags)}
