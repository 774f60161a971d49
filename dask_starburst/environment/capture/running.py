"""Capture the packages of the running Python, and the user's own loaded modules."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlparse

import cloudpickle
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from dask_starburst.environment.capture import wheels
from dask_starburst.environment.capture.additions import additions
from dask_starburst.environment.capture.model import Environment, LocalWheel, OwnModule
from dask_starburst.environment.tools import uv
from dask_starburst.errors import BadArgument, ImageError
from dask_starburst.paths import cache_dir

#: Package installers, which workers need only as a dependency.
INSTALLERS = {"pip", "setuptools", "wheel", "uv"}
#: This package, which cannot be excluded.
OURS = "dask-starburst"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


def capture(
    exclude: Iterable[str] = (), add: Iterable[str] = (), modules: str = "by-value", cache: Path | None = None
) -> Environment:
    """Return the packages of the running Python, with their exact versions.

    Only packages that no other package requires are requested; their dependencies are resolved for each platform, at
    the installed versions. So packages for macOS or Windows only are omitted, and those for Linux only are added.

    Parameters
    ----------
    exclude : iterable of str
        Packages to leave out, with dependencies that only they require. Those that others require are still installed.
    add : iterable of str
        Requirements to add, see `additions`.
    modules : {"by-value", "package", "none"}
        Whether the user's own modules go into the image (``"package"``).
    cache : Path, optional
        Cache folder.

    Raises
    ------
    BadArgument
        `exclude` names dask_starburst, or a requirement in `add` is invalid.
    ImageError
        A local package cannot be built.
    """
    cache = cache or cache_dir()
    left_out: set[str] = {canonicalize_name(name) for name in exclude}
    check_excluded(left_out)
    installed, more = _installed(), additions(add, cache)
    left_out |= more.names
    kept = {name: each for name, each in installed.items() if name not in left_out}
    local = {name: wheel for name, each in kept.items() if (wheel := local_wheel(each, cache))}
    local |= {wheel.name: wheel for wheel in more.wheels}
    # Excluded packages are pinned too: one that others require is installed at the local version.
    of_index = {n for n, each in installed.items() if n in kept or not each.read_text("direct_url.json")} - local.keys()
    pins = [f"{name}=={installed[name].version}" for name in of_index]
    # Roots of all installed packages: dependencies that only excluded packages require are not requested.
    roots = [name for name in _roots(installed) if name in kept and name not in local and name not in INSTALLERS]
    conda = sorted(name for name, each in kept.items() if (each.read_text("INSTALLER") or "").strip() == "conda")
    notes = (f"installed by conda, taken from PyPI by the same name: {', '.join(conda)}",) if conda else ()
    own = own_modules() if modules == "package" else ()
    return Environment(
        python=PYTHON,
        requirements=tuple(sorted([*(f"{name}=={kept[name].version}" for name in roots), *more.requirements])),
        constraints=tuple(sorted(pins)),
        wheels=tuple(sorted(local.values(), key=lambda wheel: wheel.name)),
        modules=own,
        origin="this Python",
        left_out=tuple(sorted((left_out - more.names) & installed.keys())),
        notes=notes,
    )


def local_wheel(distribution: Distribution, cache: Path) -> LocalWheel | None:
    """Return the wheel of an installed package that is not on an index; None if it was installed from an index."""
    text = distribution.read_text("direct_url.json")
    if not text:
        return None
    facts = json.loads(text)
    url = str(facts["url"])
    if "vcs_info" in facts:
        version = facts["vcs_info"]
        shown = uv.without_secrets(f"{version['vcs']}+{url}@{version['commit_id']}")
        return wheels.of_installed(distribution, cache, shown)
    folder = Path(unquote(urlparse(url).path))
    editable = facts.get("dir_info", {}).get("editable", False)
    if url.startswith("file:") and folder.is_dir() and editable:
        return wheels.of_folder(folder, cache, "editable")
    if editable:  # only a link to the folder is installed
        name = distribution.metadata["Name"]
        raise ImageError(f"{name} is installed editable from {folder}, which is missing; reinstall or exclude it.")
    if url.startswith("file:") and folder.is_file() and folder.suffix == ".whl":
        return wheels.of_file(folder, cache, "local wheel")
    # Not editable: the user runs the installed files, even if the folder has changed.
    return wheels.of_installed(
        distribution, cache, "local folder" if url.startswith("file:") else uv.without_secrets(url)
    )


def this_package(cache: Path) -> tuple[str | None, LocalWheel | None]:
    """Return dask_starburst for workers: a pin if it was installed from an index, else a wheel."""
    distribution = importlib.metadata.distribution(OURS)
    wheel = local_wheel(distribution, cache)
    return (None, wheel) if wheel else (f"{OURS}=={distribution.version}", None)


def own_modules() -> tuple[OwnModule, ...]:
    """Return loaded modules that are not part of an installed package, such as files beside a script."""
    found = {name: path for name, path in _loaded() if not _is_installed(path)}
    return tuple(OwnModule(name, path, _digest(path)) for name, path in sorted(found.items()))


def register_by_value(names: Iterable[str] | None = None) -> tuple[str, ...]:
    """Pickle functions of the user's own modules by value, for workers that cannot import them.

    Parameters
    ----------
    names : iterable of str, optional
        Imported modules; default: all of `own_modules`.

    Returns
    -------
    tuple of str
        The registered modules.
    """
    chosen = tuple(names) if names is not None else tuple(module.name for module in own_modules())
    for name in chosen:
        cloudpickle.register_pickle_by_value(sys.modules[name])
    return chosen


def _installed() -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for each in importlib.metadata.distributions():
        if each.metadata["Name"]:
            found.setdefault(
                canonicalize_name(each.metadata["Name"]), each
            )  # the first on sys.path is the one that is imported
    return found


def _roots(installed: dict[str, Distribution]) -> list[str]:
    """Return packages that reach all others: those that none requires, and one of each dependency cycle."""
    needs = {name: _needs(each, installed) for name, each in installed.items()}
    needed = {other for name, others in needs.items() for other in others if other != name}
    roots = [name for name in sorted(installed) if name not in needed]
    reached: set[str] = set()
    for name in [*roots, *sorted(installed)]:
        if name not in reached:
            roots += [name] if name not in roots else []
            _reach(name, needs, reached)
    return roots


def _reach(name: str, needs: dict[str, set[str]], reached: set[str]) -> None:
    waiting = [name]
    while waiting:
        if (next_one := waiting.pop()) not in reached:
            reached.add(next_one)
            waiting += needs[next_one]


def _needs(distribution: Distribution, installed: dict[str, Distribution]) -> set[str]:
    """Return a package's installed dependencies without extras, which are not recorded."""
    found: set[str] = set()
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        name = canonicalize_name(requirement.name)
        if name in installed and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
            found.add(name)
    return found


