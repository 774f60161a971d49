"""Tar archives that come out the same, byte for byte, whoever makes them and where; and their compression.

The digest of a layer decides whether a registry has it. So nothing of the computer that made it may be in it: members
are sorted, times, owners and modes are fixed, the compressor's level and number of threads too.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_ZSTD_LEVEL = 3
_GZIP_LEVEL = 6
_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
#: What reading a file may raise that is not the layer that it should be.
BROKEN = (tarfile.TarError, zlib.error, zstd.ZstdError, OSError, EOFError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer.

    Parameters
    ----------
    path : str
        In the image, without the slash in front.
    content : Path or bytes, optional
        What a file holds, or where that is to be read. A member with neither content nor link is a folder.
    link : str, optional
        What a symbolic link points to.
    executable : bool
        Whether a file's mode is 0755, as a folder's is, and not 0644.
    owner : int
        User and group; root, unless the worker writes there.
    """

    path: str
    content: Path | bytes | None = None
    link: str | None = None
    executable: bool = False
    owner: int = 0


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Packed:
    """Takes a tar archive in pieces, writes it compressed, and reckons both digests on the way.

    Parameters
    ----------
    file : binary file
        Where the compressed bytes go.
    compression : str
        ``"zstd"`` or ``"gzip"``.
    """

    def __init__(self, file: IO[bytes], compression: str) -> None:
        self._file = file
        self._compressor = _compressor(compression)
        self._inside = hashlib.sha256()
        self._outside = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Take the next piece."""
        self._inside.update(data)
        self._put(self._compressor.compress(data))

    def close(self) -> None:
        """Write what is held back."""
        self._put(self._compressor.flush())

    def _put(self, data: bytes) -> None:
        self._outside.update(data)
        self._file.write(data)
        self.size += len(data)

    @property
    def diff_id(self) -> str:
        """The digest of the archive."""
        return f"sha256:{self._inside.hexdigest()}"

    @property
    def digest(self) -> str:
        """The digest of what was written."""
        return f"sha256:{self._outside.hexdigest()}"


def write_tar(entries: Iterable[Entry], write: Callable[[bytes], None]) -> None:
    """Write members, and the folders that they stand in, as a tar archive in the order of their paths.

    Of two members with the same path the later counts.
    """
    members = {entry.path: entry for entry in entries}
    for path in tuple(members):
        for parent in _parents(path):
            members.setdefault(parent, Entry(parent))
    pieces = _Pieces(write)
    for _, entry in sorted(members.items(), key=lambda item: item[0].split("/")):
        for piece in _member(entry):
            pieces.add(piece)
    pieces.add(bytes(2 * _BLOCK))
    pieces.flush()


class _Pieces:
    """Gathers small pieces: a compressor and two digests cost more to call than to feed."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._held = bytearray()

    def add(self, data: bytes) -> None:
        self._held += data
        if len(self._held) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        self._write(bytes(self._held))
        self._held.clear()


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _member(entry: Entry) -> Iterator[bytes]:
    info = tarfile.TarInfo(entry.path)
    info.uid = info.gid = entry.owner
    info.mtime = 0
    info.mode = 0o755
    if entry.link is not None:
        info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.link, 0o777
        yield _header(info)
    elif entry.content is None:
        info.type = tarfile.DIRTYPE
        yield _header(info)
    else:
        info.mode = 0o755 if entry.executable else 0o644
        yield from _file(info, entry.content)


def _file(info: tarfile.TarInfo, content: Path | bytes) -> Iterator[bytes]:
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        info.size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield _header(info)
        while data := file.read(_CHUNK):
            yield data
    yield bytes(-info.size % _BLOCK)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _compressor(compression: str) -> _Compressor:
    if compression == "gzip":  # 16: with gzip's header, which zlib leaves without time and name
        return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    parameter = zstd.CompressionParameter
    # One worker thread, always: without one, the bytes are others.
    options: dict[Any, int] = {parameter.compression_level: _ZSTD_LEVEL, parameter.nb_workers: 1}
    made: _Compressor = zstd.ZstdCompressor(options=options)
    return made


@contextmanager
def opened(path: Path, media_type: str) -> Iterator[IO[bytes]]:
    """Open a layer of any media type, to read its tar archive."""
    openers: dict[str, Any] = {"zstd": zstd.open, "gzip": gzip.open}
    with openers.get(media_type[-4:], lambda path: path.open("rb"))(path) as file:
        yield file
