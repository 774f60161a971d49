"""Which instance types a worker fits on, and the CPU and memory that a worker gets on each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches

from dask.utils import format_bytes

from dask_starburst.catalog import PriceTable, price_table
from dask_starburst.catalog.instance_types import InstanceType
from dask_starburst.catalog.markets import Market
from dask_starburst.errors import BadArgument
from dask_starburst.plan.groups import HEAD, WorkerGroup, WorkerSize

MIB = 2**20
#: ECS registers less than the nominal memory, because the kernel reserves a share. 8 GiB types register about
#: 7,600 MiB or more; 5 % and 256 MiB below nominal leave room for the ECS agent as well.
KERNEL_SHARE = 0.05
AGENT_MIB = 256
#: The nanny process and its interpreter run in the same container as the worker process.
NANNY_MIB = 192
CPU_UNITS = 1024
#: Minimum memory with which a worker or a scheduler starts, in MiB.
SMALLEST_MIB = 256

#: Maximum number of overrides of a mixed-instances policy (aws-facts §4.3, from memory: 40).
MOST_TYPES = 40

_DEFAULT_WORKER = {"arm64": "c7g.xlarge", "x86_64": "c7i.xlarge"}
#: Families for the scheduler by generation, the preferred one first: it is one thread, and its memory grows.
_HEAD_FAMILIES = {
    "arm64": (("m7g", "r7g"), ("m8g", "r8g"), ("m6g", "r6g")),
    "x86_64": (("m7i", "r7i"), ("m8i", "r8i"), ("m7a", "r7a"), ("m6i", "r6i")),
}
#: MiB of the scheduler without workers, and for each worker: room for ten thousand tasks of 2 KiB. Assumed.
_HEAD_MIB = 2048
_HEAD_WORKER_MIB = 20
#: Families that are chosen by default: compute, general and memory optimized families that are not burstable, without
#: GPUs and without special features. Any other type is used only if it is named.
_CHOSEN = frozenset((
    "c6g", "c7g", "c8g", "m6g", "m7g", "m8g", "r7g", "r8g", "c7gd", "c8gd",
    "c6i", "c7i", "c7i-flex", "c6a", "c7a", "m7i", "m7i-flex", "m7a", "r7i", "r7a", "c8i", "m8i", "r8i",
))  # fmt: skip
#: Families with accelerators that are not GPUs: Inferentia, Trainium, Gaudi, Alveo and other FPGAs
#: (docs.aws.amazon.com/ec2/latest/instancetypes/ac.html).
_ACCELERATED = re.compile(r"(?:inf|trn|dl|vt|f)\d.*")
#: Newest generation with the lowest published interruption rate first (aws-facts §4.3).
_FAMILIES = {"arm64": ("c7g", "m7g", "r7g"), "x86_64": ("c7i", "m7i", "r7i")}


def task_memory(instance_type: InstanceType) -> int:
    """Return the MiB that the single task of an instance may reserve."""
    return int(instance_type.memory_mib * (1 - KERNEL_SHARE)) - AGENT_MIB


def memory_limit(task_mib: int) -> int:
    """Return the bytes that the Dask worker inside a task of `task_mib` may use."""
    return (task_mib - NANNY_MIB) * MIB


def worker_types(
    catalogue: Mapping[str, InstanceType],
    arch: str,
    names: tuple[str, ...] | None,
    nthreads: int | None,
    limit: int | None,
    *,
    region: str = "us-east-1",
) -> tuple[InstanceType, ...]:
    """Return the instance types that workers may run on.

    Parameters
    ----------
    catalogue : mapping of str to InstanceType
        All known instance types.
    arch : str
        ``"arm64"`` or ``"x86_64"``.
    names : tuple of str, optional
        The user's list; each type has to fit.
    nthreads, limit : int, optional
        The worker's threads and bytes.
    region : str, optional
        Region, for prices. A type without a price in the region is used only if it is named.

    Returns
    -------
    tuple of InstanceType
        Without a list: the best type, then all others with as many vCPUs that fit the worker, the cheapest
        first. Spot works best with many types (aws-facts §4.3: ten and more).

    Raises
    ------
    BadArgument
        A type is unknown, of the other architecture or too small; or no type is large enough.
    """
    if names:
        chosen = tuple(_known(catalogue, arch, name) for name in names)
        for chosen_type in chosen:
            _check_fits(chosen_type, nthreads, limit)
        return chosen
    prices = price_table(region)
    choice = _choice(catalogue, arch, prices)
    if nthreads is None and limit is None:
        best = _known(catalogue, arch, _DEFAULT_WORKER[arch])
        limit = memory_limit(task_memory(best))
    else:
        best = _smallest(choice, arch, nthreads, limit)
    alike = [t for t in choice if t.vcpus == best.vcpus and _fits(t, nthreads, limit)]
    others = sorted(alike, key=lambda t: (prices.on_demand(t).usd_per_hour if prices.rates else 0.0, t.name))
    found = (best, *(t for t in others if t is not best)) if best in choice else others or [best]
    return tuple(found[:MOST_TYPES])


def head_type(
    catalogue: Mapping[str, InstanceType], arch: str, name: str | None, *, region: str = "us-east-1", workers: int = 1
) -> InstanceType:
    """Return the instance type of the scheduler: the named one, or the cheapest with enough memory for the workers.

    Parameters
    ----------
    catalogue : mapping of str to InstanceType
        All known instance types.
    arch : str
        ``"arm64"`` or ``"x86_64"``.
    name : str, optional
        The user's choice.
    region : str, optional
        Region, for prices: a type without a price in the region is not sold there.
    workers : int, optional
        The most workers that the cluster may have.

    Raises
    ------
    BadArgument
        The named type is unknown or of the other architecture.
    """
    if name is not None:
        return _known(catalogue, arch, name)
    prices, needed = price_table(region), _HEAD_MIB + _HEAD_WORKER_MIB * workers
    for families in _HEAD_FAMILIES[arch]:
        there = [t for t in catalogue.values() if t.family in families and (prices.has(t) or not prices.rates)]
        large = [t for t in there if task_memory(t) >= needed]
        if large:
            return min(large, key=lambda t: (prices.on_demand(t).usd_per_hour if prices.rates else 0.0, t.memory_mib))
    raise BadArgument(
        f"no {arch} instance type for the scheduler of {workers} workers is known in {region}; give one with"
        ' scheduler={"instance_type": "…"}.'
    )


def head_group(kind: InstanceType) -> WorkerGroup:
    """Return the group of the scheduler on this instance type."""
    size = worker_size((kind,), None, None)
    return WorkerGroup(HEAD, kind.arch, (kind,), (Market.ON_DEMAND,), {kind.name: size}, size)


def worker_group(
    name: str,
    types: tuple[InstanceType, ...],
    markets: tuple[Market, ...],
    nthreads: int | None,
    limit: int | None,
    resource: str = "",
) -> WorkerGroup:
    """Return a group of workers on these instance types.

    Parameters
    ----------
    name : str
        Its name.
    types : tuple of InstanceType
        The instance types, of one architecture.
    markets : tuple of Market
        The markets, the preferred one first.
    nthreads, limit : int, optional
        The threads and bytes of a worker; by default what its instance has.
    resource : str, optional
        The Dask resource that its workers offer.
    """
    sizes = {kind.name: worker_size((kind,), nthreads, limit) for kind in types}
    return WorkerGroup(name, types[0].arch, types, markets, sizes, worker_size(types, nthreads, limit), resource)


def worker_size(types: tuple[InstanceType, ...], nthreads: int | None, limit: int | None) -> WorkerSize:
    """Return the size of a worker that fits on each of `types`."""
    vcpus = min(t.vcpus for t in types)
    memory = min(task_memory(t) for t in types)
    return WorkerSize(
        nthreads=nthreads or vcpus,
        memory_limit=limit or memory_limit(memory),
        task_cpu=vcpus * CPU_UNITS,
        task_memory=memory,
    )


def _known(catalogue: Mapping[str, InstanceType], arch: str, name: str) -> InstanceType:
    if name not in catalogue:
        raise BadArgument(unknown_type(catalogue, name))
    found = catalogue[name]
    if accelerated(found):
        raise BadArgument(
            f"instance type {name} has {found.gpu_name or 'an accelerator'}; GPUs and other accelerators are not"
            " supported yet: tasks would not see it, but it would be billed. Choose a type without one, such"
            f" as {_DEFAULT_WORKER.get(arch, 'c7g.xlarge')}."
        )
    if found.arch != arch:
        raise BadArgument(
            f"instance type {name} is {found.arch}, but arch={arch!r}: give arch={found.arch!r},"
            f" or a type such as {_DEFAULT_WORKER[arch]}."
        )
    return found


def accelerated(kind: InstanceType) -> bool:
    """Whether a type has GPUs or other accelerators, which are billed but not supported yet."""
    return bool(kind.gpus) or _ACCELERATED.fullmatch(kind.family) is not None


def unknown_type(catalogue: Mapping[str, InstanceType], name: str) -> str:
    """Return the message for a type that is not in the catalogue, with similar names."""
    near = get_close_matches(name, catalogue, 3, cutoff=0.5)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return f"instance type {name!r} is not in the catalogue of {len(catalogue)} types.{hint}"


def _fits(candidate: InstanceType, nthreads: int | None, limit: int | None) -> bool:
    enough = memory_limit(task_memory(candidate))
    return candidate.vcpus >= (nthreads or 1) and enough >= (limit or SMALLEST_MIB * MIB)


def _check_fits(candidate: InstanceType, nthreads: int | None, limit: int | None) -> None:
    if not _fits(candidate, nthreads, limit):
        raise BadArgument(
            f"a worker of {_shape(nthreads, limit)} does not fit on {candidate.name}, which leaves"
            f" {candidate.vcpus} threads and"
            f" {format_bytes(memory_limit(task_memory(candidate)))}; give a larger instance type"
            f" or a smaller worker=."
        )


def _choice(catalogue: Mapping[str, InstanceType], arch: str, prices: PriceTable) -> list[InstanceType]:
    """Return the types to choose from: the default families with a price, else older ones with a price."""
    candidates = [
        t for t in catalogue.values() if t.arch == arch and t.family[0] in "cmr" and not (t.gpus or t.burstable)
    ]
    default = [t for t in candidates if t.family in _CHOSEN]
    # For a region without a price list, AWS itself reports the types that are not available there.
    return [t for t in default if prices.has(t)] or [t for t in candidates if prices.has(t)] or default


def _smallest(choice: list[InstanceType], arch: str, nthreads: int | None, limit: int | None) -> InstanceType:
    # A region without these families has other types to choose from.
    preferred = [t for t in choice if t.family in _FAMILIES[arch]] or choice
    fitting = [t for t in preferred if _fits(t, nthreads, limit)]
    if not fitting:
        largest = max(preferred, key=task_memory)
        raise BadArgument(
            f"no {arch} instance type holds a worker of {_shape(nthreads, limit)}; the largest,"
            f" {largest.name}, leaves {largest.vcpus} threads and"
            f" {format_bytes(memory_limit(task_memory(largest)))}."
        )
    return min(fitting, key=lambda t: (t.vcpus, t.memory_mib, t.name))


def _shape(nthreads: int | None, limit: int | None) -> str:
    threads = f"{nthreads} threads" if nthreads else ""
    memory = format_bytes(limit) if limit else ""
    return " and ".join(filter(None, (threads, memory))) or "the smallest size"
