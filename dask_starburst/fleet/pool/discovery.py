"""Finding the pools of an account and region by what is in AWS alone, and removing what is left over."""

from __future__ import annotations

import asyncio
import uuid

from dask_starburst.aws import autoscaling, ecs, identity, ssm
from dask_starburst.aws.session import AWS
from dask_starburst.errors import BadArgument
from dask_starburst.fleet.pool import delete as removal
from dask_starburst.fleet.pool.pool import claim, user_name
from dask_starburst.plan.requests.garbage import (
    CLAIMS,
    SECRETS,
    Claim,
    Garbage,
    GroupFound,
    PoolFound,
    assemble,
    find_garbage,
)
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.pool import LEASE_ACTION, PoolNames


async def find(aws: AWS, *, count_warm: bool = False) -> tuple[PoolFound, ...]:
    """Return every pool of this account and region, by our tag and below our claims only.

    `count_warm`: ask ECS too which instances take tasks and have none.
    """
    # Claims before groups: a pool that is checked out in between then looks free rather than expired,
    # and a free one is claimed before it is touched.
    values = await ssm.values_below(aws, CLAIMS)
    tagged = await autoscaling.tagged(aws, MANAGED_TAG)
    seen = [(pool, group, spot) for pool, groups in tagged.items() for group, spot in groups]
    leases = await asyncio.gather(*(autoscaling.lease_end(aws, group.name, LEASE_ACTION) for _, group, _ in seen))
    running = sorted({pool for pool, group, _ in seen if group.staying}) if count_warm else []
    warm = dict(zip(running, await asyncio.gather(*(_empty_hosts(aws, pool) for pool in running)), strict=True))
    groups: dict[str, list[GroupFound]] = {}
    for (pool, group, spot), lease in zip(seen, leases, strict=True):
        types = tuple(kind for _, kind in group.staying)
        empty = sum(instance in warm.get(pool, ()) for instance, _ in group.staying)
        found = GroupFound(group.name, group.desired, spot, types, lease, empty, aws.region)
        groups.setdefault(pool, []).append(found)
    return assemble(groups, {name: Claim.from_json(value) for name, value in values.items()}, aws.now())


async def _empty_hosts(aws: AWS, pool: str) -> set[str]:
    if await ecs.cluster_providers(aws, pool) is None:
        return set()  # a removal has come so far
    return {host.instance for host in await ecs.hosts(aws, pool) if host.ready and host.empty}


async def find_one(aws: AWS, name: str) -> PoolFound:
    """Return the pool of this name.

    Raises
    ------
    BadArgument
        There is none.
    """
    for pool in await find(aws, count_warm=True):
        if pool.name == name:
            return pool
    raise BadArgument(f"there is no pool {name!r} in {aws.region}; `starburst pool list` shows those that there are.")


async def may_stop(aws: AWS, pool: PoolFound) -> None:
    """Refuse the pool in which somebody else computes.

    Raises
    ------
    BadArgument
        It is in use, and not by this user with these credentials.
    """
    if pool.state != "in use":
        return
    assert pool.claim is not None
    arn = (await identity.caller(aws)).arn
    if not pool.claim.is_of(user_name(), arn):
        raise BadArgument(
            f"{pool.name} is in use by {pool.claim.owner} ({pool.claim.arn or 'unknown ARN'}); you are"
            f" {user_name()} ({arn}). Only its owner can stop it."
        )


async def stop(aws: AWS, pool: PoolFound) -> None:
    """Zero the groups of a pool that is one's own, expired or free.

    Raises
    ------
    BadArgument
        Somebody else uses it, or has just checked it out.
    """
    await may_stop(aws, pool)
    if pool.claim is not None:
        await removal.stop(aws, pool.name)
        return
    # A warm pool may be checked out this very moment: it is claimed before it is touched.
    names = PoolNames(pool.name)
    if not await claim(aws, names, uuid.uuid4().hex, (await identity.caller(aws)).arn, cleaning=True):
        raise BadArgument(f"{pool.name} has just been checked out by a new cluster; nothing was stopped.")
    await removal.stop(aws, pool.name)
    await asyncio.gather(*(autoscaling.drop_lease(aws, group.name, LEASE_ACTION) for group in pool.groups))
    await ssm.remove(aws, names.claim)


async def delete(aws: AWS, name: str) -> bool:
    """Remove a free or expired pool for good.

    Returns
    -------
    bool
        False when there was none.

    Raises
    ------
    BadArgument
        It is in use.
    AWSError
        AWS was busy with it for too long, or somebody claimed it meanwhile; deleting again goes on.
    """
    # A fresh look: between listing and deleting people are asked, and its client may have come back.
    pool = next((p for p in await find(aws) if p.name == name), None)
    if pool is None:
        return False
    names = PoolNames(name)
    if pool.state == "in use":
        assert pool.claim is not None
        raise BadArgument(f"{name} is in use by {pool.claim.owner}; close its cluster, or stop the pool, first.")
    if pool.claim is not None:
        session = pool.claim.session
    else:
        session = uuid.uuid4().hex
        if not await claim(aws, names, session, (await identity.caller(aws)).arn, cleaning=True):
            raise BadArgument(f"{name} has just been checked out by a new cluster; nothing was deleted.")
    await removal.remove(aws, names, session)
    return True


async def garbage(aws: AWS) -> tuple[Garbage, ...]:
    """Return what `collect` would remove, with the reason for each."""
    # Secrets first: each is younger than its claim, so that one without a claim afterwards is an orphan.
    secrets = await ssm.names_below(aws, SECRETS)
    return find_garbage(await find(aws), secrets)


async def collect(aws: AWS, found: Garbage) -> bool:
    """Remove one thing that `garbage` has found; False when it was gone, or is needed again."""
    if found.pool is not None:
        return found.name in {again.name for again in await garbage(aws)} and await delete(aws, found.name)
    await ssm.remove(aws, found.name)
    return True
