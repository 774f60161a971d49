"""The bundled EC2 instance types."""

from __future__ import annotations

import csv
import difflib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Literal, cast

from dask_starburst.errors import BadArgument

#: Sizes below an xlarge, in its units: AWS's own instance size normalization factors, by eight.
_SMALL = {"nano": 1 / 32, "micro": 1 / 16, "small": 1 / 8, "medium": 1 / 4, "large": 1 / 2, "xlarge": 1.0}

Arch = Literal["arm64", "x86_64"]


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One EC2 instance type, with data of DescribeInstanceTypes.

    Attributes
    ----------
    name : str
        The name, such as ``"c7g.xlarge"``.
    arch : {"arm64", "x86_64"}
        The architecture. Graviton is ``"arm64"``.
    vcpus : int
        Number of vCPUs: a core each on Graviton, a hyperthread on Intel.
    memory_mib : int
        Nominal memory in MiB; ECS registers a little less.
    cores : int
        Physical cores: the number of vCPUs if a vCPU is a core, else half of it.
    gpus : int
        Number of GPUs; a fraction of a GPU counts as one.
    gpu_name : str
        Such as ``"L40S"``; empty without a GPU.
    network : str
        Network performance as AWS gives it: ``"Up to 12.5 Gigabit"``.
    local_disk_gb : int
        Total size of the local disks in GB.
    burstable : bool
        True if it uses CPU credits.
    units : float
        Its price relative to its family's xlarge; zero if unknown. See `catalog.prices`.
    """

    name: str
    arch: Arch
    vcpus: int
    memory_mib: int
    cores: int
    gpus: int = 0
    gpu_name: str = ""
    network: str = ""
    local_disk_gb: int = 0
    burstable: bool = False
    units: float = 0.0

    @property
    def family(self) -> str:
        """The part before the dot: ``"c7g"``."""
        return self.name.partition(".")[0]

    @property
    def size(self) -> str:
        """The part after the dot: ``"xlarge"``."""
        return self.name.partition(".")[2]


@functools.cache
def catalogue() -> Mapping[str, InstanceType]:
    """Return all instance types by name.

    These are all current EC2 types, including those with GPUs and burstable ones. Bare metal is left out because it
    takes minutes to boot. A cluster chooses from fewer types by default: see `plan.requests.sizing`.

    Returns
    -------
    Mapping of str to InstanceType
        By family, then by size.
    """
    families = {row["family"]: row for row in rows("families.csv")}
    types = (_read(row, families[row["name"].partition(".")[0]]) for row in rows("instance-types.csv"))
    return MappingProxyType({each.name: each for each in types})


def size_units(name: str) -> float:
    """Return the price of a type relative to its family's xlarge, by the size in its name; zero if unknown.

    Parameters
    ----------
    name : str
        Such as ``"c7g.16xlarge"``, which is 16.
    """
    size = name.partition(".")[2]
    return _SMALL.get(size) or float(found[1] if (found := re.fullmatch(r"(\d+)xlarge", size)) else 0.0)


def find(name: str) -> InstanceType:
    """Return one instance type.

    Parameters
    ----------
    name : str
        Such as ``"c7g.xlarge"``.

    Returns
    -------
    InstanceType

    Raises
    ------
    BadArgument
        If it is not in the catalogue. The message gives the closest names.
    """
    known = catalogue()
    if (found := known.get(name)) is not None:
        return found
    close = difflib.get_close_matches(str(name).strip().lower(), known, n=3, cutoff=0.6)
    hint = f"Did you mean {_either(close)}?" if close else "`starburst prices` lists all of them."
    raise BadArgument(f"{name!r} is not an instance type of the bundled catalogue. {hint}")


def rows(name: str) -> list[dict[str, str]]:
    """Read a bundled table."""
    text = files("dask_starburst.catalog").joinpath("data", name).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _read(row: Mapping[str, str], family: Mapping[str, str]) -> InstanceType:
    name, gpus = row["name"], int(row["gpus"] or 0)
    return InstanceType(
        name=name,
        arch=cast(Arch, family["arch"]),
        vcpus=int(row["vcpus"]),
        memory_mib=int(row["memory_mib"]),
        cores=int(row["cores"]),
        gpus=gpus,
        gpu_name=family["gpu"] if gpus else "",
        network=re.sub(r"G$", " Gigabit", row["network"].replace("^", "Up to ")),
        local_disk_gb=int(row["local_disk_gb"] or 0),
        burstable=family["burstable"] == "yes",
        units=float(row["units"]) if row["units"] else size_units(name),
    )


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
