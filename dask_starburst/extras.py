"""Missing optional dependencies and the extras that install them, read from the installed metadata."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "dask-starburst"


def explain(what: str, error: ImportError, *extras: str) -> str:
    """Return a message about an import that failed: which packages are missing and how to install them.

    Parameters
    ----------
    what : str
        What needs the packages, as the start of the sentence: ``"The demo"``.
    error : ImportError
        The error. Dask raises some without a module name.
    extras : str
        The extras that contain the packages.

    Returns
    -------
    str
        One or more sentences. An extra is named only if one of its packages is missing.
    """
    try:
        missing = {extra: lacking(extra) for extra in extras}
    except PackageNotFoundError:  # a folder on sys.path without metadata, so the extras are unknown
        return f"{what} needs {error.name or error}, which is not installed: {install(*extras)}"
    names = sorted({name for lacks in missing.values() for name in lacks})
    if names:
        verb = "is" if len(names) == 1 else "are"
        wanted = [extra for extra, lacks in missing.items() if lacks]
        return f"{what} needs {' and '.join(names)}, which {verb} not installed: {install(*wanted)}"
    own = f"{DISTRIBUTION}[{','.join(extras)}]"
    return (
        f"{what} needs {error.name or 'a missing package'}, which is not part of {own}, although all its packages are"
        f" installed ({error}). Install the missing package, or reinstall the packages that import it."
    )


def install(*extras: str) -> str:
    """Return the command that installs extras."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def lacking(extra: str) -> list[str]:
    """Return the direct and indirect dependencies of an extra that are not installed.

    Parameters
    ----------
    extra : str
        As in ``pyproject.toml``: ``"local"``.

    Returns
    -------
    list of str
        In alphabetical order. A package in a wrong version is given as ``"moto~=5.2.5 (5.1.0 is installed)"``.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        This package itself is not installed.
    """
    found, seen = set(), set()
    todo = [(DISTRIBUTION, frozenset({extra}))]
    while todo:
        name, extras = todo.pop()
        for requirement in _requirements(name, extras):
            wanted = (requirement.name, frozenset(requirement.extras))
            if wanted in seen:
                continue
            seen.add(wanted)
            try:
                version = distribution(requirement.name).version
            except PackageNotFoundError:
                found.add(requirement.name)
                continue
            if not requirement.specifier.contains(version, prereleases=True):
                found.add(f"{requirement.name}{requirement.specifier} ({version} is installed)")
            todo.append(wanted)
    return sorted(found)


def _requirements(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Yield the requirements of an installed package with these extras on this platform."""
    from packaging.requirements import Requirement

    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield requirement
