"""IAM: creation of roles and the instance profile."""

from __future__ import annotations

import asyncio
import json
import logging

from dask_starburst.aws.faults import EXISTS, code_of
from dask_starburst.aws.session import AWS
from dask_starburst.aws.tolerant import create, get
from dask_starburst.errors import PermissionDenied, StarburstError
from dask_starburst.plan.requests.policies import NAMESPACE, Role

logger = logging.getLogger(__name__)

#: The path of all our roles, so that one policy can name them.
PATH = f"/{NAMESPACE}/"


async def ensure_role(aws: AWS, role: Role, tags: dict[str, str]) -> str:
    """Create or update the role and its inline policy; return its ARN."""
    found = await get(aws, "iam", "GetRole", RoleName=role.name)
    if found is not None:
        await _bring_up_to_date(aws, role)
        return str(found["Role"]["Arn"])
    made = await create(
        aws,
        "iam",
        "CreateRole",
        RoleName=role.name,
        Path=PATH,
        AssumeRolePolicyDocument=json.dumps(role.trust),
        Tags=[{"Key": k, "Value": v} for k, v in tags.items()],
    )
    if role.statements:
        await _put_policy(aws, role)
    if made is None:
        made = await aws.call("iam", "GetRole", RoleName=role.name)
    return str(made["Role"]["Arn"])


async def _bring_up_to_date(aws: AWS, role: Role) -> None:
    """Update the policy of a role created by an older version."""
    if not role.statements:
        return
    try:
        found = await get(aws, "iam", "GetRolePolicy", RoleName=role.name, PolicyName=role.name)
        if found is None or found["PolicyDocument"] != role.policy:
            await _put_policy(aws, role)
    except PermissionDenied as error:
        # Only an administrator may be allowed to change roles. A missing permission is reported where it is needed.
        logger.warning("the policy of role %s could not be updated; keeping the current one: %s", role.name, error)


async def _put_policy(aws: AWS, role: Role) -> None:
    await aws.call(
        "iam",
        "PutRolePolicy",
        RoleName=role.name,
        PolicyName=role.name,
        PolicyDocument=json.dumps(role.policy),
    )


async def ensure_instance_profile(aws: AWS, role: Role, tags: dict[str, str]) -> str:
    """Create the instance profile for `role`; return its name."""
    name = role.name
    found, _ = await asyncio.gather(
        get(aws, "iam", "GetInstanceProfile", InstanceProfileName=name), ensure_role(aws, role, tags)
    )
    if found is not None and found["InstanceProfile"]["Roles"]:
        return name
    await create(
        aws,
        "iam",
        "CreateInstanceProfile",
        InstanceProfileName=name,
        Path=PATH,
        Tags=[{"Key": k, "Value": v} for k, v in tags.items()],
    )
    try:
        await aws.call("iam", "AddRoleToInstanceProfile", InstanceProfileName=name, RoleName=name)
    except StarburstError as error:
        if code_of(error) != "LimitExceeded":
            raise
        # Another cluster set up the account at the same time: a profile has
        # only one role, which may not be visible yet.
        found = await get(aws, "iam", "GetInstanceProfile", InstanceProfileName=name)
        if found is not None and any(r["RoleName"] != name for r in found["InstanceProfile"]["Roles"]):
            raise
    return name


async def ensure_service_linked_role(aws: AWS, service: str, role: str) -> None:
    """Create a service-linked role; a new account lacks some.

    The console creates them automatically, the API does not (aws-facts §3.5): without the one for Spot no group of
    a new account gets a Spot instance.
    """
    if await get(aws, "iam", "GetRole", RoleName=role) is not None:
        return
    try:
        await aws.call("iam", "CreateServiceLinkedRole", AWSServiceName=service)
    except StarburstError as error:
        # AWS's error if the role exists: another cluster created it.
        if code_of(error) not in EXISTS | {"InvalidInput"}:
            raise
