"""Read lock files of PEP 751 (``pylock.toml``), with `packaging.pylock`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.pylock import Package, Pylock, PylockValidationError

from dask_starburst.environment.capture.additions import built
from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.capture.running import PYTHON
from dask_starburst.errors import BadArgument

#: A marker that asks which extras or groups are installed; only installers of lock files evaluate such (PEP 751).
_SELECTION = re.compile(r"\b(extras|dependency_groups)\b")


def parse_pylock(document: Mapping[str, Any], path: Path, cache: Path) -> Environment:
    """Return the environment of a lock file: its default groups, without extras.

    Parameters
    ----------
    document : mapping
        The file's TOML.
    path, cache : Path
        The file, for errors and relative paths, and the folder for wheels that are built.

    Raises
    ------
    BadArgument
        The file is not valid, or contains a package that has neither version nor source.
    """
    try:
        lock = Pylock.from_dict(document)
    except PylockValidationError as error:
        raise BadArgument(
            f"environment={str(path)!r} is not a valid lock file: {error}; lock again, or give another file."
        ) from None
    lines, local = [], []
    for package in lock.packages:
        if not _selected(package, lock):
            continue
        if (source := _source(package)) is not None:
            local.append(built(source, path.parent, cache))
        else:
            lines.append(_line(package, path))
    return Environment(PYTHON, (), (), tuple(local), lock="\n".join(lines))


def _selected(package: Package, lock: Pylock) -> bool:
    """Whether a package belongs to the default groups."""
    if package.marker is None or not _SELECTION.search(str(package.marker)):
        return True
    groups = frozenset(lock.default_groups or ())
    return package.marker.evaluate({"extras": frozenset(), "dependency_groups": groups}, context="lock_file")


def _source(package: Package) -> str | None:
    """Return what to build a package from, if it is a folder, a local archive or a commit."""
    if package.directory is not None:
        return package.directory.path
    if package.vcs is not None:
        return f"{package.vcs.type}+{package.vcs.url or package.vcs.path}@{package.vcs.commit_id}"
    return package.archive.path if package.archive is not None else None


def _line(package: Package, path: Path) -> str:
    marker = f" ; {package.marker}" if package.marker and not _SELECTION.search(str(package.marker)) else ""
    if package.archive is not None:
        return f"{package.name} @ {package.archive.url}{marker}{_hashes(package.archive)}"
    if package.version is None:
        raise BadArgument(f"environment={str(path)!r} has {package.name} without a version; lock again.")
    files = [*(package.wheels or ()), *filter(None, [package.sdist])]
    return f"{package.name}=={package.version}{marker}{''.join(map(_hashes, files))}"


def _hashes(file: Any) -> str:
    return f" --hash=sha256:{file.hashes['sha256']}" if "sha256" in file.hashes else ""
