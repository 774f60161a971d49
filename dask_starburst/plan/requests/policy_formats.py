"""The published policies as documents for IAM, CloudFormation and Terraform."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args

from dask_starburst.plan.requests.policies import Role, roles
from dask_starburst.plan.requests.rights import NAMESPACE, Holder, document
from dask_starburst.plan.requests.rights_table import rights_of

Format = Literal["json", "cloudformation", "terraform"]
FORMATS: tuple[Format, ...] = get_args(Format)

#: What each policy of people is for.
ABOUT: Mapping[Holder, str] = {
    "admin": "Sets an account up for dask_starburst, once",
    "user": "Launches Dask clusters with dask_starburst",
    "builder": "Builds the images of dask_starburst's workers",
}


def of_people(holder: Holder, form: Format, partition: str = "aws") -> str:
    """Return the policy of an administrator, a user or a builder.

    Parameters
    ----------
    holder : {"admin", "user", "builder"}
        Whose policy.
    form : {"json", "cloudformation", "terraform"}
        The policy itself, or a template with a managed policy.
    partition : str
        ``"aws"``, ``"aws-us-gov"`` or ``"aws-cn"``.
    """
    policy, name = document(rights_of(holder), partition=partition), f"{NAMESPACE}-{holder}"
    if form == "json":
        return _json(policy)
    if form == "terraform":
        managed = {"name": name, "description": ABOUT[holder], "policy": json.dumps(policy)}
        return _json({"resource": {"aws_iam_policy": {f"{NAMESPACE}_{holder}": managed}}})
    properties = {"ManagedPolicyName": name, "Description": ABOUT[holder], "PolicyDocument": policy}
    return _template({"Policy": {"Type": "AWS::IAM::ManagedPolicy", "Properties": properties}}, ABOUT[holder])


def of_roles(form: Format, partition: str = "aws") -> str:
    """Return the roles of an account with their trust and their policies, as `of_people` does."""
    every = roles("*", partition)
    if form == "json":
        return _json([{"RoleName": role.name, "Trust": role.trust, "Policy": _policy(role)} for role in every])
    return _roles_in_terraform(every) if form == "terraform" else _roles_in_cloudformation(every)


def _policy(role: Role) -> dict[str, Any] | None:
    return role.policy if role.statements else None


def role_resources(every: tuple[Role, ...]) -> dict[str, dict[str, Any]]:
    """Return the CloudFormation resources of the roles and of the instance profile, which is the first role's."""
    resources: dict[str, dict[str, Any]] = {}
    for role in every:
        inline = [{"PolicyName": role.name, "PolicyDocument": role.policy}] if role.statements else []
        properties = {
            "RoleName": role.name,
            "Path": f"/{NAMESPACE}/",
            "AssumeRolePolicyDocument": role.trust,
            **({"Policies": inline} if inline else {}),
            "Tags": [{"Key": f"{NAMESPACE}:pool", "Value": NAMESPACE}],
        }
        resources[_title(role)] = {"Type": "AWS::IAM::Role", "Properties": properties}
    instance = every[0]
    resources["InstanceProfile"] = {
        "Type": "AWS::IAM::InstanceProfile",
        "Properties": {
            "InstanceProfileName": instance.name,
            "Path": f"/{NAMESPACE}/",
            "Roles": [{"Ref": _title(instance)}],
        },
    }
    return resources


def _roles_in_cloudformation(every: tuple[Role, ...]) -> str:
    return _template(role_resources(every), "The roles of dask_starburst's instances and tasks")


def _roles_in_terraform(every: tuple[Role, ...]) -> str:
    made = {
        _local(role): {
            "name": role.name,
            "path": f"/{NAMESPACE}/",
            "assume_role_policy": json.dumps(role.trust),
            "tags": {f"{NAMESPACE}:pool": NAMESPACE},
        }
        for role in every
    }
    inline = {
        _local(role): {
            "name": role.name,
            "role": f"${{aws_iam_role.{_local(role)}.id}}",
            "policy": json.dumps(role.policy),
        }
        for role in every
        if role.statements
    }
    profile = {"name": every[0].name, "path": f"/{NAMESPACE}/", "role": f"${{aws_iam_role.{_local(every[0])}.name}}"}
    resources = {
        "aws_iam_role": made,
        "aws_iam_role_policy": inline,
        "aws_iam_instance_profile": {_local(every[0]): profile},
    }
    return _json({"resource": resources})


def _title(role: Role) -> str:
    return role.name.removeprefix(f"{NAMESPACE}-").title() + "Role"


def _local(role: Role) -> str:
    return role.name.replace("-", "_")


def _template(resources: Mapping[str, Any], about: str) -> str:
    return _json({"AWSTemplateFormatVersion": "2010-09-09", "Description": about, "Resources": resources})


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)
