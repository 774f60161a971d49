"""The parts of a cluster, derived from its settings before anything is launched."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from dask_starburst.catalog.instance_types import InstanceType, catalogue
from dask_starburst.errors import BadArgument
from dask_starburst.fleet.pool.account import Account
from dask_starburst.fleet.pool.pool import pool_spec
from dask_starburst.plan.loop.state import HEAD
from dask_starburst.plan.money.budget import Caps, Rates, check_launch, near_in_price
from dask_starburst.plan.requests.pool import FALLBACK_GROUPS, PoolSpec, host_idle_limit
from dask_starburst.plan.requests.quotas import CapacityRequest
from dask_starburst.plan.requests.sizing import WorkerSize, head_type, worker_size, worker_types
from dask_starburst.settings import Settings


@dataclass(frozen=True, slots=True)
class Blueprint:
    """The parts of a cluster: its settings, instance types, worker size and TLS secret."""

    settings: Settings
    worker_types: tuple[InstanceType, ...]
    head_type: InstanceType
    size: WorkerSize
    secret: str = field(repr=False)

    @property
    def types(self) -> tuple[str, ...]:
        """The requested instance types, the scheduler's first."""
        return (self.head_type.name, *(t.name for t in self.worker_types))

    def request(self, workers: int) -> CapacityRequest:
        """Return the capacity that the cluster requests for this number of workers."""
        return CapacityRequest(self.head_type, self.worker_types, FALLBACK_GROUPS[self.settings.spot.policy], workers)

    def spec(self, account: Account) -> PoolSpec:
        """Return the specification of its pool in this account."""
        settings = self.settings
        return pool_spec(
            account,
            tuple(t.name for t in self.worker_types),
            self.head_type.name,
            arch=settings.arch,
            worker_groups=FALLBACK_GROUPS[settings.spot.policy],
            volume_gib=settings.storage.volume_size,
            tags=settings.tags,
            host_idle_limit=host_idle_limit(settings.timeouts.connect),
        )


def blueprint(settings: Settings, secret: str) -> Blueprint:
    """Return the blueprint of a cluster with these settings.

    Raises
    ------
    BadArgument
        An instance type is unknown, of the wrong architecture or too small for the worker.
    """
    shape, known = settings.worker, catalogue()
    region = settings.region or "us-east-1"  # only used for prices
    types = worker_types(
        known, settings.arch, settings.instance_types, shape.nthreads, shape.memory_limit, region=region
    )
    head = head_type(known, settings.arch, settings.scheduler.instance_type)
    return Blueprint(settings, types, head, worker_size(types, shape.nthreads, shape.memory_limit), secret)


def available_types(blueprint: Blueprint, account: Account) -> Blueprint:
    """Return the blueprint without the worker types that AWS does not offer in the zone.

    Raises
    ------
    BadArgument
        The user named one of them, or it is the scheduler's type.
    """
    settings, zone = blueprint.settings, account.subnet
    chosen = [blueprint.head_type.name, *(settings.instance_types or ())]
    missing = [name for name in chosen if name not in zone.available_types]
    left = tuple(t for t in blueprint.worker_types if t.name in zone.available_types)
    if missing or not left:
        raise BadArgument(
            f"AWS does not offer {', '.join(missing or (t.name for t in blueprint.worker_types))} in {zone.name}; give"
            ' other types, or a subnet in another zone with network={"subnet": "subnet-…"}.'
        )
    shape = settings.worker
    return replace(blueprint, worker_types=left, size=worker_size(left, shape.nthreads, shape.memory_limit))


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
    settings, group = blueprint.settings, FALLBACK_GROUPS[blueprint.settings.spot.policy][0]
    types = blueprint.worker_types
    if caps.binding and settings.instance_types is None:
        near = near_in_price([t.name for t in types], rates, group)
        types = tuple(t for t in types if t.name in near)
    dearest = rates.ceiling([t.name for t in types], group)
    check_launch(caps, rates.of(blueprint.head_type.name, HEAD), dearest, settings.n_workers, settings.keep.warm)
    return replace(blueprint, worker_types=types)
