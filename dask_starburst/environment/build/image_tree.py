"""The files of an image, read out of its layers as a container engine would lay them one over the other.

Nothing is unpacked: of a link, a device or a whiteout only the name counts, and no name is followed. An image may come
from anybody, so names, sizes and numbers are bounded.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.build.tar import BROKEN, opened
from dask_starburst.errors import ImageError

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
#: What a layer may unpack to: this many times its size, and this many bytes in any case. Real ones are at about 3.
_MOST_RATIO, _MOST_UNPACKED = 50, 1 << 30
#: Bytes of one file, and of all files, whose contents are kept in memory: Python's standard library has 20 MB.
_MOST_FILE, _MOST_CONTENTS = 16 << 20, 256 << 20
#: Names that are kept in memory; large images have 200,000 files.
_MOST_NAMES = 2_000_000
#: Bytes of a header that says more of the next member, which tarfile reads into memory whole.
_MOST_HEADER = 1 << 20
#: Bytes of a path and of a name in it (Linux, limits.h).
_MOST_PATH, _MOST_NAME = 4096, 255
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True, slots=True)
class Tree:
    """What files there are, without the slash in front, and what is in those that were asked for."""

    names: set[str] = field(default_factory=set)
    contents: dict[str, bytes] = field(default_factory=dict)


def read_tree(layers: Iterable[tuple[Path, str]], wanted: Callable[[str], bool], image: str = "the image") -> Tree:
    """Return the files that layers add up to.

    Parameters
    ----------
    layers : iterable of tuple of Path and str
        The files that the layers are in and their media types, from the lowest to the topmost.
    wanted : callable
        Whether the contents of a file matter, by its path.
    image : str
        What the image is called, for errors.

    Raises
    ------
    ImageError
        A layer cannot be read, is larger than any real one, or has a name that leads out of the image.
    """
    tree = Tree()
    for path, media_type in layers:
        try:
            over, hidden = _read(path, media_type, wanted)
        except BROKEN as error:
            raise ImageError(f"a layer of {image} cannot be read ({error}); use another image.") from error
        except _HostileError as error:
            raise ImageError(f"a layer of {image} {error}; it is not used. Name another image.") from None
        _hide(tree, hidden)
        for name in over.names:
            tree.contents.pop(name, None)
        tree.names.update(over.names)
        tree.contents.update(over.contents)
        _check_sums(tree, image)
    return tree


def _check_sums(tree: Tree, image: str) -> None:
    try:
        _check_number(len(tree.names), sum(map(len, tree.contents.values())))
    except _HostileError as error:
        raise ImageError(f"{image} {error}; it is not used. Name another image.") from None


def write_files(contents: Mapping[str, bytes], folder: Path) -> None:
    """Write files of an image below an empty folder, which nothing gets out of.

    Raises
    ------
    ImageError
        Two names cannot be there together: one is a file, and a folder of the other.
    """
    for name, data in contents.items():
        path = folder / checked_name(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise ImageError(
                f"the base image has {name!r} both as a file and as a folder; name another one."
            ) from error


def checked_name(name: str) -> str:
    """Return the name of a member without the slash in front.

    Raises
    ------
    ImageError
        It leads out of the image, or is none that a file can have.
    """
    try:
        return _checked(name)
    except _HostileError as error:
        raise ImageError(f"the image {error}; name another one.") from None


class _HostileError(Exception):
    """What no layer of a real image has; the message goes on from "the image"."""


class _Header(tarfile.TarInfo):
    """A member's header; one that would fill the memory is refused before what belongs to it is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Read it out of a block."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENDED and found.size > _MOST_HEADER:
            raise _HostileError(f"has a header of {found.size} bytes")
        return found


class _Bounded:
    """A layer as it is unpacked, up to the number of bytes that it may have."""

    def __init__(self, path: Path, media_type: str) -> None:
        self._most = self._left = _MOST_UNPACKED + _MOST_RATIO * path.stat().st_size
        self._opened = opened(path, media_type)

    def __enter__(self) -> None:
        self._file = self._opened.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _HostileError(f"unpacks to more than {self._most >> 20} MiB, as a decompression bomb does")
        return data


def _read(path: Path, media_type: str, wanted: Callable[[str], bool]) -> tuple[Tree, set[str]]:
    """Return what a layer adds and what it hides of those below: paths, and folders' paths with a slash behind."""
    tree, hidden, kept = Tree(), set(), 0
    bounded: Any = _Bounded(path, media_type)
    with bounded, tarfile.open(fileobj=bounded, mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            cancellation.check()
            archive.members.clear()  # type: ignore[attr-defined]  # not in its stubs; it would keep them all
            name = _checked(member.name)
            folder, _, last = name.rpartition("/")
            if last == _OPAQUE:
                hidden.add(f"{folder}/")
            elif last.startswith(_WHITEOUT):
                hidden.add(f"{folder}/{_checked(last.removeprefix(_WHITEOUT))}".lstrip("/"))
            elif not member.isdir():
                tree.names.add(name)
                if wanted(name):
                    kept += member.size
                    tree.contents[name] = _content(archive, member, tree, kept)
            _check_number(len(tree.names) + len(hidden), kept)
    return tree, hidden


def _check_number(names: int, size: int) -> None:
    if names > _MOST_NAMES:
        raise _HostileError(f"has more than {_MOST_NAMES} files")
    if size > _MOST_CONTENTS:
        raise _HostileError(f"has Python files of more than {_MOST_CONTENTS >> 20} MiB")


def _checked(name: str) -> str:
    """Return a name without what goes without saying, if it is one that a file below a folder can have.

    A line feed matters too: lists of files that are handed to other programs have one name a line.
    """
    short = "/".join(part for part in name.split("/") if part not in ("", "."))
    parts = short.split("/")
    if ".." in parts:
        raise _HostileError(f"has a file {name!r:.200}, which is outside of it")
    # Bytes that are no UTF-8 come as surrogates, which are not printable either and do no harm.
    if any(ord(character) < 32 or ord(character) == 127 for character in short):
        raise _HostileError(f"has a file {name!r:.200}, whose name has control characters")
    if len(_encoded(short)) > _MOST_PATH or any(len(_encoded(part)) > _MOST_NAME for part in parts):
        raise _HostileError(f"has a file {name!r:.80}…, whose name is longer than Linux allows")
    return short


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: Tree, kept: int) -> bytes:
    if member.islnk():  # a second name of a file that came before
        return tree.contents.get(_checked(member.linkname), b"")
    if member.size > _MOST_FILE or kept > _MOST_CONTENTS:
        raise _HostileError(f"has a file {member.name!r:.200} of {member.size} bytes, which would be kept in memory")
    file = archive.extractfile(member) if member.isreg() else None
    return file.read() if file else b""


def _hide(tree: Tree, hidden: set[str]) -> None:
    if not hidden:
        return
    folders = tuple(name if name.endswith("/") else f"{name}/" for name in hidden)
    for name in [name for name in tree.names if name in hidden or name.startswith(folders)]:
        tree.names.discard(name)
        tree.contents.pop(name, None)
