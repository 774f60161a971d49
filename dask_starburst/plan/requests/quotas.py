"""Whether a cluster fits in the account's vCPU quotas, and what to say when it does not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dask_starburst.catalog.instance_types import InstanceType
from dask_starburst.catalog.quotas import Market, Quota, quota_of

#: The states of an increase that AWS still has to decide ("RequestedServiceQuotaChange", Service Quotas API).
_OPEN = frozenset({"PENDING", "CASE_OPENED"})
#: What nobody needs to give as an option of ``starburst quota request``.
_STANDARD = frozenset({"L-1216C47A", "L-34B43A08"})


@dataclass(frozen=True, slots=True)
class Running:
    """An instance that counts against a quota.

    `pool`: which of our pools it is in; empty for everything else in the account.
    """

    type: str
    market: Market
    vcpus: int
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A quota, its limit and what of it is in use, in vCPUs."""

    quota: Quota
    limit: float
    used: float

    @property
    def free(self) -> int:
        """Whole vCPUs that may still be launched."""
        return max(0, math.floor(self.limit - self.used))

    def room(self, vcpus: int) -> int:
        """Return how many instances of so many vCPUs still fit."""
        return self.free // vcpus

    def __str__(self) -> str:
        numbers = f"{number(self.limit)} vCPUs, {number(self.used)} in use, {number(self.free)} free"
        return f"{self.quota.name} ({self.quota.code}): {numbers}"


@dataclass(frozen=True, slots=True)
class Increase:
    """A request for a higher quota. `at`: when it was made (seconds)."""

    id: str
    code: str
    vcpus: float
    status: str
    at: float
    case: str = ""

    @property
    def open(self) -> bool:
        """Whether AWS still has to decide."""
        return self.status in _OPEN

    def __str__(self) -> str:
        return f"{number(self.vcpus)} vCPUs, {self.status}" + (f", support case {self.case}" if self.case else "")


@dataclass(frozen=True, slots=True)
class CapacityRequest:
    """What a cluster is to launch.

    Parameters
    ----------
    head : InstanceType
        The scheduler's, always on demand.
    workers : tuple of InstanceType
        Those that workers may run on.
    ladder : tuple of str
        The markets that workers are bought in, the preferred one first.
    count : int
        How many workers.
    """

    head: InstanceType
    workers: tuple[InstanceType, ...]
    fallback_groups: tuple[str, ...]
    count: int

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quotas that it counts against, each once."""
        wanted = (quota_of(self.head.name, "on-demand"), *(quota for quota, _ in self.choices()))
        return tuple(dict.fromkeys(quota for quota in wanted if quota is not None))

    def choices(self) -> Iterator[tuple[Quota | None, InstanceType]]:
        """Yield each quota that workers may count against, with the smallest of their types that does."""
        for group in self.fallback_groups:
            market: Market = "spot" if group == "spot" else "on-demand"
            smallest: dict[Quota | None, InstanceType] = {}
            for kind in sorted(self.workers, key=lambda kind: kind.vcpus):
                smallest.setdefault(quota_of(kind.name, market), kind)
            yield from smallest.items()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a wish fits.

    Parameters
    ----------
    wish : Wish
        What was asked for.
    head : Standing or None
        What the scheduler counts against; None where AWS has not told.
    workers : tuple of (Standing, InstanceType)
        What the workers count against, once the scheduler is there, each with the smallest type that does.
    known : bool
        Whether that is all that they may count against.
    """

    request: CapacityRequest
    head: Standing | None
    workers: tuple[tuple[Standing, InstanceType], ...]
    known: bool

    @property
    def head_fits(self) -> bool:
        """Whether the scheduler fits."""
        return self.head is None or self.head.free >= self.request.head.vcpus

    @property
    def room(self) -> float:
        """How many workers fit at the most; infinite where AWS has not told."""
        return sum(standing.room(kind.vcpus) for standing, kind in self.workers) if self.known else math.inf

    def fits(self, workers: int) -> bool:
        """Whether so many workers fit beside the scheduler."""
        return self.head_fits and workers <= self.room


