"""Resolve and install packages for a platform, with uv."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from packaging.utils import canonicalize_name

from dask_starburst.environment.capture.model import Environment, LocalWheel
from dask_starburst.environment.capture.pins import PINNED
from dask_starburst.environment.tools import uv
from dask_starburst.errors import ImageError, NoWheels
from dask_starburst.paths import write_atomic

#: uv's names of the platforms: every wheel for the glibc of Amazon Linux 2 (2.26) and later bases is for 2.28 or less.
UV_PLATFORMS = {"linux/arm64": "aarch64-manylinux_2_28", "linux/amd64": "x86_64-manylinux_2_28"}
#: Increment when this module calls uv differently: cached locks are then invalid.
_CACHE_VERSION = 3


@dataclass(frozen=True, slots=True)
class Lock:
    """The packages installed on one platform.

    Parameters
    ----------
    platform : str
        In OCI's notation: ``"linux/arm64"``.
    text : str
        Requirements with hashes, as pip and uv read them; without local wheels.
    packages : tuple of tuple of str
        Name and version of each package, sorted; local wheels included.
    """

    platform: str
    text: str
    packages: tuple[tuple[str, str], ...]


def resolve(
    environment: Environment, platform: str, cache: Path, without: tuple[str, ...] = (), *, source: bool = False
) -> Lock:
    """Resolve an environment for a platform; a cached result needs no network access.

    Parameters
    ----------
    environment : Environment
        The environment to resolve.
    platform : str
        ``"linux/arm64"`` or ``"linux/amd64"``.
    cache : Path
        The folder of cached locks.
    without : tuple of str
        Packages to leave out even if others require them.
    source : bool
        Whether to accept source distributions, which the buildx builder compiles in the image.

    Raises
    ------
    NoWheels
        Packages have no wheel for the platform; `resolve_platforms` finds out which ones.
    ImageError
        uv found no solution: conflicting versions, or an unavailable index.
    """
    note = cache / "locks" / f"{key(environment, platform, without, source=source)}.json"
    if note.exists():
        facts = json.loads(note.read_text(encoding="utf-8"))
        return Lock(facts["platform"], facts["text"], tuple((name, version) for name, version in facts["packages"]))
    _refuse_foreign(environment, platform)
    text = compiled(environment, platform, without, source=source)
    local = {wheel.name for wheel in environment.wheels}
    found = [(canonicalize_name(name), version) for name, version in PINNED.findall(text)]
    packages = {*((n, v) for n, v in found if n not in local), *((w.name, w.version) for w in environment.wheels)}
    # Constraints have hashes where a package of the lock was excluded but is still required by others.
    hashed = "\n".join([environment.lock or "", *environment.constraints])
    text = _with_hashes_of(hashed, _without(text, local))
    lock = Lock(platform, text, tuple(sorted(packages)))
    write_atomic(note, json.dumps(asdict(lock)).encode())
    return lock


def compiled(environment: Environment, platform: str, without: tuple[str, ...] = (), *, source: bool = False) -> str:
    """Return uv's output: requirements with hashes.

    Raises
    ------
    NoWheels, ImageError
        As `resolve` does.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requirements, pins = folder / "requirements.in", folder / "constraints.txt"
        wheels = [f"{wheel.name} @ {wheel.path.as_uri()}" for wheel in environment.wheels]
        if environment.lock is not None:
            requirements.write_text(environment.lock, encoding="utf-8")
            extra = folder / "wheels.in"
            extra.write_text("\n".join([*environment.requirements, *wheels]), encoding="utf-8")
            inputs = [requirements, extra]
        else:
            requirements.write_text("\n".join([*environment.requirements, *wheels]), encoding="utf-8")
            inputs = [requirements]
        pins.write_text("\n".join(environment.constraints), encoding="utf-8")
        arguments = ["pip", "compile", "--quiet", "--no-header", "--no-annotate", "--generate-hashes"]
        arguments += ["--python-version", environment.python, "--python-platform", UV_PLATFORMS[platform]]
        arguments += [] if source else ["--only-binary", ":all:"]
        arguments += ["--constraints", str(pins), *map(str, inputs)]
        if without:
            dropped = folder / "overrides.txt"
            dropped.write_text("\n".join(f"{name} ; python_version < '0'" for name in without), encoding="utf-8")
            arguments += ["--overrides", str(dropped)]
        done = uv.run(arguments)
    if done.returncode == 0:
        return done.stdout
    said = uv.words(done)
    where = f"{environment.origin or 'the environment'} cannot be installed on {platform}"
    if "no wheels" in said or "Wheels are " in said or "wheels with a matching" in said:
        raise NoWheels(f"{where}: {said}")
    raise ImageError(f"{where}; uv says:\n{said}")


