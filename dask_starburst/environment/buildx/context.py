"""Write docker's build context: the Dockerfile, local wheels and modules, and secrets."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from hashlib import file_digest, sha256
from importlib.resources import files
from pathlib import Path

from dask_starburst.environment.build.interface import Order
from dask_starburst.environment.resolve.lock import UV_PLATFORMS
from dask_starburst.environment.tools import uv
from dask_starburst.errors import BadArgument, ImageError
from dask_starburst.settings.names import DEBIAN_PACKAGE

#: The first stage without a user's Dockerfile.
_OURS = "ARG BASE\nFROM ${BASE} AS starburst-base\n"
_FROM = re.compile(r"^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*\S+(?:[ \t]+AS[ \t]+(?P<name>\S+))?[ \t]*$", re.I | re.M)
#: Instructions that read files of the build context.
_COPIES = re.compile(r"^[ \t]*(?:COPY|ADD)\b|--mount=\S*\btype=bind\b", re.I | re.M)
_APT = (
    "USER 0:0\n"
    "RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends {names}"
    " && rm -rf /var/lib/apt/lists/*\n"
)
#: Environment variables for uv: the user's indexes and proxies.
_FOR_UV = re.compile(
    r"UV_(DEFAULT_INDEX|INDEX|INDEX_\w+|EXTRA_INDEX_URL|FIND_LINKS|INSECURE_HOST)|(HTTPS?|ALL|NO)_PROXY", re.I
)
_CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_NOT_SHIPPED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def dockerfile(user: str | None, apt: Sequence[str]) -> str:
    """Return the Dockerfile of a worker image.

    Parameters
    ----------
    user : str, optional
        The text of the user's Dockerfile, whose last stage becomes the base.
    apt : sequence of str
        Debian packages to install.

    Raises
    ------
    BadArgument
        The user's Dockerfile has no stage, or the name of a Debian package is invalid.
    """
    wrong = [name for name in apt if not DEBIAN_PACKAGE.fullmatch(name)]
    if wrong:
        raise BadArgument(f"build.apt={wrong[0]!r} is not a valid Debian package name; an example is 'libgeos-c1v5'.")
    before = _OURS if user is None else _continued(user)
    packages = _APT.format(names=" ".join(sorted(apt))) if apt else ""
    return (
        before + packages + files("dask_starburst.environment.buildx").joinpath("worker.Dockerfile").read_text("utf-8")
    )


def _continued(text: str) -> str:
    """Return the user's Dockerfile with its last stage named ``starburst-base``."""
    stages = list(_FROM.finditer(text))
    if not stages:
        raise BadArgument("the Dockerfile has no FROM; begin it with: ARG BASE, and on the next line: FROM ${BASE}")
    last = stages[-1]
    name = last["name"] or "starburst-user"
    if not last["name"]:
        text = f"{text[: last.end()].rstrip()} AS {name}{text[last.end() :]}"
    return f"{text.rstrip()}\n\nFROM {name} AS starburst-base\n"


def write_context(folder: Path, order: Order, text: str, cache: Path) -> None:
    """Write the context ``starburst`` of `worker.Dockerfile`.

    Parameters
    ----------
    folder : Path
        The folder to write to.
    order : Order
        The build order.
    text : str
        The Dockerfile.
    cache : Path
        Cache folder with uv for the image's platforms.
    """
    (folder / "Dockerfile").write_text(text, encoding="utf-8")
    source = files("dask_starburst.environment.buildx").joinpath("assemble.py")
    (folder / "assemble.py").write_bytes(source.read_bytes())
    for platform in order.recipe.platforms:
        own = folder / platform.partition("/")[2]
        own.mkdir()
        shutil.copy2(uv_for(platform, cache), own / "uv")
        (own / "lock.txt").write_text(order.locks[platform].text, encoding="utf-8")
    _write_own(folder / "own", order)


def _write_own(folder: Path, order: Order) -> None:
    for name in ("wheels", "modules"):
        (folder / name).mkdir(parents=True)
    for wheel in order.environment.wheels:
        shutil.copyfile(wheel.path, folder / "wheels" / wheel.path.name)
    for module in order.environment.modules:
        to = folder / "modules" / module.path.name
        if module.path.is_dir():
            shutil.copytree(module.path, to, ignore=_NOT_SHIPPED)
        else:
            shutil.copyfile(module.path, to)


def uv_for(platform: str, cache: Path) -> Path:
    """Return the uv program for the image, of the local version, fetched on first use."""
    folder = cache / "uv" / f"{uv.version()}-{platform.replace('/', '-')}"
    if not (folder / "bin/uv").exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        options = ["--python-platform", UV_PLATFORMS[platform], "--no-deps", "--only-binary", ":all:"]
        done = uv.run(["pip", "install", "--quiet", "--target", str(partial), *options, f"uv=={uv.version()}"])
        if done.returncode:
            raise ImageError(f"uv for {platform} could not be installed; uv says:\n{uv.words(done)}")
        _into_place(partial, folder)
    return folder / "bin/uv"


def _into_place(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(partial, ignore_errors=True)


def write_secrets(folder: Path, environment: Mapping[str, str], requirements: Sequence[str] = ()) -> list[str]:
    """Write the secrets for uv in the image; return docker's arguments that mount them.

    Mounted secrets are neither in a layer nor in a cache key, and only their file names are on the command line.

    Parameters
    ----------
    folder : Path
        A private folder to write to.
    environment : mapping
        The environment variables of this process, and those for pip's settings.
    requirements : sequence of str
        The user's requirements, which may include index options.
    """
    chosen = {name: value for name, value in environment.items() if _FOR_UV.fullmatch(name)}
    found = {name: _away(value) if name.startswith("UV_") else value for name, value in chosen.items()}
    found = {name: value for name, value in found.items() if value}
    index = folder / "index.json"
    index.touch(0o600)
    index.write_text(json.dumps(found), encoding="utf-8")
    words = ["--secret", f"id=starburst-index,src={index}"]
    lines = [line for line in requirements if line.startswith("-") and _away(line.split()[-1].rpartition("=")[2])]
    if lines:
        sources = folder / "sources.txt"
        sources.touch(0o600)
        sources.write_text("\n".join(lines), encoding="utf-8")
        words += ["--secret", f"id=starburst-sources,src={sources}"]
    bundles = (environment.get(name, "") for name in _CERTIFICATES)
    authorities = next((path for path in bundles if Path(path).is_file()), None)
    if authorities:
        words += ["--secret", f"id=starburst-authorities,src={authorities}"]
    return words


def _away(value: str) -> str:
    """Return URLs without local paths, which a container cannot access."""
    separator = "," if "," in value else " "
    words = filter(None, value.split(separator))
    return separator.join(w for w in words if not w.rpartition("=")[2].startswith(("file:", "/", ".", "~")))


def digest(user: str, folder: Path) -> str:
    """Return a hash of the files that a Dockerfile can copy: their names, contents and modes.

    ``.git`` and ``__pycache__`` are excluded. Without a copying instruction, no file is included.

    Parameters
    ----------
    user : str
        The Dockerfile's text.
    folder : Path
        Its folder.
    """
    hashed = sha256()
    for path in sorted(folder.rglob("*")) if _COPIES.search(user) else ():
        name = path.relative_to(folder)
        if path.is_file() and not {".git", "__pycache__"}.intersection(name.parts):
            with path.open("rb") as file:
                content = file_digest(file, "sha256").hexdigest()
            hashed.update(f"{name.as_posix()}\0{os.access(path, os.X_OK)}\0{content}\0".encode())
    return hashed.hexdigest()
