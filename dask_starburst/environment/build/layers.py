"""A cache of image layers, keyed by their inputs.

The key is not the digest: it is known only after a build, and depends on the compressor's version.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.tools.files import drop_unused, explain_full_disk
from dask_starburst.environment.registry import documents
from dask_starburst.environment.build.tar import Entry, CompressedWriter, write_tar
from dask_starburst.errors import BadArgument, ImageError
from dask_starburst.paths import private_folder, private_opener, write_atomic

#: Media types by the name of the compression in settings.
MEDIA_TYPES = {"zstd": documents.LAYER_ZSTD, "gzip": documents.LAYER_GZIP}


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as a file: `digest` and `size` of the compressed file, `diff_id` of its content."""

    diff_id: str
    digest: str
    size: int
    media_type: str
    path: Path

    @property
    def descriptor(self) -> documents.Descriptor:
        """The layer's descriptor in a manifest."""
        return documents.Descriptor(media_type=self.media_type, digest=self.digest, size=self.size)


class Layers:
    """The layers built on this computer, by their inputs.

    Parameters
    ----------
    folder : Path
        Cache folder; it may be deleted at any time.
    compression : str
        ``"zstd"``, or ``"gzip"`` for container engines released before 2023.
    """

    def __init__(self, folder: Path, compression: str = "zstd") -> None:
        if compression not in MEDIA_TYPES:
            raise BadArgument(f"compression={compression!r} is not one of {', '.join(map(repr, MEDIA_TYPES))}.")
        self.folder = folder
        self.compression = compression
        self._media_type = MEDIA_TYPES[compression]

    def get(self, key: str, entries: Callable[[Path], Iterable[Entry]]) -> tuple[Layer, bool]:
        """Return the layer with a key, and whether it was cached.

        Parameters
        ----------
        key : str
            All inputs of the layer's members.
        entries : callable
            Yields the members. Called with an empty work folder, and only if the layer is not cached.

        Raises
        ------
        ImageError
            The disk is full. Incomplete files have no final name.
        """
        found = self._find(key)
        if found is not None:
            return found, True
        with explain_full_disk(self.folder), tempfile.TemporaryDirectory(dir=self._made("work")) as work:
            layer = self._write(entries(Path(work)), Path(work))
            self._remember(key, layer)
        return layer, False

    def prune(self, now: float | None = None) -> None:
        """Delete layers that have not been used for a month."""
        for name in ("blobs", "keys", "work"):
            drop_unused(self._made(name).iterdir(), now)

    def _find(self, key: str) -> Layer | None:
        note = self._note(key)
        try:
            facts = json.loads(note.read_text(encoding="utf-8"))
            layer = Layer(**facts, path=self._blob(facts["digest"]))
            if layer.path.stat().st_size != layer.size:
                return None
            for used in (note, layer.path):
                os.utime(used)
        except (OSError, ValueError, TypeError, KeyError, ImageError):
            return None  # not cached, deleted, or written by another version
        return layer

    def _write(self, entries: Iterable[Entry], work: Path) -> Layer:
        target = work / "layer.partial"
        with open(target, "wb", opener=private_opener) as file:
            packed = CompressedWriter(file, self.compression)

            def write(data: bytes) -> None:
                cancellation.check()
                packed.write(data)

            write_tar(entries, write)
            packed.close()
        layer = Layer(packed.diff_id, packed.digest, packed.size, self._media_type, self._blob(packed.digest))
        os.replace(target, layer.path)
        return layer

    def _remember(self, key: str, layer: Layer) -> None:
        facts = {name: getattr(layer, name) for name in ("diff_id", "digest", "size", "media_type")}
        write_atomic(self._note(key), json.dumps(facts).encode())

    def _note(self, key: str) -> Path:
        return self._made("keys") / f"{hashlib.sha256(f'{key} {self.compression}'.encode()).hexdigest()}.json"

    def _blob(self, digest: str) -> Path:
        return self._made("blobs") / documents.file_name(digest)

    def _made(self, name: str) -> Path:
        return private_folder(self.folder / name)
