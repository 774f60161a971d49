"""Optional dependencies: which are missing, and which extra brings them, read from what is installed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "dask-starburst"


def explain(what: str, error: ImportError, *extras: str) -> str:
    """Say which packages are missing and what to type, for an import of optional dependencies that failed.

    Parameters
    ----------
    what : str
        What needs them, as the beginning of the sentence: ``"The demo"``.
    error : ImportError
        How the import failed. Dask raises some without a module's name.
    extras : str
        The extras that bring what is needed.

    Returns
    -------
    str
        Whole sentences. An extra is named only if it brings something that is missing: installing it again would
        not help otherwise.
    """
    try:
        missing = {extra: lacking(extra) for extra in extras}
    except PackageNotFoundError:  # a folder on sys.path that was never installed: nothing says what an extra brings
        return f"{what} needs {error.name or error}, which is not installed: {install(*extras)}"
    names = sorted({name for lacks in missing.values() for name in lacks})
    if names:
        verb = "is" if len(names) == 1 else "are"
        wanted = [extra for extra, lacks in missing.items() if lacks]
        return f"{what} needs {' and '.join(names)}, which {verb} not installed: {install(*wanted)}"
    own = f"{DISTRIBUTION}[{','.join(extras)}]"
    return (
        f"{what} needs {error.name or 'more than is there'}, which no package of {own} brings, though all of them are"
        f" installed ({error}). Install the package that has it, or the packages that import it anew."
    )


def install(*extras: str) -> str:
    """Return the command that installs extras."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def lacking(extra: str) -> list[str]:
    """Return the packages that an extra brings, by itself or through others, and this Python lacks.

    Parameters
    ----------
    extra : str
        As in ``pyproject.toml``: ``"local"``.

    Returns
    -------
    list of str
        In alphabetical order; with the versions that are needed where another one is installed: ``"moto~=5.2.5 (5.1.0
        is here)"``.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        This package itself was never installed.
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
                found.add(f"{requirement.name}{requirement.specifier} ({version} is here)")
            todo.append(wanted)
    return sorted(found)


def _requirements(name: str, extras: frozenset[str]) -> Iterator[Requirement]:
    """Read what an installed package requires here, with those extras of it."""
    from packaging.requirements import Requirement

    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""}):
            yield requirement
