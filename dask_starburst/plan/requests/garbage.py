"""The pools found in an account, and which of them may be deleted: pure decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dask_starburst.catalog import PUBLIC_IPV4_HOUR, price_table
from dask_starburst.errors import PriceUnknown
from dask_starburst.plan.groups import HEAD_PLACEMENT
from dask_starburst.plan.requests.claims import CLAIMS, Claim, Series, names_of
from dask_starburst.plan.requests.policies import NAMESPACE, PARAMETER_ROOT

State = Literal["free", "in use", "expired"]

SECRETS = f"{PARAMETER_ROOT}tls"

#: Seconds for which a claim without a lease counts as in use. Between claim and lease a pool is created, which may take
#: a minute with a new instance profile.
CLAIM_GRACE = 600.0


@dataclass(frozen=True, slots=True)
class GroupFound:
    """One Auto Scaling group of a pool.

    ``types``: the types of its instances that are not terminating; ``warm``: how many of these are
    connected to ECS and empty; ``region``: for prices.
    """

    name: str
    desired: int
    spot: bool
    types: tuple[str, ...]
    lease: float | None
    warm: int = 0
    region: str = "us-east-1"


@dataclass(frozen=True, slots=True)
class PoolFound:
    """A pool as described by AWS.

    Attributes
    ----------
    name : str
    groups : tuple of GroupFound
        Empty when only a claim is left.
    claim : Claim or None
        None if the pool is free.
    now : float
        AWS's time of the description, in seconds since the epoch.
    """

    name: str
    groups: tuple[GroupFound, ...]
    claim: Claim | None
    now: float

    @property
    def lease(self) -> float | None:
        """End of its last lease, in seconds since the epoch; None if all have expired."""
        ends = [g.lease for g in self.groups if g.lease is not None and g.lease > self.now]
        return max(ends, default=None)

    @property
    def state(self) -> State:
        """``free``: not claimed; ``expired``: claimed by a client that is gone; else ``in use``."""
        if self.claim is None:
            return "free"
        if self.claim.cleaning:
            return "expired"  # a deletion that was interrupted
        if self.lease is not None or self.now - self.claim.since < CLAIM_GRACE:
            return "in use"
        return "expired"

    @property
    def running(self) -> int:
        """Number of instances that are not terminating."""
        return sum(len(g.types) for g in self.groups)

    @property
    def desired(self) -> int:
        """Sum of the desired capacities."""
        return sum(g.desired for g in self.groups)

    @property
    def usd_per_hour(self) -> float | None:
        """Cost of the running instances and their public addresses; None if a price is not in the catalogue."""
        return usd_per_hour(self.groups)

    @property
    def warm(self) -> int:
        """Number of connected, empty worker instances: a new worker starts on them immediately."""
        return sum(g.warm for g in self.groups if not g.name.endswith(f"-{HEAD_PLACEMENT}"))


def usd_per_hour(groups: Iterable[GroupFound]) -> float | None:
    """Return the USD an hour of the instances of these groups, with public addresses and without volumes."""
    try:
        prices = [
            (table.spot_estimate(kind) if g.spot else table.on_demand(kind)).usd_per_hour
            for g in groups
            for table in [price_table(g.region)]
            for kind in g.types
        ]
    except PriceUnknown:
        return None
    return sum(prices) + PUBLIC_IPV4_HOUR * len(prices)


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something to delete, and why: a pool, or a parameter whose pool no longer exists."""

    name: str
    why: str
    pool: PoolFound | None = None


def assemble(groups: Mapping[str, list[GroupFound]], claims: Mapping[str, Claim], now: float) -> tuple[PoolFound, ...]:
    """Join groups and claims by the name of the pool.

    A freed claim does not make a pool.

    Parameters
    ----------
    groups : mapping of str to list of GroupFound
        By the value of the pool tag.
    claims : mapping of str to Claim
        The newest claim of each pool.
    now : float
        AWS's time, in seconds since the epoch.
    """
    claims = {name: claim for name, claim in claims.items() if claim.freed is None}
    names = sorted(n for n in {*groups, *claims} if n.startswith(f"{NAMESPACE}-"))
    return tuple(PoolFound(n, tuple(groups.get(n, ())), claims.get(n), now) for n in names)


def find_garbage(pools: Iterable[PoolFound], secrets: Iterable[str]) -> tuple[Garbage, ...]:
    """Return what is not needed any more; never a pool that is in use or has a running lease.

    Parameters
    ----------
    pools : iterable of PoolFound
    secrets : iterable of str
        Names of the parameters that hold certificates.
    """
    pools = tuple(pools)
    known = {p.name for p in pools}
    found = [Garbage(p.name, _why(p), p) for p in pools if _why(p)]
    orphans = sorted(s for s in secrets if s.startswith(f"{SECRETS}/") and s.rsplit("/", 1)[-1] not in known)
    return (*found, *(Garbage(name, "parameter without a pool") for name in orphans))


def orphaned_claims(series: Mapping[str, Series], pools: Iterable[PoolFound], now: float) -> tuple[Garbage, ...]:
    """Return the freed claims of pools that do not exist any more.

    Parameters
    ----------
    series : mapping of str to Series
        The claims by pool.
    pools : iterable of PoolFound
    now : float
        AWS's time, in seconds since the epoch.
    """
    known = {pool.name for pool in pools}
    gone = {name: one for name, one in series.items() if name not in known and one.newest and one.newest.freed}
    return tuple(
        Garbage(parameter, "claim without a pool")
        for name, one in sorted(gone.items())
        if now - (one.newest.freed if one.newest and one.newest.freed else now) > CLAIM_GRACE
        for parameter in names_of(f"{CLAIMS}/{name}", sorted(one.claims))
    )


def _why(pool: PoolFound) -> str:
    if pool.lease is not None or pool.state == "in use":
        return ""
    if pool.state == "expired":
        assert pool.claim is not None
        return (
            "deletion was interrupted" if pool.claim.cleaning else f"expired: the client of {pool.claim.owner} is gone"
        )
    # Capacity without claim and lease may be kept intentionally; `pool delete` deletes it by name.
    return "" if pool.running or pool.desired else "free and unused"
