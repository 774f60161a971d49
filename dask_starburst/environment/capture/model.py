"""The user's environment as values: packages, local wheels, and the user's own modules."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LocalWheel:
    """A package that is not on an index, as a wheel that was built here.

    Parameters
    ----------
    name, version : str
        As its metadata has them.
    path : Path
        The wheel.
    digest : str
        Hex SHA-256 over the names and contents of its files: equal for two builds of the same source.
    pure : bool
        Whether it installs on every platform.
    origin : str
        ``"editable"``, ``"git+https://…@commit"``, ``"local folder"``.
    """

    name: str
    version: str
    path: Path
    digest: str
    pure: bool
    origin: str


@dataclass(frozen=True, slots=True)
class OwnModule:
    """A module of the user on ``sys.path`` that is not part of an installed package: a file or a folder."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Environment:
    """The packages that workers need.

    Parameters
    ----------
    python : str
        The minor version: ``"3.12"``.
    requirements : tuple of str
        Requested packages, in PEP 508 syntax, sorted.
    constraints : tuple of str
        ``name==version`` of all packages, sorted; requirements and platform decide which of them are installed.
    wheels : tuple of LocalWheel
        Packages that are not on an index.
    modules : tuple of OwnModule
        Modules that are copied into the image.
    lock : str, optional
        Requirements with hashes, if the source is a lock.
    origin : str
        ``"this Python"``, or the file as the user named it.
    left_out : tuple of str
        Excluded packages of the source; those that others require are still installed.
    notes : tuple of str
        Notes for the user, one sentence each.
    """

    python: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]
    wheels: tuple[LocalWheel, ...] = ()
    modules: tuple[OwnModule, ...] = ()
    lock: str | None = None
    origin: str = ""
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        # Requirements may contain index URLs with passwords.
        count = f"{len(self.requirements)} requirements, {len(self.wheels)} local wheels, {len(self.modules)} modules"
        return f"<Environment {self.origin!r}: Python {self.python}, {count}>"
