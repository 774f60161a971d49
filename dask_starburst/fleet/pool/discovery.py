"""Find the pools of an account and region from AWS alone, and delete leftovers."""

from __future__ import annotations

import asyncio
import uuid

from dask_starburst.aws import autoscaling, ecs, identity, ssm
from dask_starburst.aws.session import AWS
from dask_starburst.errors import BadArgument
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool import delete as deletion
from dask_starburst.fleet.pool.pool import claim, user_name
from dask_starburst.plan.requests.claims import newest_of
from dask_starburst.plan.requests.garbage import (
    SECRETS,
    Garbage,
    GroupFound,
    PoolFound,
    assemble,
    find_garbage,
    orphaned_claims,
)
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.pool import LEASE_ACTION, PoolNames
from dask_starburst.plan.requests.reuse import WARM_TAG


async def find(aws: AWS, *, count_warm: bool = False) -> tuple[PoolFound, ...]:
    """Return every pool of this account and region, found by tag and by claim.

    `count_warm`: also ask ECS which instances are ready and have no task.
    """
    # Claims before groups: a pool that is checked out in between appears free rather than expired, and a free pool is
    # claimed before it is changed.
    claimed = newest_of(await claims.everywhere(aws))
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
    return assemble(groups, claimed, aws.now())


async def _empty_hosts(aws: AWS, pool: str) -> set[str]:
    if await ecs.cluster_providers(aws, pool) is None:
        return set()  # a deletion has removed the ECS cluster already
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
    raise BadArgument(f"pool {name!r} does not exist in {aws.region}; `starburst pool list` shows the existing ones.")


async def may_stop(aws: AWS, pool: PoolFound) -> None:
    """Check that this user may stop the pool.

    Raises
    ------
    BadArgument
        The pool is in use by another user or other credentials.
    """
    if pool.state != "in use":
        return
    assert pool.claim is not None
    arn = (await identity.caller(aws)).arn
    if not pool.claim.is_of(user_name(), arn):
        raise BadArgument(
            f"pool {pool.name} is in use by {pool.claim.owner} ({pool.claim.arn or 'unknown ARN'}); you are"
            f" {user_name()} ({arn}). Only its owner can stop it."
        )


async def stop(aws: AWS, pool: PoolFound) -> None:
    """Set the groups of a pool to zero; the pool has to be this user's, expired or free.

    Raises
    ------
    BadArgument
        Another user uses the pool, or a new cluster has just checked it out.
    """
    await may_stop(aws, pool)
    if pool.claim is not None:
        await deletion.stop(aws, pool.name)
        return
    # A warm pool may be checked out at this moment, so it is claimed before it is changed.
    names = PoolNames(pool.name)
    if not await claim(aws, names, uuid.uuid4().hex, (await identity.caller(aws)).arn, cleaning=True):
        raise BadArgument(f"pool {pool.name} has just been checked out by a new cluster; nothing was stopped.")
    await deletion.stop(aws, pool.name)
    await asyncio.gather(*(autoscaling.drop_lease(aws, group.name, LEASE_ACTION) for group in pool.groups))
    await autoscaling.untag(aws, [group.name for group in pool.groups], WARM_TAG)
    await claims.free(aws, names)


async def delete(aws: AWS, name: str) -> bool:
    """Delete a free or expired pool.

    Returns
    -------
    bool
        False if the pool does not exist.

    Raises
    ------
    BadArgument
        The pool is in use.
    AWSError
        AWS was busy with it for too long, or another session claimed it; a second deletion resumes.
    """
    # Find it again: the user was asked to confirm since it was listed, and its client may have renewed the lease.
    pool = next((p for p in await find(aws) if p.name == name), None)
    if pool is None:
        return False
    names = PoolNames(name)
    if pool.state == "in use":
        assert pool.claim is not None
        raise BadArgument(f"pool {name} is in use by {pool.claim.owner}; close its cluster, or stop the pool, first.")
    if pool.claim is not None:
        session = pool.claim.session
    else:
        session = uuid.uuid4().hex
        if not await claim(aws, names, session, (await identity.caller(aws)).arn, cleaning=True):
            raise BadArgument(f"pool {name} has just been checked out by a new cluster; nothing was deleted.")
    await deletion.remove(aws, names, session)
    return True


async def garbage(aws: AWS) -> tuple[Garbage, ...]:
    """Return what `collect` would delete, with the reason for each."""
    # Secrets first: a secret is created after its claim, so one without a claim is an orphan.
    secrets = await ssm.described_below(aws, SECRETS)
    pools = await find(aws)
    return (*find_garbage(pools, secrets), *orphaned_claims(await claims.everywhere(aws), pools, aws.now()))


async def collect(aws: AWS, found: Garbage) -> bool:
    """Delete one item that `garbage` has found; return False if it is gone or in use again."""
    # Found again: since the user was asked, a new cluster may have claimed the pool and written its certificates.
    if found.name not in {again.name for again in await garbage(aws)}:
        return False
    if found.pool is not None:
        return await delete(aws, found.name)
    await ssm.remove(aws, found.name)
    return True
