"""Layers of an image: tar archives that come out the same, byte for byte, whoever makes them and where.

The digest of a layer decides whether a registry has it. So nothing of the computer that made it may be in it: members
are sorted, times, owners and modes are fixed, the compressor's level and number of threads too. The same bytes also
take the same version of the compressor; so what a layer was made of, not what came out, is the key of the cache here.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import shutil
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from dask_starburst.environment import oci
from dask_starburst.errors import BadArgument, ImageError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: By the word that settings use for a compression.
MEDIA_TYPES = {"zstd": oci.LAYER_ZSTD, "gzip": oci.LAYER_GZIP}
_ZSTD_LEVEL = 3
_GZIP_LEVEL = 6
_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE
#: What was not used for so long is made anew when it is needed again.
_KEPT = 30 * 86_400.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as a file: `digest` and `size` of its compressed bytes, `diff_id` of what is in them."""

    diff_id: str
    digest: str
    size: int
    media_type: str
    path: Path

    @property
    def descriptor(self) -> oci.Descriptor:
        """How a manifest names the layer."""
        return oci.Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Layers:
    """The layers that were made on this computer, by what they were made of.

    Parameters
    ----------
    folder : Path
        Where they are kept; it may vanish at any time.
    compression : str
        ``"zstd"``, or ``"gzip"`` for container engines of before 2023.
    """

    def __init__(self, folder: Path, compression: str = "zstd") -> None:
        if compression not in MEDIA_TYPES:
            raise BadArgument(f"compression={compression!r} is none of {', '.join(map(repr, MEDIA_TYPES))}.")
        self.folder = folder
        self.compression = compression
        self._media_type = MEDIA_TYPES[compression]

    def get(self, key: str, entries: Callable[[Path], Iterable[Entry]]) -> tuple[Layer, bool]:
        """Return the layer with a key, and whether it was there already.

        Parameters
        ----------
        key : str
            The digest of everything that the members follow from.
        entries : callable
            Gives the members. It is called with an empty folder to work in, and only if the layer is not there.

        Raises
        ------
        ImageError
            The disk is full. Nothing half-written is left under a final name.
        """
        found = self._find(key)
        if found is not None:
            return found, True
        with room_in(self.folder), tempfile.TemporaryDirectory(dir=self._made("work")) as work:
            layer = self._write(entries(Path(work)), Path(work))
            self._remember(key, layer)
        return layer, False

    def prune(self, now: float | None = None) -> None:
        """Delete what no image has used for a month."""
        oldest = (time.time() if now is None else now) - _KEPT
        for path in (*self._made("blobs").iterdir(), *self._made("keys").iterdir(), *self._made("work").iterdir()):
            with suppress(FileNotFoundError):  # another process tidies up as well
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _find(self, key: str) -> Layer | None:
        note = self._note(key)
        try:
            facts = json.loads(note.read_text(encoding="utf-8"))
            layer = Layer(**facts, path=self._blob(facts["digest"]))
            if layer.path.stat().st_size != layer.size:
                return None
            for used in (note, layer.path):
                os.utime(used)
        except (OSError, ValueError, TypeError, KeyError):
            return None  # never made, or not any more, or by another version of ours
        return layer

    def _write(self, entries: Iterable[Entry], work: Path) -> Layer:
        target = work / "layer.partial"
        with target.open("wb") as file:
            packed = _Packed(file, _compressor(self.compression))
            write_tar(entries, packed.write)
            packed.close()
        layer = Layer(packed.diff_id, packed.digest, packed.size, self._media_type, self._blob(packed.digest))
        os.replace(target, layer.path)
        return layer

    def _remember(self, key: str, layer: Layer) -> None:
        facts = {name: getattr(layer, name) for name in ("diff_id", "digest", "size", "media_type")}
        write_whole(self._note(key), json.dumps(facts).encode())

    def _note(self, key: str) -> Path:
        return self._made("keys") / f"{hashlib.sha256(f'{key} {self.compression}'.encode()).hexdigest()}.json"

    def _blob(self, digest: str) -> Path:
        return self._made("blobs") / digest.removeprefix("sha256:")

    def _made(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class _Packed:
    """Takes a tar archive in pieces, writes it compressed, and reckons both digests on the way."""

    def __init__(self, file: IO[bytes], compressor: _Compressor) -> None:
        self._file = file
        self._compressor = compressor
        self._inside = hashlib.sha256()
        self._outside = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> None:
        self._inside.update(data)
        self._put(self._compressor.compress(data))

    def close(self) -> None:
        self._put(self._compressor.flush())

    def _put(self, data: bytes) -> None:
        self._outside.update(data)
        self._file.write(data)
        self.size += len(data)

    @property
    def diff_id(self) -> str:
        return f"sha256:{self._inside.hexdigest()}"

    @property
    def digest(self) -> str:
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
    if media_type.endswith("zstd"):
        with zstd.open(path) as file:
            yield file
    else:
        with path.open("rb") as raw, _plain(raw, media_type) as file:
            yield file


def _plain(raw: IO[bytes], media_type: str) -> IO[bytes]:
    return gzip.open(raw) if media_type.endswith("gzip") else raw  # type: ignore[return-value]


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that nobody ever reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(data)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


@contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Say in words that there is no room left in a folder."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ImageError(
            f"no room left for the layers of the image in {folder} ({os.strerror(error.errno)}); make room there,"
            " or name another folder with XDG_CACHE_HOME=…, and start again: finished layers are kept."
        ) from error