def check_excluded(names: Iterable[str]) -> None:
    """Check that this package is not excluded.

    Raises
    ------
    BadArgument
        One of the normalized names is this package.
    """
    if OURS in names:
        raise BadArgument(f"build.exclude names {OURS}, which workers require; remove it from the list.")


def _loaded() -> Iterator[tuple[str, Path]]:
    """Yield each loaded top-level module or package in a folder of ``sys.path``."""
    folders = [Path(entry or ".").resolve() for entry in sys.path]
    for name, module in list(sys.modules.items()):
        if "." in name or name == "__main__" or name in sys.stdlib_module_names:
            continue
        path = _place(module)
        if path is not None and path.parent in folders:
            yield name, path


def _place(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    if not file or not file.endswith((".py", ".pyc")):
        return None
    path = Path(file).resolve()
    return path.parent if path.name == "__init__.py" else path


def _is_installed(path: Path) -> bool:
    parts = set(path.parts)
    if {"site-packages", "dist-packages"} & parts or path.is_relative_to(Path(sys.base_prefix).resolve() / "lib"):
        return True
    # Editable packages are on sys.path through a .pth file or a finder.
    return any(_normal_module(path) in names for names in _top_levels().values())


def _top_levels() -> dict[str, set[str]]:
    """Return the top-level modules of each installed package."""
    found: dict[str, set[str]] = {}
    for module, packages in importlib.metadata.packages_distributions().items():
        for package in packages:
            found.setdefault(package, set()).add(module)
    for each in importlib.metadata.distributions():  # editable ones list no modules; assume the package's name
        name = each.metadata["Name"]
        if name:
            found.setdefault(name, set()).add(canonicalize_name(name).replace("-", "_"))
    return found


def _normal_module(path: Path) -> str:
    return path.stem if path.suffix == ".py" else path.name


def _digest(path: Path) -> str:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and p.suffix != ".pyc")
    hashed = hashlib.sha256()
    for file in files:
        hashed.update(f"{file.relative_to(path.parent).as_posix()}\0".encode())
        try:
            hashed.update(hashlib.sha256(file.read_bytes()).digest())
        except OSError as error:
            raise ImageError(f"your module {path.name} cannot be read: {error}") from error
    return hashed.hexdigest()
