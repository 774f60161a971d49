"""Read environments from files, such as lock and requirements files."""

from __future__ import annotations

import importlib.metadata
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from dask_starburst.environment.capture import conda, wheels
from dask_starburst.environment.capture.additions import additions, built
from dask_starburst.environment.capture.model import Environment, LocalWheel
from dask_starburst.environment.capture.pins import pins_of
from dask_starburst.environment.capture.pylock import parse_pylock
from dask_starburst.environment.capture.requirements import bare, parse, split
from dask_starburst.environment.capture.running import PYTHON, check_excluded, own_modules, this_package
from dask_starburst.environment.tools import uv
from dask_starburst.errors import BadArgument, ImageError, VersionMismatch
from dask_starburst.paths import cache_dir
from dask_starburst.plan.images.versions import MUST_MATCH


def read(
    name: str,
    exclude: Iterable[str] = (),
    add: Iterable[str] = (),
    modules: str = "by-value",
    cache: Path | None = None,
) -> Environment:
    """Read the environment of a file, or of a folder with one.

    Packages that Dask's protocol depends on get the client's versions, and dask_starburst is added.

    Parameters
    ----------
    name : str
        A ``requirements.txt`` (or any ``.txt``), ``pyproject.toml``, ``uv.lock``, ``pylock.toml`` or
        ``environment.yml``; or a folder, of which the most exact file is read.
    exclude : iterable of str
        Packages of the file to leave out. Those that others require are still installed.
    add : iterable of str
        Requirements to add, see `additions`.
    modules : {"by-value", "package", "none"}
        Whether the user's own modules go into the image (``"package"``).
    cache : Path, optional
        Cache folder.

    Raises
    ------
    BadArgument
        The file does not exist, or its format is not supported.
    VersionMismatch
        It requires another version of Python, dask or distributed than the client's.
    ImageError
        A local package cannot be built.
    """
    cache = cache or cache_dir()
    path = _file(name)
    found = _reader(path)(path, cache)
    _check_python(path)
    found = replace(found, origin=_shown(name, path))
    _check_versions(found)
    names: set[str] = {canonicalize_name(each) for each in exclude}
    check_excluded(names)
    more = additions(add, cache)
    pin, wheel = this_package(cache)
    found = _without(found, names, more.names)
    local = {each.name: each for each in (*found.wheels, *more.wheels, *([wheel] if wheel else []))}
    return replace(
        found,
        requirements=tuple(sorted({*found.requirements, *more.requirements, *([pin] if pin else [])})),
        constraints=tuple(sorted({*found.constraints, *_pins(found, local)})),
        wheels=tuple(sorted(local.values(), key=lambda each: each.name)),
        modules=own_modules() if modules == "package" else (),
    )


def check(name: str) -> None:
    """Check that a file or folder exists and has a format that `read` supports, without reading it.

    Raises
    ------
    BadArgument
        It does not exist, or its format is not supported.
    """
    _reader(_file(name))


def _without(found: Environment, left_out: set[str], replaced: set[str]) -> Environment:
    """Remove requested packages from an environment, and pins of packages that come from another source.

    Pins of excluded packages remain: if others require one, the file's version is installed.
    """
    dropped = left_out | replaced
    kept = [
        text for text in found.requirements if text.startswith("-") or canonicalize_name(_name(text)) not in dropped
    ]
    lock, lines = split(found.lock or "", dropped)
    pins = [line for line in (*found.constraints, *lines) if _normal(line) not in replaced]
    asked = {_normal(text) for text in (*found.requirements, *lines)} | {each.name for each in found.wheels}
    return replace(
        found,
        requirements=tuple(kept),
        constraints=tuple(pins),
        wheels=tuple(each for each in found.wheels if each.name not in dropped),
        lock=None if found.lock is None else lock,
        left_out=tuple(sorted(left_out & asked)),
    )


def _file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_dir():
        found = next((path / each for each in _READERS if (path / each).exists()), None)
        if found is None:
            raise BadArgument(
                f"environment={name!r} is a folder without any of {', '.join(_READERS)}; give one that has."
            )
        return found
    if not path.exists():
        raise BadArgument(
            f"environment={name!r} does not exist; give one of {', '.join(_READERS)}, a folder with one, or leave it"
            " out to use the packages of this Python."
        )
    return path


def _shown(name: str, path: Path) -> str:
    return name if path == Path(name).expanduser() else f"{name} ({path.name})"


def _reader(path: Path) -> Callable[[Path, Path], Environment]:
    named = _READERS.get(path.name)
    ending = {".txt": _requirements, ".in": _requirements, ".yml": _conda, ".yaml": _conda}.get(path.suffix)
    if path.name.startswith("pylock.") and path.suffix == ".toml":
        ending = _pylock
    if (reader := named or ending) is None:
        raise BadArgument(f"environment={str(path)!r} is not supported; give one of {', '.join(_READERS)}.")
    return reader


