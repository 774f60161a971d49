"""What a teardown removes, what it keeps and why, and in which order: pure decisions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from dask_starburst.plan.requests.garbage import PoolFound
from dask_starburst.plan.requests.policies import NAMESPACE
from dask_starburst.plan.requests.pool import PoolNames

Kind = Literal[
    "Auto Scaling group",
    "task",
    "instance",
    "capacity provider",
    "launch template",
    "ECS cluster",
    "task definition",
    "security group",
    "certificate",
    "claim",
    "image repository",
    "log group",
    "instance profile",
    "role",
]
Verb = Literal["empty", "detach", "stop", "remove"]

#: Each step needs the ones before it. Instances are terminated first, because they cost money; the claim of a pool is
#: removed last, so that an interrupted teardown is found and resumed, and so that no cluster starts in between.
STEPS: tuple[tuple[Verb, Kind], ...] = (
    ("empty", "Auto Scaling group"),
    ("stop", "task"),
    ("detach", "ECS cluster"),
    ("remove", "capacity provider"),
    ("remove", "Auto Scaling group"),
    ("remove", "instance"),
    ("remove", "launch template"),
    ("remove", "ECS cluster"),
    ("remove", "task definition"),
    ("remove", "security group"),
    ("remove", "certificate"),
    ("remove", "claim"),
    ("remove", "image repository"),
    ("remove", "log group"),
    ("remove", "instance profile"),
    ("remove", "role"),
)
#: Resources of IAM: one for all regions of the account.
OF_ALL_REGIONS: frozenset[Kind] = frozenset({"instance profile", "role"})
_POOL = re.compile(rf"({NAMESPACE}-[0-9a-f]{{8}}-\d+)(?:-.*)?")


def pool_of(name: str) -> str | None:
    """Return the pool whose resource has this name; None if it is not a name of ours.

    Stricter than a prefix: another program may be called ``starburst`` too.
    """
    found = _POOL.fullmatch(name)
    return found[1] if found else None


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of ours in an account and region.

    Attributes
    ----------
    kind : str
    name : str
        As the user sees it in the AWS console.
    id : str
        As AWS's calls want it.
    pool : str
        Its pool; `NAMESPACE` if all pools share it.
    usd_per_hour, usd_per_month : float or None
        What it costs now, and what its storage costs; None if unknown.
    detail : str
        What costs money: ``2 instances``, ``1.2 GB``.
    is_empty : bool
        Whether an Auto Scaling group has no capacity.
    """

    kind: Kind
    name: str
    id: str
    pool: str
    usd_per_hour: float | None = 0.0
    usd_per_month: float | None = 0.0
    detail: str = ""
    is_empty: bool = True

    @property
    def is_shared(self) -> bool:
        """Whether all pools use it."""
        return self.pool == NAMESPACE

    @property
    def cost(self) -> str:
        """Its cost in words."""
        parts = [_usd(self.usd_per_hour, "an hour"), _usd(self.usd_per_month, "a month")]
        return ", ".join(filter(None, parts)) or "free"


def _usd(usd: float | None, period: str) -> str:
    if usd is None:
        return f"unknown {period}"
    least = 0.0001 if period == "an hour" else 0.01
    return "" if usd == 0 else f"under ${least} {period}" if usd < least else f"${usd:.4f} {period}"


def total_cost(resources: Iterable[Resource]) -> str:
    """Return the cost of resources together in words; unknown ones are left out and named."""
    found = tuple(resources)
    hour = sum(each.usd_per_hour or 0.0 for each in found)
    month = sum(each.usd_per_month or 0.0 for each in found)
    unknown = sum(each.usd_per_hour is None or each.usd_per_month is None for each in found)
    more = f", and {unknown} of unknown cost" if unknown else ""
    return f"${hour:.4f} an hour and ${month:.2f} a month{more}"


def claim_of(pool: str) -> Resource:
    """Return the claim of a pool."""
    name = PoolNames(pool).claim
    return Resource("claim", name, name, pool)


@dataclass(frozen=True, slots=True)
class Kept:
    """A resource that stays, and why."""

    resource: Resource
    why: str


def choose(
    resources: Iterable[Resource], pools: Iterable[PoolFound], *, force: bool = False, roles: bool = False
) -> tuple[tuple[Resource, ...], tuple[Kept, ...]]:
    """Return what is removed, and what is kept.

    Parameters
    ----------
    resources : iterable of Resource
    pools : iterable of PoolFound
    force : bool
        Whether pools in use are removed too.
    roles : bool
        Whether the roles and the instance profile are removed: clusters in other regions use them too.
    """
    used = {} if force else {pool.name: pool for pool in pools if pool.state == "in use"}
    gone: list[Resource] = []
    kept: list[Kept] = []
    for each in resources:
        why = _why_kept(each, used, roles)
        if why:
            kept.append(Kept(each, why))
        else:
            gone.append(each)
    return tuple(gone), tuple(kept)


def _why_kept(resource: Resource, used: dict[str, PoolFound], roles: bool) -> str:
    if resource.pool in used:
        claim = used[resource.pool].claim
        return f"in use by {claim.owner if claim else 'a cluster'}; --force removes it"
    if resource.is_shared and used:
        return f"{', '.join(sorted(used))} needs it"
    if resource.kind in OF_ALL_REGIONS and not roles:
        return "clusters in all regions share it; --roles removes it"
    return ""


def stages(resources: Iterable[Resource]) -> tuple[tuple[Verb, tuple[Resource, ...]], ...]:
    """Return the steps that these resources need, in order; resources of one step do not depend on each other."""
    found = sorted(resources, key=lambda each: (each.pool, each.name))
    steps = ((verb, tuple(each for each in found if _needs(each, verb, kind))) for verb, kind in STEPS)
    return tuple((verb, part) for verb, part in steps if part)


def _needs(resource: Resource, verb: Verb, kind: Kind) -> bool:
    return resource.kind == kind and not (verb == "empty" and resource.is_empty)
