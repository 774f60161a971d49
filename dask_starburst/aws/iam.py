"""IAM: creation of roles and the instance profile."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from dask_starburst.aws import identity
from dask_starburst.aws.faults import EXISTS, code_of
from dask_starburst.aws.patience import unseen
from dask_starburst.aws.session import AWS
from dask_starburst.aws.tolerant import create, delete, get
from dask_starburst.cancellation import together
from dask_starburst.errors import PermissionDenied, StarburstError
from dask_starburst.plan.requests.policies import NAMESPACE, Role

logger = logging.getLogger(__name__)

#: The path of all our roles, so that one policy can name them.
PATH = f"/{NAMESPACE}/"
#: Called with the name of a role that can neither be looked at nor created, and AWS's refusal.
OnUnseen: TypeAlias = Callable[[str, PermissionDenied], None]


async def ensure_role(aws: AWS, role: Role, tags: dict[str, str], on_unseen: OnUnseen) -> str:
    """Create or update the role and its inline policy; return its ARN.

    Who may neither look at roles nor create them gets the ARN of the one that an administrator has created.

    Parameters
    ----------
    aws : AWS
        The account.
    role : Role
        The role.
    tags : dict
        The tags of a new one.
    on_unseen : callable
        Called with the role's name and AWS's refusal, if the role can neither be looked at nor created.

    Raises
    ------
    AWSError
        Also while AWS does not show a new role yet, see `aws.patience`.
    """
    try:
        found = await get(aws, "iam", "GetRole", RoleName=role.name)
    except PermissionDenied as refusal:
        return await _create_unseen(aws, role, tags, refusal, on_unseen)
    if found is not None:
        await _bring_up_to_date(aws, role)
        return str(found["Role"]["Arn"])
    arn = await _create_role(aws, role, tags)
    if arn is None:
        raise unseen(f"the role {role.name}", "iam:GetRole")
    return arn


async def _create_role(aws: AWS, role: Role, tags: dict[str, str]) -> str | None:
    """Create a role with its policy; return its ARN, or None if it exists."""
    made = await create(
        aws,
        "iam",
        "CreateRole",
        RoleName=role.name,
        Path=PATH,
        AssumeRolePolicyDocument=json.dumps(role.trust),
        Tags=_tags(tags),
    )
    if made is None:
        return None
    if role.statements:
        await put_policy(aws, role)
    return str(made["Role"]["Arn"])


async def _create_unseen(
    aws: AWS, role: Role, tags: dict[str, str], refusal: PermissionDenied, on_unseen: OnUnseen
) -> str:
    """Create a role that cannot be looked at, unless it exists or creating it is denied as well; return its ARN."""
    try:
        arn = await _create_role(aws, role, tags)
    except PermissionDenied:
        on_unseen(role.name, refusal)
        arn = None
    if arn is not None:
        return arn
    caller = await identity.caller(aws)
    return f"arn:{caller.partition}:iam::{caller.account}:role{PATH}{role.name}"


async def _bring_up_to_date(aws: AWS, role: Role) -> None:
    """Update the policy of a role created by an older version."""
    if not role.statements:
        return
    try:
        found = await get(aws, "iam", "GetRolePolicy", RoleName=role.name, PolicyName=role.name)
        if found is None or found["PolicyDocument"] != role.policy:
            await put_policy(aws, role)
    except PermissionDenied as error:
        # Only an administrator may be allowed to change roles. A missing permission is reported where it is needed.
        logger.warning("the policy of role %s could not be updated; keeping the current one: %s", role.name, error)


async def put_policy(aws: AWS, role: Role) -> None:
    """Write the inline policy of a role."""
    await aws.call(
        "iam",
        "PutRolePolicy",
        RoleName=role.name,
        PolicyName=role.name,
        PolicyDocument=json.dumps(role.policy),
    )


async def ensure_instance_profile(aws: AWS, role: Role, tags: dict[str, str], on_unseen: OnUnseen) -> str:
    """Create the instance profile for `role`; return its name. See `ensure_role`."""
    name = role.name
    found, _ = await together(_profile(aws, name), ensure_role(aws, role, tags, on_unseen))
    if isinstance(found, dict) and found["InstanceProfile"]["Roles"]:
        return name
    try:
        if not isinstance(found, dict):  # else an interrupted set-up has created it
            made = await create(
                aws, "iam", "CreateInstanceProfile", InstanceProfileName=name, Path=PATH, Tags=_tags(tags)
            )
            if made is None and isinstance(found, PermissionDenied):
                return name
        await _add_role(aws, name)
    except PermissionDenied:
        if not isinstance(found, PermissionDenied):
            raise
        on_unseen(name, found)
    return name


async def _profile(aws: AWS, name: str) -> dict[str, Any] | PermissionDenied | None:
    """Return the description of an instance profile, None if there is none, or AWS's refusal to show it."""
    try:
        return await get(aws, "iam", "GetInstanceProfile", InstanceProfileName=name)
    except PermissionDenied as refusal:
        return refusal