def _requirements(path: Path, cache: Path, text: str | None = None) -> Environment:
    found = parse(path, text)
    local = [(built(what, path.parent, cache), extras) for what, extras in found.local]
    asked = [*(f"{wheel.name}[{extras}]" for wheel, extras in local if extras), *found.options]
    own = tuple(wheel for wheel, _ in local)
    if found.hashed:
        lock = "\n".join(found.lines)
        return Environment(PYTHON, tuple(asked), tuple(found.constraints), own, lock=lock)
    return Environment(PYTHON, (*found.lines, *asked), tuple(found.constraints), own)


def _pyproject(path: Path, cache: Path) -> Environment:
    document = _toml(path)
    if "build-system" in document:  # its dependencies are in the metadata of its wheel
        return Environment(PYTHON, (), (), (wheels.of_folder(path.parent, cache, "local folder"),))
    if "project" not in document:
        raise BadArgument(f"environment={str(path)!r} has neither [project] nor [build-system]; give another file.")
    return Environment(PYTHON, tuple(document["project"].get("dependencies", ())), ())


def _uv_lock(path: Path, cache: Path) -> Environment:
    options = ["--frozen", "--no-emit-project", "--no-dev", "--no-header", "--no-annotate"]
    done = uv.run(["export", "--quiet", "--project", str(path.parent), *options, "--format", "requirements-txt"])
    if done.returncode != 0:
        raise ImageError(f"{path} cannot be read; uv says:\n{uv.words(done)}")
    found = _requirements(path, cache, done.stdout)
    project = path.parent / "pyproject.toml"
    if not project.exists() or "build-system" not in _toml(project):
        return replace(found, lock=found.lock or done.stdout)
    own = wheels.of_folder(path.parent, cache, "local folder")
    return replace(found, lock=found.lock or done.stdout, wheels=(*found.wheels, own))


def _pylock(path: Path, cache: Path) -> Environment:
    return parse_pylock(_toml(path), path, cache)


def _conda(path: Path, cache: Path) -> Environment:
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        listed = document["dependencies"]
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise BadArgument(
            f"environment={str(path)!r} has no list of dependencies ({error}); give another file."
        ) from None
    plain = [each for each in listed if isinstance(each, str)]
    pip = [line for each in listed if isinstance(each, dict) for line in each.get("pip", ())]
    taken = conda.as_requirements(plain)
    found = _requirements(path, cache, "\n".join(pip))
    notes = [f"conda's packages are taken from PyPI: {', '.join(sorted(taken))}"] if taken else []
    if left := conda.left_out(plain):
        notes.append(f"left out because they are not Python packages: {', '.join(left)}")
    return replace(found, requirements=(*found.requirements, *taken), notes=tuple(notes))


#: Supported files, the most exact first.
_READERS: dict[str, Callable[[Path, Path], Environment]] = {
    "uv.lock": _uv_lock,
    "pylock.toml": _pylock,
    "pyproject.toml": _pyproject,
    "requirements.txt": _requirements,
    "environment.yml": _conda,
}


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadArgument(
            f"environment={str(path)!r} is not valid TOML: {error}; correct it, or give another."
        ) from None


def _check_python(path: Path) -> None:
    required = ""
    if path.suffix == ".toml" or path.name == "uv.lock":
        document = _toml(path)
        required = str(document.get("requires-python") or document.get("project", {}).get("requires-python") or "")
    elif path.suffix in (".yml", ".yaml"):
        required = conda.python_of(yaml.safe_load(path.read_text(encoding="utf-8")).get("dependencies", ()))
    try:
        fits = not required or f"{PYTHON}.{sys.version_info.micro}" in SpecifierSet(required)
    except InvalidSpecifier:
        fits = True
    if not fits:
        raise VersionMismatch(
            f"{path} requires Python {required}, and this client runs {PYTHON}: client and workers would be"
            f" incompatible. Run this with Python {required}, or change the file."
        )


def _here(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check_versions(environment: Environment) -> None:
    """Reject a file that pins another version than the client's of a package that must match."""
    ours = {name: version for name in MUST_MATCH[1:] if (version := _here(name))}
    pinned = pins_of(environment)
    wrong = {f"{n}=={v} (here {ours[n]})": n for n, v in pinned.items() if n in ours and ours[n] != v}
    for text in environment.requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        name = canonicalize_name(requirement.name)
        if name in ours and name not in pinned and not requirement.specifier.contains(ours[name], prereleases=True):
            wrong[f"{text} (here {ours[name]})"] = name
    if wrong:
        install = " ".join(f"{name}=={ours[name]}" for name in dict.fromkeys(wrong.values()))
        raise VersionMismatch(
            f"{environment.origin} requires {', '.join(sorted(wrong))}: client and workers would be incompatible."
            f" Change the file to {install}, or install its versions here."
        )


def _pins(environment: Environment, local: dict[str, LocalWheel]) -> list[str]:
    known = pins_of(environment)
    return [
        f"{name}=={version}"
        for name in MUST_MATCH[1:]
        if (version := _here(name)) and name not in known and name not in local
    ]


def _normal(text: str) -> str:
    return canonicalize_name(_name(text))


def _name(text: str) -> str:
    try:
        return Requirement(bare(text)).name
    except InvalidRequirement:
        return text
