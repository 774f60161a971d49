"""Which instance types a worker fits on, and what one worker may use of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from dask.utils import format_bytes

from dask_starburst.catalog import price_table
from dask_starburst.catalog.instance_types import InstanceType
from dask_starburst.errors import BadArgument

MIB = 2**20
#: ECS sees less than the nominal memory: the kernel keeps a share. 8 GiB types register about
#: 7,600 MiB or more; 5 % and 256 MiB below nominal leaves room for the ECS agent as well.
KERNEL_SHARE = 0.05
AGENT_MIB = 256
#: The nanny and the interpreter beside the worker process live in the same container.
NANNY_MIB = 192
CPU_UNITS = 1024
#: The least memory with which a worker or a scheduler starts at all, in MiB.
SMALLEST_MIB = 256

#: A mixed-instances policy takes so many overrides (aws-facts §4.3, from memory: 40).
MOST_TYPES = 40

_DEFAULT_WORKER = {"arm64": "c7g.xlarge", "x86_64": "c7i.xlarge"}
_DEFAULT_HEAD = {"arm64": "m7g.medium", "x86_64": "m7i.large"}
#: Newest generation with the lowest published interruption first (aws-facts §4.3).
_FAMILIES = {"arm64": ("c7g", "m7g", "r7g"), "x86_64": ("c7i", "m7i", "r7i")}


@dataclass(frozen=True, slots=True)
class WorkerSize:
    """What one worker gets: threads, bytes, and the ECS task's CPU units and MiB."""

    nthreads: int
    memory_limit: int
    task_cpu: int
    task_memory: int


def task_memory(instance_type: InstanceType) -> int:
    """Return the MiB that the only task of an instance may reserve."""
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
) -> tuple[InstanceType, ...]:
    """Return the instance types that workers may run on.

    Parameters
    ----------
    catalogue : mapping of str to InstanceType
        What AWS sells.
    arch : str
        ``"arm64"`` or ``"x86_64"``.
    names : tuple of str, optional
        The user's own list; every one has to fit.
    nthreads, limit : int, optional
        The worker's threads and bytes.

    Returns
    -------
    tuple of InstanceType
        Without a list: the type that fits best, then every other one that has as many vCPUs and holds
        the worker, the cheapest first. Spot wants many to choose from (aws-facts §4.3: ten and more).

    Raises
    ------
    BadArgument
        A type is unknown, of the other architecture or too small; or none is large enough.
    """
    if names:
        chosen = tuple(_known(catalogue, arch, name) for name in names)
        for chosen_type in chosen:
            _check_fits(chosen_type, nthreads, limit)
        return chosen
    if nthreads is None and limit is None:
        best = _known(catalogue, arch, _DEFAULT_WORKER[arch])
        limit = memory_limit(task_memory(best))
    else:
        best = _smallest(catalogue, arch, nthreads, limit)
    alike = [t for t in catalogue.values() if (t.arch, t.vcpus) == (arch, best.vcpus) and _fits(t, nthreads, limit)]
    others = sorted(alike, key=lambda t: (price_table().on_demand(t).usd_per_hour, t.name))
    return (best, *(t for t in others if t is not best))[:MOST_TYPES]


def head_type(catalogue: Mapping[str, InstanceType], arch: str, name: str | None) -> InstanceType:
    """Return the instance type of the scheduler."""
    return _known(catalogue, arch, name or _DEFAULT_HEAD[arch])


def worker_size(types: tuple[InstanceType, ...], nthreads: int | None, limit: int | None) -> WorkerSize:
    """Return the worker that fits on every one of `types`."""
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
    if found.arch != arch:
        raise BadArgument(
            f"instance type {name} is {found.arch}, but arch={arch!r}: give arch={found.arch!r},"
            f" or a type such as {_DEFAULT_WORKER[arch]}."
        )
    return found


def unknown_type(catalogue: Mapping[str, InstanceType], name: str) -> str:
    """Say that a type is not in the catalogue, and which one might be meant."""
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


def _smallest(
    catalogue: Mapping[str, InstanceType], arch: str, nthreads: int | None, limit: int | None
) -> InstanceType:
    families = _FAMILIES[arch]
    mine = [t for t in catalogue.values() if t.arch == arch and t.name.partition(".")[0] in families]
    fitting = [t for t in mine if _fits(t, nthreads, limit)]
    if not fitting:
        largest = max(mine, key=task_memory)
        raise BadArgument(
            f"no {arch} instance type holds a worker of {_shape(nthreads, limit)}; the largest,"
            f" {largest.name}, leaves {largest.vcpus} threads and"
            f" {format_bytes(memory_limit(task_memory(largest)))}."
        )
    return min(fitting, key=lambda t: (t.vcpus, t.memory_mib, t.name))


def _shape(nthreads: int | None, limit: int | None) -> str:
    threads = f"{nthreads} threads" if nthreads else ""
    memory = format_bytes(limit) if limit else ""
    return " and ".join(filter(None, (threads, memory)))
