"""Read the files of an image from its layers, stacked as a container engine stacks them.

Nothing is extracted: only the names of links, devices and whiteouts are used, and links are not followed. Images are
untrusted, so names, sizes and counts are limited.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.build.tar import BROKEN, open_layer
from dask_starburst.errors import ImageError

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
#: Limit of an uncompressed layer: its size times the ratio, plus the bytes. Real layers have a ratio of about 3.
_MOST_RATIO, _MOST_UNPACKED = 50, 1 << 30
#: Limit in bytes of one file, and of all files, held in memory: Python's standard library has 20 MB.
_MOST_FILE, _MOST_CONTENTS = 16 << 20, 256 << 20
#: Limit of names held in memory; large images have 200,000 files.
_MOST_NAMES = 2_000_000
#: Limit in bytes of an extended header, which tarfile reads into memory completely.
_MOST_HEADER = 1 << 20
#: Limits in bytes of a path and of a name (Linux, limits.h).
_MOST_PATH, _MOST_NAME = 4096, 255
_EXTENDED = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The paths of an image's files, without a leading slash, and the contents of selected ones."""

    names: set[str] = field(default_factory=set)
    contents: dict[str, bytes] = field(default_factory=dict)


def read_image_files(layers: Iterable[tuple[Path, str]], select: Callable[[str], bool], image: str = "the image") -> ImageFiles:
    """Return the files of stacked layers.

    Parameters
    ----------
    layers : iterable of tuple of Path and str
        Files and media types of the layers, lowest first.
    select : callable
        Whether to keep the contents of a file, by its path.
    image : str
        Name of the image, for errors.

    Raises
    ------
    ImageError
        A layer cannot be read, exceeds a limit, or has a path outside of the image.
    """
    tree = ImageFiles()
    for path, media_type in layers:
        try:
            over, hidden = _read(path, media_type, select)
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


def _check_sums(tree: ImageFiles, image: str) -> None:
    try:
        _check_number(len(tree.names), sum(map(len, tree.contents.values())))
    except _HostileError as error:
        raise ImageError(f"{image} {error}; it is not used. Name another image.") from None


def write_files(contents: Mapping[str, bytes], folder: Path) -> None:
    """Write files of an image below an empty folder, and never outside of it.

    Raises
    ------
    ImageError
        One path is a file and also a parent folder of another path.
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
    """Validate the name of a member, and return it without a leading slash.

    Raises
    ------
    ImageError
        It leads out of the image, or is not a valid path.
    """
    try:
        return _checked(name)
    except _HostileError as error:
        raise ImageError(f"the image {error}; name another one.") from None


class _HostileError(Exception):
    """A layer that looks malicious; the message continues "the image"."""


class _Header(tarfile.TarInfo):
    """A member's header that rejects oversized extended headers before their data is read."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Header:
        """Read a header from a block."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in _EXTENDED and found.size > _MOST_HEADER:
            raise _HostileError(f"has a header of {found.size} bytes")
        return found


class _Bounded:
    """A decompressed layer with a size limit."""

    def __init__(self, path: Path, media_type: str) -> None:
        self._most = self._left = _MOST_UNPACKED + _MOST_RATIO * path.stat().st_size
        self._opened = open_layer(path, media_type)

    def __enter__(self) -> None:
        self._file = self._opened.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise _HostileError(f"decompresses to more than {self._most >> 20} MiB, like a decompression bomb")
        return data


def _read(path: Path, media_type: str, select: Callable[[str], bool]) -> tuple[ImageFiles, set[str]]:
    """Return the files a layer adds and the paths it hides; paths of folders end with a slash."""
    tree, hidden, kept = ImageFiles(), set(), 0
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
                if select(name):
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
    """Normalize a name; reject one that is not a valid path below a folder.

    Line feeds are rejected too: other programs receive lists of files with one name a line.
    """
    short = "/".join(part for part in name.split("/") if part not in ("", "."))
    parts = short.split("/")
    if ".." in parts:
        raise _HostileError(f"has a file {name!r:.200}, which is outside of it")
    # Bytes that are not valid UTF-8 appear as surrogates, which are harmless.
    if any(ord(character) < 32 or ord(character) == 127 for character in short):
        raise _HostileError(f"has a file {name!r:.200}, whose name has control characters")
    if len(_encoded(short)) > _MOST_PATH or any(len(_encoded(part)) > _MOST_NAME for part in parts):
        raise _HostileError(f"has a file {name!r:.80}…, whose name is longer than Linux allows")
    return short


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, tree: ImageFiles, kept: int) -> bytes:
    if member.islnk():  # a hard link to an earlier member
        return tree.contents.get(_checked(member.linkname), b"")
    if member.size > _MOST_FILE or kept > _MOST_CONTENTS:
        raise _HostileError(f"has a file {member.name!r:.200} of {member.size} bytes, which would be kept in memory")
    file = archive.extractfile(member) if member.isreg() else None
    return file.read() if file else b""


def _hide(tree: ImageFiles, hidden: set[str]) -> None:
    if not hidden:
        return
    folders = tuple(name if name.endswith("/") else f"{name}/" for name in hidden)
    for name in [name for name in tree.names if name in hidden or name.startswith(folders)]:
        tree.names.discard(name)
        tree.contents.pop(name, None)
