"""Write reproducible tar archives, and compress them.

A registry finds a layer by its digest, so a layer must not depend on the computer that built it: members are sorted,
and times, owners, modes, the compressor's level and its number of threads are fixed.
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
#: Exceptions of reading a corrupt layer.
BROKEN = (tarfile.TarError, zlib.error, zstd.ZstdError, OSError, EOFError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class Entry:
    """One member of a layer.

    Parameters
    ----------
    path : str
        Path in the image, without a leading slash.
    content : Path or bytes, optional
        Content of a file, or the path to read it from. A member with neither content nor link is a folder.
    link : str, optional
        Target of a symbolic link.
    executable : bool
        Whether a file's mode is 0755 instead of 0644.
    owner : int
        User and group ID; root, unless the worker writes there.
    """

    path: str
    content: Path | bytes | None = None
    link: str | None = None
    executable: bool = False
    owner: int = 0


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class CompressedWriter:
    """Compress a tar archive into a file, and compute the digests of both.

    Parameters
    ----------
    file : binary file
        The compressed file.
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
        """Write the next piece of the archive."""
        self._inside.update(data)
        self._put(self._compressor.compress(data))

    def close(self) -> None:
        """Write the rest of the compressed data."""
        self._put(self._compressor.flush())

    def _put(self, data: bytes) -> None:
        self._outside.update(data)
        self._file.write(data)
        self.size += len(data)

    @property
    def diff_id(self) -> str:
        """The digest of the uncompressed archive."""
        return f"sha256:{self._inside.hexdigest()}"

    @property
    def digest(self) -> str:
        """The digest of the compressed file."""
        return f"sha256:{self._outside.hexdigest()}"


def write_tar(entries: Iterable[Entry], write: Callable[[bytes], None]) -> None:
    """Write members and their parent folders as a tar archive, sorted by path.

    Of two members with the same path, the later one is written.
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
    """Buffer small pieces: each call of a compressor and two digests has a fixed cost."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._buffer = bytearray()

    def add(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        self._write(bytes(self._buffer))
        self._buffer.clear()


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
    if compression == "gzip":  # 16: write a gzip header, in which zlib sets neither time nor name
        return zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    parameter = zstd.CompressionParameter
    # Always one worker thread: the output depends on this.
    options: dict[Any, int] = {parameter.compression_level: _ZSTD_LEVEL, parameter.nb_workers: 1}
    made: _Compressor = zstd.ZstdCompressor(options=options)
    return made


@contextmanager
def open_layer(path: Path, media_type: str) -> Iterator[IO[bytes]]:
    """Open the tar archive of a layer with any media type."""
    openers: dict[str, Any] = {"zstd": zstd.open, "gzip": gzip.open}
    with openers.get(media_type[-4:], lambda path: path.open("rb"))(path) as file:
        yield file