def usage(running: Iterable[Running], excluding: str = "") -> Counter[str]:
    """Return the vCPUs in use by quota code, without those of the pool `excluding`."""
    used: Counter[str] = Counter()
    for one in running:
        quota = quota_of(one.type, one.market)
        if quota is not None and (not excluding or one.pool != excluding):
            used[quota.code] += one.vcpus
    return used


def evaluate(
    request: CapacityRequest, limits: Mapping[str, float], running: Iterable[Running], pool: str = ""
) -> Verdict:
    """Return whether a wish fits.

    Parameters
    ----------
    wish : Wish
        What is asked for.
    limits : mapping of str to float
        The quotas (vCPUs) by code; one that is not there is unknown.
    running : iterable of Running
        What runs in the account.
    pool : str
        The pool that the cluster has: what runs in it already is part of the wish, and does not count twice.
    """
    used = usage(running, excluding=pool)

    def standing(quota: Quota | None) -> Standing | None:
        return Standing(quota, limits[quota.code], used[quota.code]) if quota and quota.code in limits else None

    head = standing(quota_of(request.head.name, "on-demand"))
    if head is not None:
        used[head.quota.code] += request.head.vcpus
    choices = [(standing(quota), kind) for quota, kind in request.choices()]
    standings = tuple((found, kind) for found, kind in choices if found is not None)
    return Verdict(request, head, standings, known=len(standings) == len(choices))


def scheduler_shortfall(verdict: Verdict, region: str) -> str:
    """Say that not even the scheduler fits."""
    head, kind = verdict.head, verdict.request.head
    assert head is not None
    return (
        f"the scheduler's {kind.name} ({_count(kind.vcpus, 'vCPU')}, on demand) does not fit in the account's quota in"
        f" {region}. {head}. Nothing was launched. {how_to_increase(head, kind, head.used + _all(verdict.request, head))}"
    )


def workers_shortfall(verdict: Verdict, region: str) -> str:
    """Say that fewer workers fit than were asked for: how many, by which numbers, and what to type."""
    request, room = verdict.request, int(verdict.room)
    numbers = "; ".join(
        f"{standing}{_with_head(verdict, standing)}, and a {kind.name} takes {kind.vcpus}"
        for standing, kind in verdict.workers
    )
    first, kind = verdict.workers[0]
    total = first.used + max(1, request.count) * kind.vcpus
    if room:
        text = f"only {room} of {request.count} workers fit in the account's quota in {region}"
    else:
        asked = f"none of {_count(request.count, 'worker')} fits" if request.count else "not a single worker fits"
        text = f"{asked} in the account's quota in {region}"
    return f"{text}. {numbers}. {how_to_increase(first, kind, total)}"


def how_to_increase(standing: Standing, kind: InstanceType, total: float) -> str:
    """Say what to type for a quota of at least `total` vCPUs."""
    quota = standing.quota
    option = f"--{quota.market}" + ("" if quota.code in _STANDARD else f" --instance-type {kind.name}")
    return (
        f"End what else runs, or ask AWS for more: `starburst quota request {increase_to_request(total, standing.limit)}"
        f" {option}`, or in the AWS console: Service Quotas, Amazon EC2, {quota.code}."
    )


def increase_to_request(total: float, limit: float) -> int:
    """Return the next power of two that holds so many vCPUs and is more than the limit."""
    return int(2 ** math.ceil(math.log2(max(total, limit + 1, 8))))


def number(vcpus: float) -> str:
    """Write a number of vCPUs; tasks on Fargate may have a quarter of one."""
    return f"{vcpus:,.12g}"


def _all(request: CapacityRequest, standing: Standing) -> int:
    """Return the vCPUs that a wish takes of one quota at the most."""
    kinds = [kind for quota, kind in request.choices() if quota == standing.quota]
    return request.head.vcpus + (request.count * kinds[0].vcpus if kinds else 0)


def _with_head(verdict: Verdict, standing: Standing) -> str:
    same = verdict.head is not None and verdict.head.quota == standing.quota
    return " (the scheduler's included)" if same else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
