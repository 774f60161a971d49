"""Set up an account once, as an administrator: what all clusters share, part by part."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from dask_starburst.aws import ec2, iam, identity, logs, network
from dask_starburst.aws.faults import outage
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.errors import PermissionDenied, StarburstError
from dask_starburst.plan.money.idle import LOGS_GB_MONTH
from dask_starburst.plan.requests import policies
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE
from dask_starburst.plan.requests.tasks import LOG_GROUP
from dask_starburst.settings import Settings

State = Literal["there", "missing", "incomplete"]

#: The description of the security group that all pools of a VPC share.
SECURITY_GROUP_ABOUT = "Dask workers among themselves"
_FREE = "free"
_PURPOSES: Mapping[str, str] = {
    f"{NAMESPACE}-instance": "the instances: the ECS agent, and their own termination",
    f"{NAMESPACE}-execution": "ECS: pulls images, reads certificates, writes logs",
    f"{NAMESPACE}-scheduler": "the scheduler: renews the lease, empties its groups",
    f"{NAMESPACE}-worker": "the workers, and so your code; no permissions",
}
_LOGS = f"free while empty, then ${LOGS_GB_MONTH} a GB and month"


@dataclass(frozen=True, slots=True)
class Part:
    """A resource that all clusters share.

    Attributes
    ----------
    kind, name : str
    purpose : str
        What it is for.
    idle : str
        Its price while nothing runs.
    look : callable
        Returns its state.
    make : callable
        Creates or completes it; harmless if it is there.
    """

    kind: str
    name: str
    purpose: str
    idle: str
    look: Callable[[], Awaitable[State]]
    make: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Seen:
    """A part and its state; None if AWS does not show it, with AWS's `error`."""

    part: Part
    state: State | None
    error: str = ""


async def parts_of(aws: AWS, settings: Settings) -> tuple[Part, ...]:
    """Return the parts of an account in the order in which they are made."""
    caller = await identity.caller(aws)
    tags = {**settings.tags, MANAGED_TAG: NAMESPACE}
    roles = policies.roles(caller.account, caller.partition)
    instance = roles[0]
    linked = (
        Part(
            "service-linked role",
            name,
            f"AWS's own, of {service}",
            _FREE,
            partial(_look_linked, aws, name),
            partial(iam.ensure_service_linked_role, aws, service, name, _refuse),
        )
        for service, name in policies.SERVICE_LINKED_ROLES
    )
    return (
        *linked,
        *(_role(aws, role, tags) for role in roles),
        Part(
            "instance profile",
            instance.name,
            f"hands the role {instance.name} to instances",
            _FREE,
            partial(iam.profile_state, aws, instance.name),
            partial(iam.ensure_instance_profile, aws, instance, tags, _refuse),
        ),
        Part(
            "log group",
            LOG_GROUP,
            f"logs of schedulers and workers, kept for {settings.storage.log_retention} days",
            _LOGS,
            partial(logs.group_state, aws, LOG_GROUP),
            partial(logs.ensure_group, aws, LOG_GROUP, settings.storage.log_retention, tags),
        ),
        Part(
            "security group",
            NAMESPACE,
            "lets workers of one VPC reach each other, and nothing else",
            _FREE,
            partial(_look_security_group, aws, settings),
            partial(_make_security_group, aws, settings, tags),
        ),
    )


def _role(aws: AWS, role: policies.Role, tags: dict[str, str]) -> Part:
    async def make() -> None:
        await iam.ensure_role(aws, role, tags, _refuse)
        if await iam.role_state(aws, role) != "there":
            await iam.put_policy(aws, role)  # `ensure_role` keeps the old policy where it may not change it

    return Part("role", role.name, _PURPOSES[role.name], _FREE, partial(iam.role_state, aws, role), make)


def _refuse(name: str, refusal: PermissionDenied) -> None:
    raise refusal


async def _look_linked(aws: AWS, name: str) -> State:
    return "there" if await iam.role_exists(aws, name) else "missing"


async def _look_security_group(aws: AWS, settings: Settings) -> State:
    vpc = await network.vpc_of(aws, settings.network.requested, settings.network.vpc)
    return await ec2.security_group_state(aws, vpc, NAMESPACE)


async def _make_security_group(aws: AWS, settings: Settings, tags: dict[str, str]) -> None:
    vpc = await network.vpc_of(aws, settings.network.requested, settings.network.vpc)
    group = await ec2.ensure_security_group(aws, vpc, NAMESPACE, SECURITY_GROUP_ABOUT, tags)
    await ec2.admit_each_other(aws, group)


async def look(parts: Iterable[Part]) -> tuple[Seen, ...]:
    """Return the state of each part; one that AWS does not show is unknown.

    Raises
    ------
    CredentialsExpired, NoCredentials, Throttled, AWSUnavailable
        AWS does not answer, or not this user.
    """
    return tuple(await asyncio.gather(*(_look_one(part) for part in parts)))


async def _look_one(part: Part) -> Seen:
    try:
        return Seen(part, await part.look())
    except StarburstError as error:
        if outage(error):
            raise
        return Seen(part, None, str(error))


async def make(parts: Iterable[Part], patience: Patience, tell: Callable[[Part, str], None]) -> bool:
    """Make the parts one after the other; return whether all are there.

    Idempotent: a set-up that was interrupted goes on where it was. What AWS refuses is told, and the rest is made.

    Parameters
    ----------
    parts : iterable of Part
        In the order of `parts_of`.
    patience : Patience
        Repeats each until AWS shows what earlier ones have created.
    tell : callable
        Receives each part and AWS's error, which is empty if the part is there.

    Raises
    ------
    CredentialsExpired, NoCredentials, Throttled, AWSUnavailable
        AWS does not answer, or not this user. A second set-up goes on.
    """
    failed = False
    for part in parts:
        try:
            await patience(part.make)
        except StarburstError as error:
            if outage(error):
                raise
            failed = True
            tell(part, str(error))
        else:
            tell(part, "")
    return not failed
