"""Whether a cluster fits in the account's vCPU quotas, and the messages if it does not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from dask_starburst.catalog.instance_types import InstanceType
from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.quotas import Quota, quota_of
from dask_starburst.plan.groups import DEFAULT, WorkerGroup

#: States of an increase request that AWS has not decided yet ("RequestedServiceQuotaChange", Service Quotas API).
_OPEN = frozenset({"PENDING", "CASE_OPENED"})
#: Quotas of the standard instance families, for which ``starburst quota request`` needs no ``--instance-type``.
_STANDARD = frozenset({"L-1216C47A", "L-34B43A08"})


@dataclass(frozen=True, slots=True)
class Running:
    """An instance that counts against a quota.

    `pool`: its pool; empty for any other instance in the account.
    """

    type: str
    market: Market
    vcpus: int
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """A quota, its limit and its usage, in vCPUs."""

    quota: Quota
    limit: float
    used: float

    @property
    def free(self) -> int:
        """Whole vCPUs that can still be launched."""
        return max(0, math.floor(self.limit - self.used))

    def room(self, vcpus: int) -> int:
        """Return how many instances with `vcpus` vCPUs each still fit."""
        return self.free // vcpus

    def __str__(self) -> str:
        numbers = f"{number(self.limit)} vCPUs, {number(self.used)} in use, {number(self.free)} free"
        return f"{self.quota.name} ({self.quota.code}): {numbers}"


@dataclass(frozen=True, slots=True)
class Increase:
    """A request for a higher quota. `at`: time of the request (seconds)."""

    id: str
    code: str
    vcpus: float
    status: str
    at: float
    case: str = ""

    @property
    def open(self) -> bool:
        """Whether AWS has not decided yet."""
        return self.status in _OPEN

    def __str__(self) -> str:
        return f"{number(self.vcpus)} vCPUs, {self.status}" + (f", support case {self.case}" if self.case else "")


@dataclass(frozen=True, slots=True)
class CapacityRequest:
    """The capacity that one group of a cluster requests, and the scheduler.

    Parameters
    ----------
    head : InstanceType
        Instance type of the scheduler, always on demand.
    group : WorkerGroup
        The group of the workers.
    count : int
        Number of workers.
    """

    head: InstanceType
    group: WorkerGroup
    count: int

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The quotas that apply, each once."""
        applicable = (quota_of(self.head.name, Market.ON_DEMAND), *(quota for quota, _ in self.choices()))
        return tuple(dict.fromkeys(quota for quota in applicable if quota is not None))

    def choices(self) -> Iterator[tuple[Quota | None, InstanceType]]:
        """Yield each quota that may apply to workers, with the smallest instance type it applies to."""
        for market in self.group.markets:
            smallest: dict[Quota | None, InstanceType] = {}
            for kind in sorted(self.group.types, key=lambda kind: kind.vcpus):
                smallest.setdefault(quota_of(kind.name, market), kind)
            yield from smallest.items()

    @property
    def workers(self) -> str:
        """The number of workers in words."""
        return _count(self.count, "worker") + self.suffix

    @property
    def suffix(self) -> str:
        """The group after a number of workers; empty for the default group."""
        return "" if self.group.name == DEFAULT else f" of group {self.group.name}"

    def vcpus(self) -> Counter[str]:
        """Return the vCPUs that its workers take of the first quota that applies, by quota code."""
        quota, kind = next(self.choices())
        return Counter({quota.code: self.count * kind.vcpus} if quota is not None else {})


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a capacity request fits.

    Parameters
    ----------
    request : CapacityRequest
        The requested capacity.
    head : Standing or None
        Quota of the scheduler; None if AWS did not return it.
    workers : tuple of (Standing, InstanceType)
        Quotas of the workers, with the scheduler counted as running, each with the smallest type it applies to.
    known : bool
        Whether these are all quotas that may apply to workers.
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
        """Maximum number of workers that fit; infinite if AWS did not return a quota."""
        return sum(standing.room(kind.vcpus) for standing, kind in self.workers) if self.known else math.inf

    def fits(self, workers: int) -> bool:
        """Whether this number of workers fits together with the scheduler."""
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
    request: CapacityRequest,
    limits: Mapping[str, float],
    running: Iterable[Running],
    pool: str = "",
    others: Mapping[str, int] | None = None,
) -> Verdict:
    """Return whether a capacity request fits.

    Parameters
    ----------
    request : CapacityRequest
        The requested capacity.
    limits : mapping of str to float
        Quotas (vCPUs) by code; a missing one is unknown.
    running : iterable of Running
        Instances that run in the account.
    pool : str
        Pool of the cluster. Its running instances are part of the request and do not count twice.
    others : mapping of str to int, optional
        vCPUs by quota code that other groups of the cluster request.
    """
    used = usage(running, excluding=pool) + Counter(others or {})

    def standing(quota: Quota | None) -> Standing | None:
        return Standing(quota, limits[quota.code], used[quota.code]) if quota and quota.code in limits else None

    head = standing(quota_of(request.head.name, Market.ON_DEMAND))
    if head is not None:
        used[head.quota.code] += request.head.vcpus
    choices = [(standing(quota), kind) for quota, kind in request.choices()]
    standings = tuple((found, kind) for found, kind in choices if found is not None)
    return Verdict(request, head, standings, known=len(standings) == len(choices))