async def _add_role(aws: AWS, name: str) -> None:
    """Add the role to the instance profile of the same name."""
    try:
        await aws.call("iam", "AddRoleToInstanceProfile", InstanceProfileName=name, RoleName=name)
    except StarburstError as error:
        if code_of(error) != "LimitExceeded":
            raise
        # Another cluster set up the account at the same time: a profile has
        # only one role, which may not be visible yet.
        found = await _profile(aws, name)
        if isinstance(found, dict) and any(r["RoleName"] != name for r in found["InstanceProfile"]["Roles"]):
            raise


async def ensure_service_linked_role(aws: AWS, service: str, role: str, on_unseen: OnUnseen) -> None:
    """Create a service-linked role; a new account lacks some. See `ensure_role`.

    The console creates them automatically, the API does not (aws-facts §3.5): without the one for Spot no group of
    a new account gets a Spot instance.
    """
    refusal = None
    try:
        if await get(aws, "iam", "GetRole", RoleName=role) is not None:
            return
    except PermissionDenied as error:
        refusal = error
    try:
        await aws.call("iam", "CreateServiceLinkedRole", AWSServiceName=service)
    except PermissionDenied:
        if refusal is None:
            raise
        on_unseen(role, refusal)
    except StarburstError as error:
        # AWS's error if the role exists: another cluster created it.
        if code_of(error) not in EXISTS | {"InvalidInput"}:
            raise


async def role_exists(aws: AWS, name: str) -> bool:
    """Return whether there is a role of this name."""
    return await get(aws, "iam", "GetRole", RoleName=name) is not None


async def role_state(aws: AWS, role: Role) -> Literal["there", "missing", "incomplete"]:
    """Return whether a role exists with its policy; an interrupted set-up, or an older version, leaves another."""
    if not await role_exists(aws, role.name):
        return "missing"
    if not role.statements:
        return "there"
    found = await get(aws, "iam", "GetRolePolicy", RoleName=role.name, PolicyName=role.name)
    return "there" if found is not None and found["PolicyDocument"] == role.policy else "incomplete"


async def profile_state(aws: AWS, name: str) -> Literal["there", "missing", "incomplete"]:
    """Return whether an instance profile exists with a role."""
    found = await get(aws, "iam", "GetInstanceProfile", InstanceProfileName=name)
    if found is None:
        return "missing"
    return "there" if found["InstanceProfile"]["Roles"] else "incomplete"


async def remove_role(aws: AWS, name: str) -> None:
    """Delete a role with its policies. No-op if it does not exist."""
    if await get(aws, "iam", "GetRole", RoleName=name) is None:
        return
    for policy in await aws.pages("iam", "ListRolePolicies", "PolicyNames", RoleName=name):
        await delete(aws, "iam", "DeleteRolePolicy", RoleName=name, PolicyName=policy)
    for policy in await aws.pages("iam", "ListAttachedRolePolicies", "AttachedPolicies", RoleName=name):
        await delete(aws, "iam", "DetachRolePolicy", RoleName=name, PolicyArn=policy["PolicyArn"])
    await delete(aws, "iam", "DeleteRole", RoleName=name)


async def remove_instance_profile(aws: AWS, name: str) -> None:
    """Delete an instance profile. No-op if it does not exist."""
    found = await get(aws, "iam", "GetInstanceProfile", InstanceProfileName=name)
    if found is None:
        return
    for role in found["InstanceProfile"]["Roles"]:
        await delete(aws, "iam", "RemoveRoleFromInstanceProfile", InstanceProfileName=name, RoleName=role["RoleName"])
    await delete(aws, "iam", "DeleteInstanceProfile", InstanceProfileName=name)


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": k, "Value": v} for k, v in tags.items()]
