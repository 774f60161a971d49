"""IAM's and STS's calls on roles and instance profiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dask_starburst.local.backend.account import partition
from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls.inventory import Inventory, Rule, pass_role, request_tags, service_linked
from dask_starburst.local.iam.model import Check

#: Names of service-linked roles, by the service.
_SERVICE_LINKED = {
    "ecs.amazonaws.com": "AWSServiceRoleForECS",
    "autoscaling.amazonaws.com": "AWSServiceRoleForAutoScaling",
    "spot.amazonaws.com": "AWSServiceRoleForEC2Spot",
}


def _on_role(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        yield Check(f"iam:{action}", inventory.role_arn(request["RoleName"]), request_tags(request.get("Tags")))

    return rule


def _on_profile(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        arn = inventory.profile_arn(request["InstanceProfileName"])
        yield Check(f"iam:{action}", arn, request_tags(request.get("Tags")))

    return rule


def _create_role(inventory: Inventory, request: Request) -> Iterator[Check]:
    arn = f"arn:{partition()}:iam::{ACCOUNT}:role{request.get('Path') or '/'}{request['RoleName']}"
    tags = request_tags(request.get("Tags"))
    yield Check("iam:CreateRole", arn, tags)
    if tags:
        yield Check("iam:TagRole", arn, tags)


def _create_profile(inventory: Inventory, request: Request) -> Iterator[Check]:
    arn = (
        f"arn:{partition()}:iam::{ACCOUNT}:instance-profile{request.get('Path') or '/'}{request['InstanceProfileName']}"
    )
    tags = request_tags(request.get("Tags"))
    yield Check("iam:CreateInstanceProfile", arn, tags)
    if tags:
        yield Check("iam:TagInstanceProfile", arn, tags)


def _add_role(inventory: Inventory, request: Request) -> Iterator[Check]:
    yield Check("iam:AddRoleToInstanceProfile", inventory.profile_arn(request["InstanceProfileName"]))
    yield pass_role(inventory.role_arn(request["RoleName"]), "ec2.amazonaws.com")


def _create_service_linked(inventory: Inventory, request: Request) -> Iterator[Check]:
    service = request["AWSServiceName"]
    yield service_linked(service, _SERVICE_LINKED.get(service, "*"))


def _assume(inventory: Inventory, request: Request) -> Iterator[Check]:
    context = {"sts:rolesessionname": (str(request.get("RoleSessionName", "")),)}
    yield Check("sts:AssumeRole", request["RoleArn"], context)


def _simulate(inventory: Inventory, request: Request) -> Iterator[Check]:
    yield Check("iam:SimulatePrincipalPolicy", request["PolicySourceArn"])


RULES: Mapping[str, Rule] = {
    "iam:CreateRole": _create_role,
    "iam:CreateInstanceProfile": _create_profile,
    "iam:AddRoleToInstanceProfile": _add_role,
    "iam:CreateServiceLinkedRole": _create_service_linked,
    "iam:SimulatePrincipalPolicy": _simulate,
    "sts:AssumeRole": _assume,
    **{
        f"iam:{action}": _on_role(action)
        for action in (
            "GetRole",
            "TagRole",
            "DeleteRole",
            "PutRolePolicy",
            "GetRolePolicy",
            "DeleteRolePolicy",
            "DetachRolePolicy",
            "ListRolePolicies",
            "ListAttachedRolePolicies",
            "ListInstanceProfilesForRole",
        )
    },
    **{
        f"iam:{action}": _on_profile(action)
        for action in (
            "GetInstanceProfile",
            "TagInstanceProfile",
            "RemoveRoleFromInstanceProfile",
            "DeleteInstanceProfile",
        )
    },
}
