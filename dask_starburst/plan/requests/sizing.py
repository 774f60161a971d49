"""Which instance types a worker fits on, and what one worker may use of one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from dask.utils import format_bytes

from dask_starburst.catalog import PriceTable, price_table
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
#: What a cluster chooses among by itself: compute, general and memory families whose whole processor one has, without
#: GPUs and without what only some work needs. Any other type is used when it is named.
_CHOSEN = frozenset((
    "c6g", "c7g", "c8g", "m6g", "m7g", "m8g", "r7g", "r8g", "c7gd", "c8gd",
    "c6i", "c7i", "c7i-flex", "c6a", "c7a", "m7i", "m7i-flex", "m7a", "r7i", "r7a", "c8i", "m8i", "r8i",
))  # fmt: skip
#: Families with accelerators that are not GPUs: Inferentia, Trainium, Gaudi, Alveo and other FPGAs
#: (docs.aws.amazon.com/ec2/latest/instancetypes/ac.html).
_ACCELERATED = re.compile(r"(?:inf|trn|dl|vt|f)\d.*")
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
    *,
    region: str = "us-east-1",
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
    region : str, optional
        Where: what is cheapest differs, and a type without a price there is not chosen unless it is named.

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
    if accelerated(found):
        raise BadArgument(
            f"instance type {name} has {found.gpu_name or 'an accelerator'}; GPUs and other accelerators are not"
            " supported yet, so tasks would not see it, and it would be paid for. Give a type without one, such"
            f" as {_DEFAULT_WORKER.get(arch, 'c7g.xlarge')}."
        )
    if found.arch != arch:
        raise BadArgument(
            f"instance type {name} is {found.arch}, but arch={arch!r}: give arch={found.arch!r},"
            f" or a type such as {_DEFAULT_WORKER[arch]}."
        )
    return found


def accelerated(kind: InstanceType) -> bool:
    """Whether a type has GPUs or other accelerators, which cost money and which no task is given yet."""
    return bool(kind.gpus) or _ACCELERATED.fullmatch(kind.family) is not None


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


def _choice(catalogue: Mapping[str, InstanceType], arch: str, prices: PriceTable) -> list[InstanceType]:
    """What a cluster may choose by itself: the usual families that have a price, else earlier ones that have."""
    plain = [t for t in catalogue.values() if t.arch == arch and t.family[0] in "cmr" and not (t.gpus or t.burstable)]
    usual = [t for t in plain if t.family in _CHOSEN]
    # Of a region that the list does not have nothing can be said: AWS itself says then what is not sold there.
    return [t for t in usual if prices.has(t)] or [t for t in plain if prices.has(t)] or usual


def _smallest(choice: list[InstanceType], arch: str, nthreads: int | None, limit: int | None) -> InstanceType:
    # A region without the usual families has others of the choice.
    mine = [t for t in choice if t.family in _FAMILIES[arch]] or choice
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
    return " and ".join(filter(None, (threads, memory))) or "the smallest size"
