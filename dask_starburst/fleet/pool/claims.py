"""Claim pools and free them; see `plan.requests.claims` for the parameters."""

from __future__ import annotations

from dask_starburst.aws import ssm
from dask_starburst.aws.patience import unseen
from dask_starburst.aws.session import AWS
from dask_starburst.plan.requests.claims import CLAIMS, Claim, Series, names_of, series_of
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.plan.requests.pool import PoolNames


async def everywhere(aws: AWS) -> dict[str, Series]:
    """Return the claims of all pools."""
    return series_of(await ssm.values_below(aws, CLAIMS))


async def series(aws: AWS, names: PoolNames) -> Series:
    """Return the claims of one pool."""
    return series_of(await ssm.values_below(aws, names.claim)).get(names.pool, Series({}))


async def read(aws: AWS, names: PoolNames) -> Claim | None:
    """Return the claim that holds a pool; None if it is free."""
    return (await series(aws, names)).holder


async def take(aws: AWS, names: PoolNames, claim: Claim) -> bool:
    """Claim a free pool; return whether this session holds it then. Safe to repeat.

    Raises
    ------
    AWSError
        Also while AWS does not show the new claim yet, see `aws.patience`.
    """
    before = await series(aws, names)
    if before.holder is not None:
        return before.is_held_by(claim.session)  # ours if the answer to an earlier attempt was lost
    (name,) = names_of(names.claim, [before.number + 1])
    made = await ssm.create(aws, name, claim.to_json(), {MANAGED_TAG: names.pool})
    # Read it back: AWS's answer may have been about another claim, or `before` was out of date.
    after = await series(aws, names)
    if made and before.number + 1 not in after.claims:
        raise unseen(f"the claim of pool {names.pool}", "ssm:GetParametersByPath")
    if made and not after.is_held_by(claim.session):
        await ssm.remove(aws, name)
    return after.is_held_by(claim.session)


async def free(aws: AWS, names: PoolNames) -> None:
    """Free a pool that this session holds. No-op if it is free."""
    found = await series(aws, names)
    freed = found.freed(aws.now())
    if freed is not None:
        for name in names_of(names.claim, found.outdated):
            await ssm.remove(aws, name)
        (newest,) = names_of(names.claim, [found.number])
        await ssm.overwrite(aws, newest, freed.to_json())


async def remove(aws: AWS, names: PoolNames) -> None:
    """Delete all claims of a pool, the newest last. No-op if there is none."""
    for name in names_of(names.claim, sorted((await series(aws, names)).claims)):
        await ssm.remove(aws, name)
