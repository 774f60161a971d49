"""pip's requirements files, as far as an image needs to know what is in them."""

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
#: What markers are about: the system of the workers, not that of this computer.
_WORKERS = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
#: Options that say where packages come from; uv reads them as pip does.
_INDEXES = ("--index-url", "-i", "--extra-index-url", "--find-links", "-f", "--no-index")
#: Options that change nothing about which packages these are.
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
    """What a file asks for.

    Attributes
    ----------
    lines : list of str
        Packages of an index, with their hashes if they have any.
    local : list of tuple of str
        Folders, archives, and what is in git; each with its extras, as they stand in brackets, or an empty text.
    constraints : list of str
        Versions that hold if the package is needed.
    options : list of str
        Where packages come from.
    """

    lines: list[str] = field(default_factory=list)
    local: list[tuple[str, str]] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)

    @property
    def hashed(self) -> bool:
        """Whether it is a lock: every package has a hash."""
        return bool(self.lines) and all("--hash=" in line for line in self.lines)


def parse(path: Path, text: str | None = None) -> Requirements:
    """Read a file and those that it names.

    Parameters
    ----------
    path : Path
        The file. What it names is looked for from there.
    text : str, optional
        What to read in place of what is in the file.

    Raises
    ------
    BadArgument
        A file is missing, or a line is none that pip reads.
    """
    found = Requirements()
    _read(path, found, set(), text)
    return found


def bare(line: str) -> str:
    """Return a line without its hashes."""
    return _HASH.sub("", line).strip()


def split(lock: str, names: set[str]) -> tuple[str, list[str]]:
    """Return a lock without some packages, and their lines, hashes and all.

    Parameters
    ----------
    lock : str
        Its text.
    names : set of str
        In their normal form.
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
            raise BadArgument(f"{path} has the line {without_secrets(line)!r}, which is not understood; take it out.")
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
        said = without_secrets(line)
        raise BadArgument(f"{path} has the line {said!r}, which is no requirement; mend it.") from None
    if requirement.url is None:
        found.lines.append(line)
    elif requirement.marker is None or requirement.marker.evaluate(_WORKERS):
        found.local.append((_place(requirement.url, path)[0], ",".join(sorted(requirement.extras))))


def _place(value: str, path: Path) -> tuple[str, str]:
    """Return a folder or file of this computer by its whole path, and anything else as it is; and the extras."""
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
