"""Packages that a user names by where they are, in a file or in ``build.add``: folders, archives, what is in git."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

from dask_starburst.environment.capture import wheels
from dask_starburst.environment.capture.model import LocalWheel
from dask_starburst.environment.capture.requirements import Requirements, parse
from dask_starburst.environment.tools import uv
from dask_starburst.errors import BadArgument, ImageError


@dataclass(frozen=True, slots=True)
class Additions:
    """What ``build.add`` comes to: requirements for an index, and wheels of what no index has."""

    requirements: tuple[str, ...]
    wheels: tuple[LocalWheel, ...]

    @property
    def names(self) -> set[str]:
        """The packages of the wheels: they take the place of any others by these names."""
        return {wheel.name for wheel in self.wheels}


def additions(add: Iterable[str], cache: Path) -> Additions:
    """Return what to add. What is in git is looked up each time, for a branch moves; uv keeps what it has fetched.

    Parameters
    ----------
    add : iterable of str
        As pip takes them on its command line: ``"s3fs>=2026"``, ``"git+https://…@v2"``, ``"./folder[extra]"``.
    cache : Path
        Where wheels are kept.

    Raises
    ------
    BadArgument
        One is no requirement.
    ImageError
        No wheel can be made of one.
    """
    found = [_parsed(text) for text in add]
    local = [(built(what, Path.cwd(), cache), extras) for each in found for what, extras in each.local]
    asked = [f"{wheel.name}[{extras}]" for wheel, extras in local if extras]
    lines = [line for each in found for line in each.lines]
    return Additions((*lines, *asked), tuple(wheel for wheel, _ in local))


def built(what: str, folder: Path, cache: Path) -> LocalWheel:
    """Return the wheel of a folder, a wheel file, an archive or something in git.

    Parameters
    ----------
    what : str
        A path, or an address as pip takes it.
    folder : Path
        Where a path begins.
    cache : Path
        Where wheels are kept.

    Raises
    ------
    ImageError
        It cannot be had or built; uv's words say why.
    """
    place = (folder / what.removeprefix("file://")).resolve()
    if place.is_dir():
        return wheels.of_folder(place, cache, "local folder")
    if place.is_file() and place.suffix == ".whl":
        return wheels.of_file(place, cache, "local wheel")
    with tempfile.TemporaryDirectory() as name:
        asked, target = Path(name) / "requirements.txt", Path(name) / "target"
        asked.write_text(what, encoding="utf-8")  # it may hold a password, which others would see on a command line
        done = uv.run(["pip", "install", "--quiet", "--target", str(target), "--no-deps", "-r", str(asked)])
        infos, shown = list(target.glob("*.dist-info")), uv.without_secrets(what)
        if done.returncode != 0 or not infos:
            raise ImageError(f"no wheel can be made of {shown}; uv says:\n{uv.words(done)}")
        return wheels.of_installed(PathDistribution(infos[0]), cache, shown)


def _parsed(text: str) -> Requirements:
    shown = f"build.add={uv.without_secrets(text)!r}"
    if text.lstrip().startswith("-"):
        raise BadArgument(f"{shown} is an option, not a package; for that, give a requirements file as environment=.")
    try:
        return parse(Path.cwd() / "build.add", text)
    except BadArgument:
        raise BadArgument(
            f"{shown} is no requirement; give one such as 's3fs>=2026' or 'git+https://host/name.git@v2'."
        ) from None
