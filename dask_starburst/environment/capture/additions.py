"""Packages given by location, in a file or in ``build.add``: folders, archives and git URLs."""

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
    """The parsed ``build.add``: requirements for an index, and wheels of other packages."""

    requirements: tuple[str, ...]
    wheels: tuple[LocalWheel, ...]

    @property
    def names(self) -> set[str]:
        """Names of the wheels, which replace other packages of the same name."""
        return {wheel.name for wheel in self.wheels}


def additions(add: Iterable[str], cache: Path) -> Additions:
    """Return the packages to add. Git URLs are resolved each time, as a branch moves; uv caches downloads.

    Parameters
    ----------
    add : iterable of str
        Arguments as pip accepts them: ``"s3fs>=2026"``, ``"git+https://…@v2"``, ``"./folder[extra]"``.
    cache : Path
        Cache folder.

    Raises
    ------
    BadArgument
        A requirement is invalid.
    ImageError
        A package cannot be built.
    """
    found = [_parsed(text) for text in add]
    local = [(built(what, Path.cwd(), cache), extras) for each in found for what, extras in each.local]
    extras_of = [f"{wheel.name}[{extras}]" for wheel, extras in local if extras]
    lines = [line for each in found for line in each.lines]
    return Additions((*lines, *extras_of), tuple(wheel for wheel, _ in local))


def built(what: str, folder: Path, cache: Path) -> LocalWheel:
    """Return the wheel of a folder, a wheel file, an archive or a git URL.

    Parameters
    ----------
    what : str
        A path, or a URL as pip accepts it.
    folder : Path
        The folder that relative paths start from.
    cache : Path
        Cache folder.

    Raises
    ------
    ImageError
        It cannot be fetched or built; the message contains uv's output.
    """
    place = (folder / what.removeprefix("file://")).resolve()
    if place.is_dir():
        return wheels.of_folder(place, cache, "local folder")
    if place.is_file() and place.suffix == ".whl":
        return wheels.of_file(place, cache, "local wheel")
    with tempfile.TemporaryDirectory() as name:
        requirement, target = Path(name) / "requirements.txt", Path(name) / "target"
        requirement.write_text(what, encoding="utf-8")  # not an argument: it may contain a password
        done = uv.run(["pip", "install", "--quiet", "--target", str(target), "--no-deps", "-r", str(requirement)])
        infos, shown = list(target.glob("*.dist-info")), uv.without_secrets(what)
        if done.returncode != 0 or not infos:
            raise ImageError(f"building a wheel of {shown} failed; uv says:\n{uv.words(done)}")
        return wheels.of_installed(PathDistribution(infos[0]), cache, shown)


def _parsed(text: str) -> Requirements:
    shown = f"build.add={uv.without_secrets(text)!r}"
    if text.lstrip().startswith("-"):
        raise BadArgument(f"{shown} is an option, not a package; for that, give a requirements file as environment=.")
    try:
        return parse(Path.cwd() / "build.add", text)
    except BadArgument:
        raise BadArgument(
            f"{shown} is not a valid requirement; give one such as 's3fs>=2026' or 'git+https://host/name.git@v2'."
        ) from None
