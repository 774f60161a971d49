"""The parts of a cluster, derived from its settings before anything is launched."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from dask_starburst.catalog.instance_types import catalogue
from dask_starburst.catalog.markets import Market
from dask_starburst.errors import BadArgument
from dask_starburst.fleet.pool.account import Account
from dask_starburst.fleet.pool.pool import pool_spec
from dask_starburst.plan.groups import MARKETS, WorkerGroup, resource_of
from dask_starburst.plan.money.budget import Caps, Rates, check_launch, near_in_price
from dask_starburst.plan.requests.pool import PlacementSpec, PoolSpec, host_idle_limit
from dask_starburst.plan.requests.quotas import CapacityRequest
from dask_starburst.plan.requests.sizing import head_group, head_type, worker_group, worker_types
from dask_starburst.settings import Settings

#: Region of the prices if the settings name none.
_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The parts of a cluster: its settings, the groups of its scheduler and its workers, and the TLS secret.

    ``environment``: variables of all its containers.
    """

    settings: Settings
    head: WorkerGroup
    groups: tuple[WorkerGroup, ...]
    secret: str = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def default(self) -> WorkerGroup:
        """The group that the arguments of the cluster describe."""
        return self.groups[0]

    @property
    def all_groups(self) -> tuple[WorkerGroup, ...]:
        """All groups, the scheduler's first."""
        return (self.head, *self.groups)

    @property
    def types(self) -> tuple[str, ...]:
        """The requested instance types, each once, the scheduler's first."""
        return tuple(dict.fromkeys(name for group in self.all_groups for name in group.type_names))

    @property
    def offers(self) -> dict[str, int]:
        """The Dask resources that its workers offer; empty with one worker group."""
        return {group.resource: group.size.nthreads for group in self.groups if group.resource}

    def requests(self, counts: Mapping[str, int] | None = None) -> tuple[CapacityRequest, ...]:
        """Return the capacity that the cluster requests for these numbers of workers by group; 0 if not given."""
        given = counts or {}
        return tuple(CapacityRequest(self.head.types[0], each, given.get(each.name, 0)) for each in self.groups)

    def first_counts(self) -> dict[str, int]:
        """Return the number of workers of each group at the start."""
        return {name: group.n_workers or 0 for name, group in self.settings.groups.items()}

    def spec(self, account: Account) -> PoolSpec:
        """Return the specification of its pool in this account."""
        settings = self.settings
        parts = tuple(
            PlacementSpec(placement, account.image_ids[group.arch], group.type_names)
            for group in self.all_groups
            for placement in group.placements
        )
        return pool_spec(
            account,
            parts,
            volume_gib=settings.storage.volume_size,
            tags=settings.tags,
            host_idle_limit=host_idle_limit(settings.timeouts.connect),
            container_insights=settings.storage.container_insights,
            public=settings.network.access == "public",
            own_groups=settings.network.security_groups,
        )


def blueprint(settings: Settings, secret: str) -> Blueprint:
    """Return the blueprint of a cluster with these settings.

    Raises
    ------
    BadArgument
        An instance type is unknown, of the wrong architecture or too small for the worker.
    """
    region, known = settings.region or _REGION, catalogue()
    several = len(settings.groups) > 1
    groups = []
    for name, group in settings.groups.items():
        shape, arch = group.worker, group.arch or settings.arch
        types = worker_types(known, arch, group.instance_types, shape.nthreads, shape.memory_limit, region=region)
        markets = MARKETS[group.policy or settings.spot.policy]
        resource = resource_of(name) if several else ""
        groups.append(worker_group(name, types, markets, shape.nthreads, shape.memory_limit, resource))
    most = sum(settings.most_workers(name) for name in settings.groups)
    head = head_type(known, settings.arch, settings.scheduler.instance_type, region=region, workers=most)
    return Blueprint(settings, head_group(head), tuple(groups), secret)


def available_types(blueprint: Blueprint, account: Account) -> Blueprint:
    """Return the blueprint without the worker types that AWS does not offer in the zone.

    Raises
    ------
    BadArgument
        The user named one of them, or it is the scheduler's type.
    """
    zone, chosen = account.subnet, set(blueprint.head.type_names)
    for own in blueprint.settings.groups.values():
        chosen |= set(own.instance_types or ())
    missing = [name for name in blueprint.types if name in chosen and name not in zone.available_types]
    if missing:
        raise _not_offered(missing, zone.name)
    groups = []
    for group in blueprint.groups:
        left = tuple(kind for kind in group.types if kind.name in zone.available_types)
        if not left:
            raise _not_offered(group.type_names, zone.name)
        groups.append(with_types(blueprint, group, {kind.name for kind in left}))
    return replace(blueprint, groups=tuple(groups))


def _not_offered(names: Iterable[str], zone: str) -> BadArgument:
    return BadArgument(
        f"AWS does not offer {', '.join(names)} in {zone}; give other types, or a subnet in another zone with"
        ' network={"subnet": "subnet-…"}.'
    )


def with_types(blueprint: Blueprint, group: WorkerGroup, names: Collection[str]) -> WorkerGroup:
    """Return a group of the blueprint with only these of its types."""
    shape = blueprint.settings.groups[group.name].worker
    left = tuple(kind for kind in group.types if kind.name in names)
    return worker_group(group.name, left, group.markets, shape.nthreads, shape.memory_limit, group.resource)


def caps_of(settings: Settings) -> Caps:
    """Return the cost caps of these settings."""
    return Caps(settings.money.max_hourly_cost, settings.money.max_total_cost, settings.money.cost_alert_threshold)


def within_caps(blueprint: Blueprint, caps: Caps, rates: Rates) -> Blueprint:
    """Return the blueprint with the worker types that fit within these caps.

    Raises
    ------
    BudgetExceeded
        The launch would exceed a cap.
    """
    settings, groups = blueprint.settings, []
    for group in blueprint.groups:
        if caps.binding and settings.groups[group.name].instance_types is None:
            near = near_in_price(group.type_names, rates, group.markets[0])
            group = with_types(blueprint, group, near)
        groups.append(group)
    launched = [
        (rates.ceiling(group.type_names, group.markets[0]), settings.groups[group.name].n_workers) for group in groups
    ]
    check_launch(caps, rates.of(blueprint.head.types[0].name, Market.ON_DEMAND), launched, settings.keep.warm)
    return replace(blueprint, groups=tuple(groups))