def scheduler_shortfall(verdict: Verdict, region: str) -> str:
    """Return the message for a scheduler that does not fit."""
    head, kind = verdict.head, verdict.request.head
    assert head is not None
    advice = how_to_increase(head, kind, head.used + _all(verdict.request, head))
    return (
        f"the scheduler's {kind.name} ({_count(kind.vcpus, 'vCPU')}, on demand) does not fit in the account's quota in"
        f" {region}. {head}. Nothing was launched. {advice}"
    )


def workers_shortfall(verdict: Verdict, region: str) -> str:
    """Return the message for workers that do not fit: how many fit, the quotas, and the command to run."""
    request, room = verdict.request, int(verdict.room)
    numbers = "; ".join(
        f"{standing}{_with_head(verdict, standing)}, and a {kind.name} takes {kind.vcpus}"
        for standing, kind in verdict.workers
    )
    first, kind = verdict.workers[0]
    total = first.used + max(1, request.count) * kind.vcpus
    if room:
        text = f"only {room} of {request.count} workers{request.suffix} fit in the account's quota in {region}"
    else:
        none = f"not a single worker{request.suffix} fits"
        count = f"none of {request.workers} fits" if request.count else none
        text = f"{count} in the account's quota in {region}"
    return f"{text}. {numbers}. {how_to_increase(first, kind, total)}"


def how_to_increase(standing: Standing, kind: InstanceType, total: float) -> str:
    """Return how to get a quota of at least `total` vCPUs."""
    quota = standing.quota
    option = f"--{quota.market}" + ("" if quota.code in _STANDARD else f" --instance-type {kind.name}")
    return (
        "Terminate other instances, or request an increase:"
        f" `starburst quota request {next_increase(total, standing.limit)}"
        f" {option}`, or in the AWS console: Service Quotas, Amazon EC2, {quota.code}."
    )


def next_increase(total: float, limit: float) -> int:
    """Return the next power of two that is at least `total` vCPUs and more than the limit."""
    return int(2 ** math.ceil(math.log2(max(total, limit + 1, 8))))


def number(vcpus: float) -> str:
    """Format a number of vCPUs; Fargate tasks may have a quarter of one."""
    return f"{vcpus:,.12g}"


def _all(request: CapacityRequest, standing: Standing) -> int:
    """Return the maximum vCPUs of one quota that a capacity request needs."""
    kinds = [kind for quota, kind in request.choices() if quota == standing.quota]
    return request.head.vcpus + (request.count * kinds[0].vcpus if kinds else 0)


def _with_head(verdict: Verdict, standing: Standing) -> str:
    same = verdict.head is not None and verdict.head.quota == standing.quota
    return " (the scheduler's included)" if same else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
