"""Worker groups, and the placements in which their instances are bought."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from dask_starburst.catalog.instance_types import Arch, InstanceType
from dask_starburst.catalog.markets import Market

#: The group of the scheduler, and the group that the arguments of ``StarburstCluster`` describe.
HEAD = "head"
DEFAULT = "default"
#: The markets of each ``spot_policy``, the preferred one first.
MARKETS: Mapping[str, tuple[Market, ...]] = {
    "spot": (Market.SPOT,),
    "on-demand": (Market.ON_DEMAND,),
    "spot_with_fallback": (Market.SPOT, Market.ON_DEMAND),
}


class Placement(NamedTuple):
    """A group in a market: what an Auto Scaling group, a price and a refusal belong to.

    Its text is the last part of the names of its AWS resources: ``head``, ``spot`` or ``on-demand`` for the default
    group, else such as ``big-spot``.
    """

    group: str
    market: Market

    @property
    def is_head(self) -> bool:
        """Whether it is the scheduler's."""
        return self.group == HEAD

    def __str__(self) -> str:
        if self.group == HEAD:
            return HEAD
        return self.market.value if self.group == DEFAULT else f"{self.group}-{self.market}"


#: The scheduler always runs on demand.
HEAD_PLACEMENT = Placement(HEAD, Market.ON_DEMAND)


@dataclass(frozen=True, slots=True)
class WorkerSize:
    """The size of one worker: threads, bytes, and the CPU units and MiB of its ECS task."""

    nthreads: int
    memory_limit: int
    task_cpu: int
    task_memory: int


@dataclass(frozen=True, slots=True)
class WorkerGroup:
    """Workers of one shape; the scheduler is a group of one.

    Parameters
    ----------
    name : str
        ``default``, ``head``, or the user's name for it.
    arch : {"arm64", "x86_64"}
        Architecture of its instances.
    types : tuple of InstanceType
        The instance types that it may run on, the preferred one first.
    markets : tuple of Market
        Where its instances are bought, the preferred market first.
    sizes : mapping of str to WorkerSize
        The size of the one task that an instance runs, by instance type.
    size : WorkerSize
        The size that fits on each type.
    resource : str
        The Dask resource that its workers offer, once for each thread; empty for none.
    """

    name: str
    arch: Arch
    types: tuple[InstanceType, ...]
    markets: tuple[Market, ...]
    sizes: Mapping[str, WorkerSize]
    size: WorkerSize
    resource: str = ""

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Its placements, the preferred one first."""
        return tuple(Placement(self.name, market) for market in self.markets)

    @property
    def type_names(self) -> tuple[str, ...]:
        """The names of its instance types."""
        return tuple(kind.name for kind in self.types)

    def size_on(self, instance_type: str) -> WorkerSize:
        """Return the size of a worker on an instance of this type; an unknown type gets the size that fits on all."""
        return self.sizes.get(instance_type, self.size)


def resource_of(group: str) -> str:
    """Return the Dask resource that the workers of a group offer in a cluster with several groups."""
    return f"group-{group}"


def placements_of(groups: Iterable[WorkerGroup]) -> tuple[Placement, ...]:
    """Return the placements of these groups."""
    return tuple(placement for group in groups for placement in group.placements)
