"""What a user has, as values: packages, wheels that only this computer has, modules of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class LocalWheel:
    """A package that no index has, as a wheel that was built here.

    Parameters
    ----------
    name, version : str
        As its metadata has them.
    path : Path
        The wheel.
    digest : str
        Hex SHA-256 over names and contents of its files: the same for two builds at two times.
    pure : bool
        Whether it can be installed on every platform.
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
    """A module of the user's on ``sys.path`` that belongs to no package: a file or a folder."""

    name: str
    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Environment:
    """The packages that workers are to have.

    Parameters
    ----------
    python : str
        The minor version: ``"3.12"``.
    requirements : tuple of str
        What is asked for, as PEP 508 writes it, sorted.
    constraints : tuple of str
        ``name==version`` of everything, sorted; what of it is needed follows from the requirements and the platform.
    wheels : tuple of LocalWheel
        Packages that no index has.
    modules : tuple of OwnModule
        Modules that go into the image as they are.
    lock : str, optional
        Requirements with hashes, when the source is a lock already.
    origin : str
        ``"this Python"``, or the file as the user named it.
    left_out : tuple of str
        Packages that it has and that are not asked for; what others need of them comes all the same.
    notes : tuple of str
        What the user ought to know of it, each a sentence.
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
        # Requirements may hold addresses of indexes, and those passwords.
        count = f"{len(self.requirements)} requirements, {len(self.wheels)} local wheels, {len(self.modules)} modules"
        return f"<Environment {self.origin!r}: Python {self.python}, {count}>"
