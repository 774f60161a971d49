"""The bytes of layers: files on disk, each under the digest of its content."""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from pathlib import Path
from typing import BinaryIO, Protocol

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PIECE = 1 << 20


def is_digest(value: object) -> bool:
    """Whether something from outside is the digest of a blob, and may be part of a path."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


class Source(Protocol):
    """What a body is read from."""

    def read(self, size: int = ..., /) -> bytes:
        """Return some bytes, none at the end."""


class WrongDigestError(Exception):
    """What came is something else than what was announced. The message says what it is."""


class Upload:
    """Bytes that arrive, in a file of their own until it is known that they are what was announced."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.chunks = 0
        self._hash = hashlib.sha256()

    def append(self, source: Source) -> int:
        """Add all that a source has; return how much that was."""
        before = self.size
        with self.path.open("ab") as file:
            while piece := source.read(_PIECE):
                file.write(piece)
                self._hash.update(piece)
                self.size += len(piece)
        return self.size - before

    @property
    def digest(self) -> str:
        """Of what has come so far."""
        return f"sha256:{self._hash.hexdigest()}"


class Blobs:
    """All bytes that were uploaded, whichever repository they are in.

    Parameters
    ----------
    folder : Path
        Where they are kept. It is made when it is needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}

    def begin(self) -> str:
        """Return the id of a new upload."""
        name = str(uuid.uuid4())
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._uploads[name] = Upload(self._folder / f"upload-{name}")
        return name

    def upload(self, name: str) -> Upload | None:
        """Return an upload that is under way."""
        with self._lock:
            return self._uploads.get(name)

    def finish(self, name: str, digest: str) -> int:
        """Keep what was uploaded, and return its size.

        Raises
        ------
        WrongDigestError
            It is something else. It is thrown away.
        """
        with self._lock:
            upload = self._uploads.pop(name)
        if upload.digest != digest or not is_digest(digest):
            upload.path.unlink(missing_ok=True)
            raise WrongDigestError(upload.digest)
        upload.path.touch()  # an empty blob has had no byte to write
        upload.path.replace(self._path(digest))
        return upload.size

    def open(self, digest: str) -> BinaryIO | None:
        """Return the bytes of a digest, if they are here."""
        try:
            return self._path(digest).open("rb") if is_digest(digest) else None
        except FileNotFoundError:
            return None

    def remove(self, digest: str) -> None:
        """Forget bytes that no repository has any more."""
        if is_digest(digest):
            self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise ValueError(f"{digest!r} is not a digest")
        return self._folder / digest.replace(":", "-")