def install(lock: Lock, environment: Environment, into: Path) -> None:
    """Install the packages of a lock into a folder, as `pip install --target` does; without builds or dependencies.

    Raises
    ------
    ImageError
        A file is missing from its index, or does not match the lock's hash.
    """
    names = dict(lock.packages)
    wheels = [str(w.path) for w in environment.wheels if names.get(w.name) == w.version]
    common = ["pip", "install", "--quiet", "--target", str(into), "--no-deps", "--link-mode", "copy"]
    common += ["--python-version", environment.python, "--python-platform", UV_PLATFORMS[lock.platform]]
    with tempfile.TemporaryDirectory() as name:
        pinned = Path(name) / "requirements.txt"
        if lock.text.strip():
            # Index options of the environment's own file still apply.
            sources = [text for text in environment.requirements if text.startswith("-")]
            pinned.write_text("\n".join([*sources, lock.text]), encoding="utf-8")
            _install([*common, "--require-hashes", "--only-binary", ":all:", "-r", str(pinned)], lock)
    if wheels:
        _install([*common, *wheels], lock)


def _install(arguments: list[str], lock: Lock) -> None:
    done = uv.run(arguments)
    if done.returncode != 0:
        raise ImageError(f"installing packages for {lock.platform} failed; uv says:\n{uv.words(done)}")


def foreign(environment: Environment, platform: str) -> tuple[LocalWheel, ...]:
    """Return the local wheels whose compiled parts cannot run on a platform."""
    return () if platform == uv.own_platform() else tuple(wheel for wheel in environment.wheels if not wheel.pure)


def _refuse_foreign(environment: Environment, platform: str) -> None:
    if found := [f"{wheel.name} ({wheel.origin})" for wheel in foreign(environment, platform)]:
        raise NoWheels(
            f"{', '.join(found)} has compiled parts that were built on this computer, for {uv.own_platform()}, and"
            f" cannot run on {platform}. Use the other architecture, or exclude the package if it is not needed."
        )


def _without(text: str, local: set[str]) -> str:
    """Return a lock without local wheels: `name @ file`, and the lines that continue it."""
    kept, skipping = [], False
    for line in text.splitlines(keepends=True):
        if line[:1].strip():
            head = re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", line)
            skipping = bool(head and canonicalize_name(head[0]) in local)
        if not skipping:
            kept.append(line)
    return "".join(kept)


def _with_hashes_of(lock: str, text: str) -> str:
    """Return requirements with the hashes of the user's lock, where it has any, in place of the index's.

    Installing then fails if the index has other files than those in the lock.
    """
    found = ((m[1], re.findall(r"--hash=(\S+)", m[0])) for m in re.finditer(rf"{PINNED.pattern}.*", lock, re.M))
    own = {canonicalize_name(name): hashes for name, hashes in found if hashes}
    pieces = re.split(r"^(?=\S)", text, flags=re.MULTILINE)
    for number, piece in enumerate(pieces):
        pinned = PINNED.match(piece)
        if pinned and (hashes := own.get(canonicalize_name(pinned[1]))):
            options = "".join(f" \\\n    --hash={each}" for each in hashes)
            pieces[number] = f"{pinned[0]}{options}\n"
    return "".join(pieces)


def key(environment: Environment, platform: str, without: tuple[str, ...] = (), *, source: bool = False) -> str:
    """Return the cache key of a lock: a hash of all inputs."""
    facts = {
        "platform": platform,
        "python": environment.python,
        "without": sorted(without),
        "source": source,
        "requirements": sorted(environment.requirements),
        "pins": sorted(environment.constraints),
        "lock": environment.lock,
        "wheels": sorted((w.name, w.version, w.digest) for w in environment.wheels),
        "uv": uv.version(),
        "cache version": _CACHE_VERSION,
        "indexes": uv.indexes_digest(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
