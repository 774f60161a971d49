"""Resolve an environment for every platform: build missing wheels where they are portable, report the others."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution, distribution
from pathlib import Path

from packaging.utils import canonicalize_name

from dask_starburst.environment.capture import wheels
from dask_starburst.environment.capture.model import Environment, LocalWheel
from dask_starburst.environment.capture.pins import pins_of
from dask_starburst.environment.resolve.lock import Lock, foreign, key, resolve
from dask_starburst.environment.tools import uv
from dask_starburst.errors import ImageError, NoWheels
from dask_starburst.paths import write_atomic
from dask_starburst.plan.images.recipe import PLATFORMS

_NO_WHEEL = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*?)(?:[=<>!~]=?\S+(?:, ?[=<>!~]=?\S+)*)? ha(?:s|ve) no"
    r" (?:usable wheels|wheels with)"
)
_DEPENDS = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]*?)(?:[=<>!~]=?\S+)? depends on ")
#: Each round handles the packages that uv names; more rounds than this mean that uv's output was misread.
_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Missing:
    """A package that cannot be installed on a platform, and why."""

    name: str
    version: str | None
    why: str

    def __str__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"{self.name}{version} ({self.why})"


@dataclass(frozen=True, slots=True)
class ResolvedPlatforms:
    """An environment with a lock for each platform.

    Parameters
    ----------
    environment : Environment
        With local wheels in place of packages that the index has as source only.
    locks : mapping of str to Lock
        By platform; only those without missing packages.
    missing : mapping of str to tuple of Missing
        By platform, for the others.
    """

    environment: Environment
    locks: Mapping[str, Lock]
    missing: Mapping[str, tuple[Missing, ...]]


def resolve_platforms(environment: Environment, platforms: Iterable[str], cache: Path) -> ResolvedPlatforms:
    """Resolve an environment for each platform.

    A package that has only a source distribution is built here; its wheel is used if it is pure Python.

    Parameters
    ----------
    environment : Environment
        The environment to resolve.
    platforms : iterable of str
        Such as ``"linux/arm64"``.
    cache : Path
        The folder of cached locks and wheels.

    Raises
    ------
    ImageError
        Versions conflict, or no index is available.
    """
    note = cache / "sources" / f"{key(environment, 'any')}.json"
    resolved = _as_before(environment, note)
    missing = {}
    for platform in platforms:
        resolved, missing[platform] = _resolve_one(resolved, platform, cache)
    added = [asdict(wheel) for wheel in resolved.wheels if wheel not in environment.wheels]
    if added:
        write_atomic(note, json.dumps(added, default=str).encode())
    # Wheels that were built for the second platform are used on the first one too.
    locks = {p: resolve(resolved, p, cache) for p in platforms if not missing[p]}
    return ResolvedPlatforms(resolved, locks, {platform: found for platform, found in missing.items() if found})


def from_source(resolved: ResolvedPlatforms, cache: Path) -> ResolvedPlatforms:
    """Resolve again with source distributions, which the buildx builder compiles in the image.

    Raises
    ------
    ImageError
        A package has no source distribution either.
    """
    # The image has no source of a local package that was compiled here.
    lost = {p: lacking for p, lacking in resolved.missing.items() if foreign(resolved.environment, p)}
    made = {p: resolve(resolved.environment, p, cache, source=True) for p in resolved.missing if p not in lost}
    return ResolvedPlatforms(resolved.environment, {**resolved.locks, **made}, lost)


def explain(missing: Iterable[Missing], platform: str, origin: str) -> str:
    """Describe which packages are missing, and what the user can do.

    Parameters
    ----------
    missing : iterable of Missing
        At least one.
    platform : str
        The platform.
    origin : str
        The source of the environment.
    """
    named = ", ".join(map(str, missing))
    other = next(arch for arch, each in PLATFORMS.items() if each != platform)
    return (
        f"{origin or 'the environment'} has packages that cannot be installed on {platform}: {named}. Give"
        f' arch="{other}" if they have wheels for it, leave them out with build={{"exclude": […]}} if neither'
        " workers nor other packages need them, or build them from source under emulation with"
        ' build={"builder": "buildx"}.'
    )


def _as_before(environment: Environment, note: Path) -> Environment:
    try:
        facts = json.loads(note.read_text(encoding="utf-8"))
        kept = [LocalWheel(**each | {"path": Path(each["path"])}) for each in facts]
    except (OSError, ValueError, TypeError):
        return environment
    if all(wheel.path.exists() for wheel in kept):
        for wheel in kept:
            environment = with_wheel(environment, wheel)
    return environment


def _resolve_one(environment: Environment, platform: str, cache: Path) -> tuple[Environment, tuple[Missing, ...]]:
    why = f"compiled on this computer, for {uv.own_platform()}"
    missing = {wheel.name: Missing(wheel.name, wheel.version, why) for wheel in foreign(environment, platform)}
    for _ in range(_ROUNDS):
        try:
            portable = tuple(wheel for wheel in environment.wheels if wheel.name not in missing)
            resolve(replace(environment, wheels=portable), platform, cache, without=tuple(missing))
        except NoWheels as error:
            names = _named(str(error), environment, missing)
            if not names:
                raise ImageError(str(error)) from error
            for name in names:
                wheel = _made(environment, name, cache)
                if isinstance(wheel, Missing):
                    missing[name] = wheel
                else:
                    environment = with_wheel(environment, wheel)
        else:
            return environment, tuple(missing.values())
    raise ImageError(
        f"resolving for {platform} did not finish in {_ROUNDS} rounds; missing so far:"
        f" {', '.join(map(str, missing.values()))}"
    )


def _named(text: str, environment: Environment, known: Mapping[str, Missing]) -> list[str]:
    # A package whose dependencies uv names has wheels: only an old version, which is not requested, has none.
    fine = {wheel.name for wheel in environment.wheels} | {canonicalize_name(name) for name in _DEPENDS.findall(text)}
    found = dict.fromkeys(canonicalize_name(match["name"]) for match in _NO_WHEEL.finditer(text))
    return [name for name in found if name not in known and name not in fine]


def with_wheel(environment: Environment, wheel: LocalWheel) -> Environment:
    """Return an environment that installs a package from a local wheel."""
    rest = [
        text
        for text in environment.requirements
        if canonicalize_name(re.split(r"[^A-Za-z0-9._-]", text)[0]) != wheel.name
    ]
    pins = [text for text in environment.constraints if canonicalize_name(text.partition("==")[0]) != wheel.name]
    found = tuple(sorted((*environment.wheels, wheel), key=lambda each: each.name))
    return replace(environment, requirements=tuple(rest), constraints=tuple(pins), wheels=found)


def _made(environment: Environment, name: str, cache: Path) -> LocalWheel | Missing:
    """Make a wheel of a package that has only a source distribution: from its installed files, or by a build."""
    version = pins_of(environment).get(name)
    here = _installed(name)
    if here is not None and version in (None, here.version):
        made = wheels.of_installed(here, cache, "built from source")
    else:
        with tempfile.TemporaryDirectory() as folder:
            requirement = f"{name}=={version}" if version else name
            options = ["--target", folder, "--no-deps", "--no-binary", name, "--python-version", environment.python]
            done = uv.run(["pip", "install", "--quiet", *options, requirement])
            infos = list(Path(folder).glob("*.dist-info"))
            if done.returncode != 0 or not infos:
                return Missing(name, version, "no wheel, and no source that could be built here")
            made = wheels.of_installed(PathDistribution(infos[0]), cache, "built from source")
    # A wheel compiled here links to this computer's libraries, which the image may not have.
    return made if made.pure else Missing(name, version, "no wheel for it, and its source has parts to compile")


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
