"""Versions that must match between client, scheduler and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Packages whose versions must match for messages and pickles to be readable. Python's minor version is compared.
MUST_MATCH = ("python", "dask", "distributed", "msgpack", "cloudpickle", "lz4")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A package with different versions here and there; None if missing."""

    package: str
    here: str | None
    there: str | None

    def __str__(self) -> str:
        return f"{self.package} {self.here or 'missing'} here, {self.there or 'missing'} there"


def mismatches(here: Mapping[str, str | None], there: Mapping[str, str | None]) -> tuple[Mismatch, ...]:
    """Return the packages of `MUST_MATCH` that differ.

    Parameters
    ----------
    here, there : mapping of str to str
        Versions by package, as distributed reports them: Python's as ``"3.12.3.final.0"``.
    """
    compared = ((name, _relevant(name, here.get(name)), _relevant(name, there.get(name))) for name in MUST_MATCH)
    return tuple(Mismatch(name, ours, theirs) for name, ours, theirs in compared if ours != theirs)


def minor(python: str) -> str:
    """Return ``"3.12"`` of ``"3.12.3.final.0"``."""
    return ".".join(python.split(".")[:2])


def explain(found: tuple[Mismatch, ...], what: str, *, built: bool) -> str:
    """Describe the differences and how to fix them.

    Parameters
    ----------
    found : tuple of Mismatch
        At least one.
    what : str
        The other side: ``"the image …"``.
    built : bool
        Whether it was built from an environment, and not provided by the user.
    """
    facts = "; ".join(map(str, found))
    pins = [f"{m.package}=={m.there}" for m in found if m.package != "python" and m.there]
    ways = [f"install its versions: pip install {' '.join(pins)}"] if pins else []
    python = next((m.there for m in found if m.package == "python" and m.there), None)
    if python:
        ways = [f"use Python {python}", *ways]
    other = "leave out image= to build one of your packages" if not built else "give an environment= with yours"
    return (
        f"{what} is incompatible with this client: {facts}. Dask's messages would be unreadable; {other}, or "
        + (", and ".join(ways) or "install what is missing")
        + "."
    )


def _relevant(name: str, version: str | None) -> str | None:
    return minor(version) if name == "python" and version else version
