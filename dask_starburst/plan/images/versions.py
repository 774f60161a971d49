"""Which versions client, scheduler and workers have to share, and what to type when they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Where a difference makes messages or pickles unreadable, not only slower: an error before the first task. Of Python
#: the minor version counts.
MUST_MATCH = ("python", "dask", "distributed", "msgpack", "cloudpickle", "lz4")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One package: its version here and there; None where it is missing."""

    package: str
    here: str | None
    there: str | None

    def __str__(self) -> str:
        return f"{self.package} {self.here or 'missing'} here, {self.there or 'missing'} there"


def mismatches(here: Mapping[str, str | None], there: Mapping[str, str | None]) -> tuple[Mismatch, ...]:
    """Return what of `MUST_MATCH` differs.

    Parameters
    ----------
    here, there : mapping of str to str
        Versions by package, as distributed tells them: Python's as ``"3.12.3.final.0"``.
    """
    compared = ((name, _relevant(name, here.get(name)), _relevant(name, there.get(name))) for name in MUST_MATCH)
    return tuple(Mismatch(name, ours, theirs) for name, ours, theirs in compared if ours != theirs)


def minor(python: str) -> str:
    """Return ``"3.12"`` of ``"3.12.3.final.0"``."""
    return ".".join(python.split(".")[:2])


def explain(found: tuple[Mismatch, ...], what: str, *, built: bool) -> str:
    """Say what differs and how to mend it.

    Parameters
    ----------
    found : tuple of Mismatch
        At least one.
    what : str
        What the other side is: ``"the image …"``.
    built : bool
        Whether it was built by us from an environment, and not brought by the user.
    """
    facts = "; ".join(map(str, found))
    pins = [f"{m.package}=={m.there}" for m in found if m.package != "python" and m.there]
    ways = [f"install what it has: pip install {' '.join(pins)}"] if pins else []
    python = next((m.there for m in found if m.package == "python" and m.there), None)
    if python:
        ways = [f"use Python {python}", *ways]
    other = "leave image= out, and one is built of your packages" if not built else "give an environment= with yours"
    return (
        f"{what} does not fit this client: {facts}. Dask's messages would not be understood; {other}, or "
        + (", and ".join(ways) or "install what is missing")
        + "."
    )


def _relevant(name: str, version: str | None) -> str | None:
    return minor(version) if name == "python" and version else version
