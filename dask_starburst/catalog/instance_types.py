"""The instance types that a cluster may use."""

from __future__ import annotations

import csv
import difflib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Literal, cast

from dask_starburst.errors import BadArgument

Arch = Literal["arm64", "x86_64"]


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One EC2 instance type, as DescribeInstanceTypes gives it.

    Attributes
    ----------
    name : str
        As AWS writes it: ``"c7g.xlarge"``.
    arch : {"arm64", "x86_64"}
        What its processor runs. Graviton is ``"arm64"``.
    vcpus : int
        On Graviton a whole core each, on Intel a hyperthread.
    memory_mib : int
        Nominal memory in MiB; ECS registers a little less.
    """

    name: str
    arch: Arch
    vcpus: int
    memory_mib: int

    @property
    def family(self) -> str:
        """What stands before the dot: ``"c7g"``."""
        return self.name.partition(".")[0]

    @property
    def size(self) -> str:
        """What stands after the dot: ``"xlarge"``."""
        return self.name.partition(".")[2]


@functools.cache
def catalogue() -> Mapping[str, InstanceType]:
    """Every type that may be chosen, by name.

    Compute, general and memory families of Graviton and x86 in all their sizes. Bare metal is left out
    because it boots for minutes, burstable types because a busy Dask worker uses up their credits.

    Returns
    -------
    Mapping of str to InstanceType
        In the order of ``data/instance-types.csv``: by family, then by size.
    """
    text = files("dask_starburst.catalog").joinpath("data/instance-types.csv").read_text(encoding="utf-8")
    types = (
        InstanceType(row["name"], cast(Arch, row["arch"]), int(row["vcpus"]), int(row["memory_mib"]))
        for row in csv.DictReader(text.splitlines())
    )
    return MappingProxyType({each.name: each for each in types})


def find(name: str) -> InstanceType:
    """Look one type up.

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
        If it is not in the catalogue. The message offers the closest names.
    """
    known = catalogue()
    if (found := known.get(name)) is not None:
        return found
    close = difflib.get_close_matches(str(name).strip().lower(), known, n=3, cutoff=0.6)
    families = dict.fromkeys(each.family for each in known.values())
    hint = f"Did you mean {_either(close)}?" if close else f"Its families are {', '.join(families)}."
    raise BadArgument(f"{name!r} is not an instance type of the bundled catalogue. {hint}")


def _either(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
