"""Instance types and prices as the catalogue's files are written from them, whatever their source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dask_starburst.catalog.instance_types import size_units

#: Families with an accelerator, or so large that there is one size: their sizes do not cost in proportion.
_ODD = re.compile(r"(?:p|g|gr|inf|trn|dl|hpc|mac|u)\d|u-|mac")
#: moto's table does not know its AMD GPUs, so it would be taken for a type without any.
_LEFT_OUT = frozenset(("g4ad",))


@dataclass(frozen=True, slots=True)
class Described:
    """One type of DescribeInstanceTypes."""

    name: str
    arch: str
    vcpus: int
    cores: int
    memory_mib: int
    gpus: int
    gpu: str
    network: str
    local_disk_gb: int
    burstable: bool

    @property
    def family(self) -> str:
        """The part before the dot."""
        return self.name.partition(".")[0]


@dataclass(frozen=True)
class Offered:
    """Types and prices.

    Attributes
    ----------
    types : sequence of Described
    rates : mapping of str to mapping
        USD of one unit by source, region and family.
    odd_units : mapping of str to float
        The units of types that do not cost by the size in their name; zero for an unknown price.
    about_types, about_prices : mapping
        Where the two are from, for ``SOURCES.json``; the second by source.
    """

    types: Sequence[Described]
    rates: Mapping[str, Mapping[str, Mapping[str, float]]]
    odd_units: Mapping[str, float]
    about_types: Mapping[str, Any] = field(default_factory=dict)
    about_prices: Mapping[str, Any] = field(default_factory=dict)


def is_odd(name: str) -> bool:
    """Return whether a type belongs to a family whose prices are not proportional to its sizes."""
    return _ODD.match(name) is not None


def units(name: str, odd_units: Mapping[str, float]) -> float:
    """Return the units of a type; zero if unknown."""
    return odd_units.get(name, 0.0 if is_odd(name) else size_units(name))


def sold(described: Mapping[str, Any]) -> bool:
    """Return whether a worker can run on a type: no bare metal, no Mac, nothing older than Nitro."""
    family = described["InstanceType"].partition(".")[0]
    # moto marks r7g and m5 as earlier generations, so the generation alone does not do.
    recent = described.get("CurrentGeneration") or described.get("Hypervisor") == "nitro"
    odd = described.get("BareMetal") or family.startswith("mac") or family in _LEFT_OUT
    return bool(recent and not odd)


def described(answer: Mapping[str, Any]) -> Described:
    """Read one element of DescribeInstanceTypes' answer."""
    gpus = answer.get("GpuInfo", {}).get("Gpus", [])
    cpu = answer["VCpuInfo"]
    return Described(
        name=answer["InstanceType"],
        arch="arm64" if "arm64" in answer["ProcessorInfo"]["SupportedArchitectures"] else "x86_64",
        vcpus=cpu["DefaultVCpus"],
        cores=cpu.get("DefaultCores") or cpu["DefaultVCpus"],
        memory_mib=answer["MemoryInfo"]["SizeInMiB"],
        # A part of one GPU (g6f) is reported as none of several; a process sees one.
        gpus=sum(gpu.get("Count") or 1 for gpu in gpus),
        gpu=gpus[0]["Name"] if gpus else "",
        network=answer.get("NetworkInfo", {}).get("NetworkPerformance", ""),
        local_disk_gb=answer.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0),
        burstable=bool(answer.get("BurstablePerformanceSupported")),
    )


def in_order(types: Sequence[Described]) -> list[Described]:
    """Sort by family, then by size."""
    return sorted(types, key=lambda each: (each.family, each.vcpus, each.memory_mib, each.name))
