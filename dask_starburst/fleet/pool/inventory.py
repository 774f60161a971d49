"""Find everything of ours in an account and region, in any state."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from dask_starburst.aws import ecr, ecs, iam, inventory, ssm
from dask_starburst.aws.faults import MISSING, code_of
from dask_starburst.aws.session import AWS
from dask_starburst.errors import PermissionDenied, StarburstError
from dask_starburst.fleet.pool import claims, discovery
from dask_starburst.plan.images.lifetime import monthly_cost, stored_bytes
from dask_starburst.plan.money.idle import LOGS_GB_MONTH
from dask_starburst.plan.requests.garbage import SECRETS, GroupFound, PoolFound, usd_per_hour
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE
from dask_starburst.plan.requests.tasks import LOG_GROUP
from dask_starburst.plan.requests.teardown import Resource, claim_of, pool_of

#: States in which an instance is billed, or its volumes are; later ones need no termination.
_STAYING = ["pending", "running", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Inventory:
    """The resources of ours, the pools, and what could not be listed: AWS's sentences."""

    resources: tuple[Resource, ...]
    pools: tuple[PoolFound, ...]
    unknown: tuple[str, ...] = ()


async def find(aws: AWS, repository: str) -> Inventory:
    """Return everything with our tag or our name; kinds that may not be listed are named.

    Parameters
    ----------
    aws : AWS
        The account and region.
    repository : str
        The configured ECR repository, in addition to those below ``starburst/``.

    Raises
    ------
    PermissionDenied
        The pools may not be listed, so it is unknown which resources are in use.
    """
    pools = await discovery.find(aws)
    groups = [_of_group(pool, group) for pool in pools for group in pool.groups]
    held = [claim_of(pool) for pool in sorted(await claims.everywhere(aws))]
    unknown: list[str] = []
    finders: tuple[Awaitable[list[Resource]], ...] = (
        _clusters(aws),
        _instances(aws, {each.name for each in groups}),
        _providers(aws),
        _templates(aws),
        _definitions(aws),
        _security_groups(aws),
        _certificates(aws),
        _repositories(aws, repository, unknown),
        _log_group(aws),
        _profiles(aws),
        _roles(aws),
    )
    parts = await asyncio.gather(*(_allowed(each, unknown) for each in finders))
    return Inventory((*groups, *held, *(each for part in parts for each in part)), pools, tuple(unknown))


async def _allowed(finder: Awaitable[list[Resource]], unknown: list[str]) -> list[Resource]:
    try:
        return await finder
    except PermissionDenied as error:
        unknown.append(str(error))
        return []


def _of_group(pool: PoolFound, group: GroupFound) -> Resource:
    count = len(group.types)
    detail = f"{count} instance{'' if count == 1 else 's'}" if count else ""
    usd, empty = usd_per_hour([group]), not (count or group.desired)
    return Resource("Auto Scaling group", group.name, group.name, pool.name, usd, 0.0, detail, empty)


async def _clusters(aws: AWS) -> list[Resource]:
    """Return the ECS clusters and their tasks; a task ends with its instance, but may have lost it."""
    found = await inventory.clusters(aws, MANAGED_TAG)
    tasks = await asyncio.gather(*(_tasks(aws, each) for each in found))
    rows = [Resource("ECS cluster", each.name, each.name, each.tag) for each in found]
    return [*rows, *(task for part in tasks for task in part)]


async def _tasks(aws: AWS, cluster: inventory.Found) -> list[Resource]:
    try:
        arns = await ecs.running(aws, cluster.name)
    except StarburstError as error:
        if code_of(error) not in MISSING:
            raise
        return []
    return [Resource("task", f"{cluster.name}/{arn.rpartition('/')[2]}", arn, cluster.tag) for arn in arns]


async def _instances(aws: AWS, groups: set[str]) -> list[Resource]:
    """Return the instances that no group will terminate: their group was deleted, or they were detached from it."""
    found = await inventory.instances(aws, MANAGED_TAG, _STAYING)
    return [_of_instance(each, aws.region) for each in found if each.group not in groups]


def _of_instance(lone: inventory.Instance, region: str) -> Resource:
    name, pool = lone.found.id, lone.found.tag
    usd = usd_per_hour([GroupFound(name, 1, lone.spot, (lone.type,), None, 0, region)])
    return Resource("instance", name, name, pool, usd, 0.0, lone.type)


async def _providers(aws: AWS) -> list[Resource]:
    found = await inventory.capacity_providers(aws, MANAGED_TAG)
    owned = ((each, each.tag or pool_of(each.name)) for each in found)
    return [Resource("capacity provider", each.name, each.name, pool) for each, pool in owned if pool]


async def _templates(aws: AWS) -> list[Resource]:
    found = await inventory.launch_templates(aws, MANAGED_TAG)
    return [Resource("launch template", each.name, each.id, each.tag) for each in found]


async def _definitions(aws: AWS) -> list[Resource]:
    found = await inventory.task_definitions(aws, f"{NAMESPACE}-", pool_of)
    return [Resource("task definition", each.name, each.id, pool_of(each.tag) or "") for each in found]


async def _security_groups(aws: AWS) -> list[Resource]:
    found = await inventory.security_groups(aws, MANAGED_TAG)
    return [Resource("security group", each.name, each.id, each.tag) for each in found]


async def _certificates(aws: AWS) -> list[Resource]:
    names = await ssm.described_below(aws, SECRETS)
    return [Resource("certificate", name, name, name.rpartition("/")[2]) for name in names]


async def _repositories(aws: AWS, configured: str, unknown: list[str]) -> list[Resource]:
    found = await inventory.repositories(
        aws, MANAGED_TAG, lambda name: name == configured or name.startswith(f"{NAMESPACE}/")
    )
    for each in found:
        if not each.tag:
            unknown.append(
                f"the repository {each.name} does not have our tag, and is kept. If it is yours:"
                f" `aws ecr delete-repository --force --repository-name {each.name}`."
            )
    mine = [each for each in found if each.tag]
    stored = await asyncio.gather(*(ecr.images(aws, each.name) for each in mine))
    return [
        Resource("image repository", each.name, each.name, NAMESPACE, 0.0, monthly_cost(size), _size(size))
        for each, images in zip(mine, stored, strict=True)
        for size in [stored_bytes(images)]
    ]


async def _log_group(aws: AWS) -> list[Resource]:
    found = await inventory.log_group(aws, LOG_GROUP)
    if found is None:
        return []
    group, size = found
    return [Resource("log group", group.name, group.id, NAMESPACE, 0.0, size / 1e9 * LOGS_GB_MONTH, _size(size))]


async def _profiles(aws: AWS) -> list[Resource]:
    found = await inventory.instance_profiles(aws, iam.PATH)
    return [Resource("instance profile", each.name, each.name, NAMESPACE) for each in found]


async def _roles(aws: AWS) -> list[Resource]:
    return [Resource("role", each.name, each.name, NAMESPACE) for each in await inventory.roles(aws, iam.PATH)]


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else ""
