"""What is found of pools in an account, and what of it may be removed: decided from values alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dask_starburst.catalog import PUBLIC_IPV4_HOUR, price_table
from dask_starburst.errors import PriceUnknown
from dask_starburst.plan.loop.state import HEAD
from dask_starburst.plan.requests.policies import NAMESPACE, PARAMETER_ROOT

State = Literal["free", "in use", "expired"]

CLAIMS = f"{PARAMETER_ROOT}claims"
SECRETS = f"{PARAMETER_ROOT}tls"

#: Between claim and lease a pool is made, which may take a minute with a new instance profile; a claim
#: without a lease is believed for so long (seconds).
CLAIM_GRACE = 600.0


@dataclass(frozen=True, slots=True)
class Claim:
    """Who has checked a pool out; ``cleaning`` when it is removed rather than used."""

    session: str
    owner: str
    arn: str
    since: float
    cleaning: bool = False

    @classmethod
    def from_json(cls, text: str) -> Claim:
        """Read the value of the claim's parameter."""
        value = json.loads(text)
        return cls(
            session=value["session"],
            owner=value["owner"],
            arn=value.get("arn", ""),
            since=value["since"],
            cleaning=value.get("cleaning", False),
        )

    def to_json(self) -> str:
        """Write it as the parameter's value."""
        value = {"session": self.session, "owner": self.owner, "arn": self.arn, "since": self.since}
        return json.dumps(value | ({"cleaning": True} if self.cleaning else {}))

    def is_of(self, owner: str, arn: str) -> bool:
        """Whether this caller made it. Both must fit: several people may share a role, or a user name."""
        return bool(arn) and (self.owner, self.arn) == (owner, arn)


@dataclass(frozen=True, slots=True)
class GroupFound:
    """One Auto Scaling group of a pool.

    ``types`` are those of the instances that are not on their way out; ``warm``: how many of these are
    connected to ECS and empty; ``region``: where, for its prices.
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
    """A pool as AWS alone shows it.

    Attributes
    ----------
    name : str
    groups : tuple of GroupFound
        Empty when only a claim is left.
    claim : Claim or None
    now : float
        AWS's time of the look, in seconds since the epoch.
    """

    name: str
    groups: tuple[GroupFound, ...]
    claim: Claim | None
    now: float

    @property
    def lease(self) -> float | None:
        """When the last of its leases ends, in seconds since the epoch; None when all have run out."""
        ends = [g.lease for g in self.groups if g.lease is not None and g.lease > self.now]
        return max(ends, default=None)

    @property
    def state(self) -> State:
        """``free``: nobody has it; ``expired``: whoever had it is gone; else ``in use``."""
        if self.claim is None:
            return "free"
        if self.claim.cleaning:
            return "expired"  # a removal that was interrupted; nobody works in there
        if self.lease is not None or self.now - self.claim.since < CLAIM_GRACE:
            return "in use"
        return "expired"

    @property
    def running(self) -> int:
        """Instances that are not on their way out."""
        return sum(len(g.types) for g in self.groups)

    @property
    def desired(self) -> int:
        """Instances that are asked for."""
        return sum(g.desired for g in self.groups)

    @property
    def usd_per_hour(self) -> float | None:
        """What runs now, with its public addresses; None when the catalogue has no price for a type."""
        return usd_per_hour(self.groups)

    @property
    def warm(self) -> int:
        """Connected instances for workers on which nothing runs: a new worker starts on them at once."""
        return sum(g.warm for g in self.groups if not g.name.endswith(f"-{HEAD}"))


def usd_per_hour(groups: Iterable[GroupFound]) -> float | None:
    """Return what the instances of these groups cost an hour, with their public addresses and without volumes."""
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
    """Something to remove, and why: a pool, or a parameter that no pool has any more."""

    name: str
    why: str
    pool: PoolFound | None = None


def assemble(groups: Mapping[str, list[GroupFound]], claims: Mapping[str, Claim], now: float) -> tuple[PoolFound, ...]:
    """Put groups and claims together by the pool's name.

    Parameters
    ----------
    groups : mapping of str to list of GroupFound
        By the value of the tag.
    claims : mapping of str to Claim
        By the last part of the parameter's name.
    now : float
        AWS's time, in seconds since the epoch.
    """
    names = sorted(n for n in {*groups, *claims} if n.startswith(f"{NAMESPACE}-"))
    return tuple(PoolFound(n, tuple(groups.get(n, ())), claims.get(n), now) for n in names)


def find_garbage(pools: Iterable[PoolFound], secrets: Iterable[str]) -> tuple[Garbage, ...]:
    """Say what nobody needs any more; never a pool in use, and none whose lease still runs.

    Parameters
    ----------
    pools : iterable of PoolFound
    secrets : iterable of str
        Names of the parameters with certificates.
    """
    pools = tuple(pools)
    known = {p.name for p in pools}
    found = [Garbage(p.name, _why(p), p) for p in pools if _why(p)]
    orphans = sorted(s for s in secrets if s.startswith(f"{SECRETS}/") and s.rsplit("/", 1)[-1] not in known)
    return (*found, *(Garbage(name, "parameter without a pool") for name in orphans))


def _why(pool: PoolFound) -> str:
    if pool.lease is not None or pool.state == "in use":
        return ""
    if pool.state == "expired":
        assert pool.claim is not None
        return "removal was interrupted" if pool.claim.cleaning else f"expired: the client of {pool.claim.owner} died"
    # Capacity without claim and lease may be kept on purpose; `pool delete` removes it by name.
    return "" if pool.running or pool.desired else "free and unused"
