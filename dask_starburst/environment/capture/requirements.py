"""Parse pip's requirements files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from dask_starburst.environment.tools.uv import without_secrets
from dask_starburst.errors import BadArgument

_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"\s--hash=\S+")
_NAME = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_EXTRAS = re.compile(r"^(?P<place>[^\[]+)\[(?P<extras>[^\]]*)\]$")
#: Marker values of the workers' system, not of this computer's.
_WORKERS = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
#: Index options; uv reads them as pip does.
_INDEXES = ("--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--no-index")
#: Options that do not change the set of packages.
_IGNORED = (
    "--require-hashes",
    "--prefer-binary",
    "--pre",
    "--no-binary",
    "--only-binary",
    "--use-pep517",
    "--trusted-host",
)


@dataclass
class Requirements:
    """The contents of a requirements file.

    Attributes
    ----------
    lines : list of str
        Packages of an index, with hashes if given.
    local : list of tuple of str
        Folders, archives and git URLs, each with its extras, or an empty string.
    constraints : list of str
        Version constraints.
    options : list of str
        Index options.
    """

    lines: list[str] = field(default_factory=list)
    local: list[tuple[str, str]] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    @property
    def hashed(self) -> bool:
        """Whether the file is a lock: every package has a hash."""
        return bool(self.lines) and all("--hash=" in line for line in self.lines)


def parse(path: Path, text: str | None = None) -> Requirements:
    """Read a file and the files that it includes.

    Parameters
    ----------
    path : Path
        The file. Relative paths in it start at its folder.
    text : str, optional
        Content to parse instead of the file's.

    Raises
    ------
    BadArgument
        A file is missing, or a line is invalid.
    """
    found = Requirements()
    _read(path, found, set(), text)
    return found


def bare(line: str) -> str:
    """Return a line without its hashes."""
    return _HASH.sub("", line).strip()


def split(lock: str, names: set[str]) -> tuple[str, list[str]]:
    """Return a lock without some packages, and the removed lines with their hashes.

    Parameters
    ----------
    lock : str
        Its text.
    names : set of str
        Normalized names.
    """
    kept: list[str] = []
    dropped: list[str] = []
    for line in lock.replace("\\\n", " ").splitlines():
        found = _NAME.match(line)
        (dropped if found and canonicalize_name(found[1]) in names else kept).append(line)
    return ("\n".join(kept), [re.sub(r"\s+", " ", line).strip() for line in dropped]) if dropped else (lock, [])


def _read(path: Path, found: Requirements, seen: set[Path], text: str | None = None) -> None:
    if path.resolve() in seen:
        return
    seen.add(path.resolve())
    for line in _lines(path, text):
        option, _, value = line.replace("=", " ", 1).partition(" ") if line.startswith("--") else line.partition(" ")
        value = value.strip()
        if option in ("-r", "--requirement"):
            _read(path.parent / value, found, seen)
        elif option in ("-c", "--constraint"):
            found.constraints += [_HASH.sub("", each) for each in _lines(path.parent / value)]
        elif option in ("-e", "--editable"):
            found.local.append(_place(value, path))
        elif option in _INDEXES:
            found.options.append(line)
        elif option in _IGNORED:
            continue
        elif line.startswith("-"):
            raise BadArgument(f"{path} has the line {without_secrets(line)!r}, which is not supported; remove it.")
        else:
            _package(line, path, found)


def _package(line: str, path: Path, found: Requirements) -> None:
    text = bare(line)
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        if "/" in text or text.startswith("."):
            found.local.append(_place(text, path))
            return
        shown = without_secrets(line)
        raise BadArgument(f"{path} has the line {shown!r}, which is not a valid requirement; correct it.") from None
    if requirement.url is None:
        found.lines.append(line)
    elif requirement.marker is None or requirement.marker.evaluate(_WORKERS):
        found.local.append((_place(requirement.url, path)[0], ",".join(sorted(requirement.extras))))


def _place(value: str, path: Path) -> tuple[str, str]:
    """Return the absolute path of a local folder or file, or the value unchanged; and the extras."""
    place, extras = value, ""
    if both := _EXTRAS.match(value):
        place, extras = both["place"], both["extras"]
    here = path.parent / place.removeprefix("file://")
    return (str(here.resolve()) if here.exists() else place), extras


def _lines(path: Path, text: str | None = None) -> Iterator[str]:
    try:
        text = path.read_text(encoding="utf-8") if text is None else text
    except (OSError, UnicodeDecodeError) as error:
        raise BadArgument(f"{path} cannot be read: {error}.") from None
    for line in text.replace("\\\n", " ").splitlines():
        stripped = re.sub(r"\s+", " ", _COMMENT.sub("", line)).strip()
        if stripped:
            yield stripped
