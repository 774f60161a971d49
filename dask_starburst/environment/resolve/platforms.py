"""Packages that have no wheel for a platform: made one where that is possible anywhere, named where it is not."""

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
#: A package is looked at once for each platform; more rounds than this mean that uv does not say what we think.
_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Missing:
    """A package that cannot be had for a platform, and why."""

    name: str
    version: str | None
    why: str

    def __str__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"{self.name}{version} ({self.why})"


@dataclass(frozen=True, slots=True)
class Settled:
    """An environment of which every platform knows what to install.

    Parameters
    ----------
    environment : Environment
        With wheels in place of the packages of which the index has only sources.
    locks : mapping of str to Lock
        By platform; only of those on which nothing is missing.
    missing : mapping of str to tuple of Missing
        By platform, of the others.
    """

    environment: Environment
    locks: Mapping[str, Lock]
    missing: Mapping[str, tuple[Missing, ...]]


def settle(environment: Environment, platforms: Iterable[str], cache: Path) -> Settled:
    """Find out what is installed on each platform.

    A package that is there as source only is built here; what comes out is used if it runs everywhere.

    Parameters
    ----------
    environment : Environment
        What is asked for.
    platforms : iterable of str
        Such as ``"linux/arm64"``.
    cache : Path
        Where answers and wheels are kept: the second time costs nothing.

    Raises
    ------
    ImageError
        The packages exclude each other, or no index answers.
    """
    note = cache / "sources" / f"{key(environment, 'any')}.json"
    settled = _as_before(environment, note)
    missing = {}
    for platform in platforms:
        settled, missing[platform] = _settle_one(settled, platform, cache)
    added = [asdict(wheel) for wheel in settled.wheels if wheel not in environment.wheels]
    if added:
        write_atomic(note, json.dumps(added, default=str).encode())
    # Wheels that were made for the second platform are the first one's too.
    locks = {p: resolve(settled, p, cache) for p in platforms if not missing[p]}
    return Settled(settled, locks, {platform: found for platform, found in missing.items() if found})


def from_source(settled: Settled, cache: Path) -> Settled:
    """Return what is installed when packages without a wheel are compiled in the image, as the buildx builder does.

    Raises
    ------
    ImageError
        There is no source either.
    """
    # Of a local package that was compiled here, the image has no source.
    lost = {p: lacking for p, lacking in settled.missing.items() if foreign(settled.environment, p)}
    made = {p: resolve(settled.environment, p, cache, source=True) for p in settled.missing if p not in lost}
    return Settled(settled.environment, {**settled.locks, **made}, lost)


def explain(missing: Iterable[Missing], platform: str, origin: str) -> str:
    """Say which packages are missing, and the ways out.

    Parameters
    ----------
    missing : iterable of Missing
        At least one.
    platform : str
        For which they are missing.
    origin : str
        Where the environment comes from.
    """
    named = ", ".join(map(str, missing))
    other = next(arch for arch, each in PLATFORMS.items() if each != platform)
    return (
        f"{origin or 'the environment'} has packages that cannot be installed on {platform}: {named}. Give"
        f' arch="{other}" if they have wheels for it, leave them out with build={{"exclude": […]}} if neither'
        " workers nor other packages need them, or have them built from source under emulation with"
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


def _settle_one(environment: Environment, platform: str, cache: Path) -> tuple[Environment, tuple[Missing, ...]]:
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
    raise ImageError(f"no end was found to what {platform} lacks; so far: {', '.join(map(str, missing.values()))}")


def _named(text: str, environment: Environment, known: Mapping[str, Missing]) -> list[str]:
    # One of which uv says what it depends on has wheels: only some old version, which nobody wants, has none.
    fine = {wheel.name for wheel in environment.wheels} | {canonicalize_name(name) for name in _DEPENDS.findall(text)}
    found = dict.fromkeys(canonicalize_name(match["name"]) for match in _NO_WHEEL.finditer(text))
    return [name for name in found if name not in known and name not in fine]


def with_wheel(environment: Environment, wheel: LocalWheel) -> Environment:
    """Return an environment that takes a package from a wheel of this computer."""
    rest = [
        text
        for text in environment.requirements
        if canonicalize_name(re.split(r"[^A-Za-z0-9._-]", text)[0]) != wheel.name
    ]
    pins = [text for text in environment.constraints if canonicalize_name(text.partition("==")[0]) != wheel.name]
    found = tuple(sorted((*environment.wheels, wheel), key=lambda each: each.name))
    return replace(environment, requirements=tuple(rest), constraints=tuple(pins), wheels=found)


def _made(environment: Environment, name: str, cache: Path) -> LocalWheel | Missing:
    """Make a wheel of a package that the index has the source of: of the installed files, or by building it."""
    version = pins_of(environment).get(name)
    here = _installed(name)
    if here is not None and version in (None, here.version):
        made = wheels.of_installed(here, cache, "built from source")
    else:
        with tempfile.TemporaryDirectory() as folder:
            wanted = f"{name}=={version}" if version else name
            options = ["--target", folder, "--no-deps", "--no-binary", name, "--python-version", environment.python]
            done = uv.run(["pip", "install", "--quiet", *options, wanted])
            infos = list(Path(folder).glob("*.dist-info"))
            if done.returncode != 0 or not infos:
                return Missing(name, version, "no wheel, and no source that could be built here")
            made = wheels.of_installed(PathDistribution(infos[0]), cache, "built from source")
    # What was compiled here wants this computer's libraries, which the image may not have.
    return made if made.pure else Missing(name, version, "no wheel for it, and its source has parts to compile")


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None
