"""Layer blobs: files on disk, named by the digest of their content."""

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
    """Return whether untrusted input is a blob digest that is safe in a path."""
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


class Source(Protocol):
    """The reader of a request body."""

    def read(self, size: int = ..., /) -> bytes:
        """Return some bytes; empty at the end."""


class WrongDigestError(Exception):
    """The content does not match the announced digest. The message is the actual digest."""


class Upload:
    """An upload in progress, in a temporary file until its digest is verified."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self.chunks = 0
        self._hash = hashlib.sha256()

    def append(self, source: Source) -> int:
        """Append everything from a source; return the number of bytes."""
        before = self.size
        with self.path.open("ab") as file:
            while piece := source.read(_PIECE):
                file.write(piece)
                self._hash.update(piece)
                self.size += len(piece)
        return self.size - before

    @property
    def digest(self) -> str:
        """The digest of the content so far."""
        return f"sha256:{self._hash.hexdigest()}"


class Blobs:
    """All uploaded blobs, shared by all repositories.

    Parameters
    ----------
    folder : Path
        The folder of the blobs. It is created when needed.
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
        """Return an upload in progress; None if there is none."""
        with self._lock:
            return self._uploads.get(name)

    def finish(self, name: str, digest: str) -> int:
        """Store an upload and return its size.

        Raises
        ------
        WrongDigestError
            The digest does not match. The upload is discarded.
        """
        with self._lock:
            upload = self._uploads.pop(name)
        if upload.digest != digest or not is_digest(digest):
            upload.path.unlink(missing_ok=True)
            raise WrongDigestError(upload.digest)
        upload.path.touch()  # an empty blob has written no bytes
        upload.path.replace(self._path(digest))
        return upload.size

    def open(self, digest: str) -> BinaryIO | None:
        """Open the blob of a digest; None if there is none."""
        try:
            return self._path(digest).open("rb") if is_digest(digest) else None
        except FileNotFoundError:
            return None

    def remove(self, digest: str) -> None:
        """Delete a blob that no repository uses."""
        if is_digest(digest):
            self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        if not is_digest(digest):
            raise ValueError(f"{digest!r} is not a digest")
        return self._folder / digest.replace(":", "-")
