"""A registry client for pushing and pulling images: the OCI distribution specification 1.1, on httpx.

Maintained libraries for this cannot push an image index. Calls block and are thread-safe.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from pathlib import Path

from dask_starburst.environment.registry.auth import Credentials
from dask_starburst.environment.registry.documents import (
    MANIFESTS,
    MAX_LAYER_BYTES,
    Manifest,
    check_digest,
    check_reference,
    check_repository,
    digest_of,
    media_type_of,
)
from dask_starburst.environment.registry.retry import ATTEMPTS, FIRST_PAUSE
from dask_starburst.environment.registry.transport import Transport, quote, scopes
from dask_starburst.environment.tools import cancellation
from dask_starburst.errors import ImageError, RegistryUnavailable
from dask_starburst.paths import private_opener

_PIECE = 1 << 20
_ACCEPT = {"Accept": ", ".join(MANIFESTS)}
_PUSH = "pull,push"
#: Error codes of ECR and other registries for an immutable tag that is taken.
_IMMUTABLE = ("TAG_INVALID", "ImageTagAlreadyExists", "immutable")
#: Error codes of an upload session that was lost, for example behind a load balancer: the upload restarts.
_FORGOTTEN = ("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")

#: Receives the bytes of a blob sent so far.
Sent = Callable[[int], None]


class Registry:
    """One registry.

    Parameters
    ----------
    host : str
        The host part of an image name: ``"127.0.0.1:5000"``. Loopback addresses use plain HTTP, all others HTTPS.
    credentials : callable, optional
        Returns user and password, or None for anonymous access. Called again when the registry refuses earlier
        credentials: ECR's passwords are valid for 12 hours.
    pause : float
        Seconds before the second attempt after a lost connection or a server error; doubled for each further one.
    attempts, timeout : optional
        As for `Transport`: number of consecutive attempts, and the timeout of each in seconds.
    """

    def __init__(
        self,
        host: str,
        credentials: Callable[[], Credentials | None] | None = None,
        pause: float = FIRST_PAUSE,
        attempts: int = ATTEMPTS,
        timeout: float | None = None,
    ) -> None:
        self.host = host
        self.uploaded = 0
        self._lock = threading.Lock()
        self._transport = Transport(host, credentials, pause, attempts, timeout)

    def __repr__(self) -> str:
        return f"<Registry {self.host}>"

    def credentials(self) -> Credentials | None:
        """Return current user and password, for another program that pushes."""
        return self._transport.auth.credentials()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    # -- blobs ----------------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether a blob exists in a repository."""
        return self._transport.ask("HEAD", _blob(repository, digest), 200, 404).status_code == 200

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Mount a blob from another repository of the same registry; return whether this succeeded."""
        path = f"{_uploads(repository)}?mount={check_digest(digest)}&from={check_repository(source)}"
        # The token covers the source too. If mounting is denied, the caller pushes the blob: that fails with a clear
        # error if the repository itself is not writable.
        no = (202, 400, 403, 404, 405)
        return self._transport.ask("POST", path, 201, *no, actions=_PUSH, also=source).status_code == 201

    def push_blob(self, repository: str, digest: str, body: Path | bytes, sent: Sent | None = None) -> None:
        """Push a blob with a monolithic upload; ECR's chunked uploads are broken (images.md §3).

        Parameters
        ----------
        repository, digest : str
            The destination and the digest of the blob.
        body : Path or bytes
            The file, or its content.
        sent : callable, optional
            Receives progress; a retry starts from zero.

        Raises
        ------
        RegistryDenied, RegistryUnavailable, ImageError
            The push failed; the registry keeps no part of it.
        """
        what = f"pushing to {self.host}/{repository}"
        with _explain_os_errors(what):
            self._transport.retry(lambda: self._push_once(repository, digest, body, sent), what)
            with self._lock:
                self.uploaded += _size(body)

    def pull_blob(self, repository: str, digest: str, to: Path, size: int | None = None) -> Path:
        """Fetch a blob into a file, atomically; an interrupted transfer is resumed.

        Parameters
        ----------
        repository, digest : str
            The repository and the digest of the blob.
        to : Path
            The file.
        size : int, optional
            Its size in the manifest, in bytes; any other size is an error.

        Raises
        ------
        RegistryDenied, RegistryUnavailable
            The blob could not be fetched.
        ImageError
            The content does not match the digest, or the disk is full.
        """
        part = to.with_name(f"{to.name}.part-{os.getpid()}-{threading.get_ident()}")
        what = f"pulling from {self.host}/{repository}"
        try:
            with _explain_os_errors(f"{what} into {to.parent}"):
                pull = partial(self._pull_once, repository, digest, part, MAX_LAYER_BYTES if size is None else size)
                self._transport.retry(pull, what, lambda: _had(part) // _PIECE)
                _verify(part, digest, size, f"{self.host}/{repository}")
                part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return to

    def blob(self, repository: str, digest: str) -> bytes:
        """Return the content of a small blob, such as an image's configuration."""
        body = self._transport.ask("GET", _blob(repository, digest), 200).content
        if digest_of(body) != digest:
            raise ImageError(_other(digest, f"{self.host}/{repository}"))
        return body

    # -- manifests ------------------------------------------------------------------------------

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """Return the manifest of a tag or digest; None if it does not exist."""
        answer = self._transport.ask("GET", _manifest(repository, reference), 200, 404, headers=_ACCEPT)
        if answer.status_code == 404:
            return None
        if ":" in reference and digest_of(answer.content) != reference:
            raise ImageError(_other(reference, f"{self.host}/{repository}"))
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        try:
            found = media_type_of(answer.content)
            return Manifest(media_type if media_type in MANIFESTS else found, answer.content)
        except ImageError as error:
            raise RegistryUnavailable(
                f"{self.host}/{repository} answered with {media_type or 'something'} instead of a manifest. Is it a"
                " registry, or is a proxy or a login page in between?"
            ) from error

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> str:
        """Push a manifest under a digest or tag, and return its digest. The blobs it names must exist.

        Raises
        ------
        ImageError
            The tag is taken and immutable, or a blob is missing.
        """
        path, headers = _manifest(repository, reference), {"Content-Type": manifest.media_type}
        put = ("PUT", path, 200, 201, 400, 409)
        answer = self._transport.ask(*put, actions=_PUSH, headers=headers, content=manifest.body)
        if answer.status_code in (400, 409):
            if any(word in answer.text for word in _IMMUTABLE):
                raise ImageError(
                    f"the tag {reference} of {self.host}/{repository} already names another image, and its tags are"
                    f" immutable: {quote(answer)}. Use another tag."
                )
            raise ImageError(f"{self.host}/{repository} refused it: {quote(answer)}")
        kept = answer.headers.get("Docker-Content-Digest", manifest.digest)
        if kept != manifest.digest:
            raise ImageError(
                f"{self.host}/{repository} stored {manifest.digest} as {kept}, which violates the OCI specification."
            )
        return manifest.digest

    # -- single attempts ------------------------------------------------------------------------

    def _push_once(self, repository: str, digest: str, body: Path | bytes, sent: Sent | None) -> None:
        transport, path = self._transport, _uploads(repository)
        scope = scopes(path, _PUSH)
        begun = transport.once("POST", transport.url(path), 202, scope=scope)
        url = transport.location(begun).copy_merge_params({"digest": check_digest(digest)})
        headers = {"Content-Length": str(_size(body)), "Content-Type": "application/octet-stream"}
        answer = transport.once(
            "PUT", url, 201, 400, 404, 409, scope=scope, headers=headers, content=lambda: _pieces(body, sent)
        )
        if answer.status_code == 201:
            return
        if any(word in answer.text for word in _FORGOTTEN):
            raise RegistryUnavailable(f"{self.host} answered {quote(answer)}")
        if "DIGEST_INVALID" in answer.text:
            raise ImageError(
                f"{self.host} received content that does not match {digest}: {quote(answer)}. The file has changed or"
                " was corrupted in transit; try again."
            )
        if not self.has_blob(repository, digest):  # another client may have pushed it meanwhile
            raise ImageError(f"{self.host}/{repository} refused it: {quote(answer)}")

    def _pull_once(self, repository: str, digest: str, part: Path, size: int) -> None:
        have = _had(part)
        if have > size:  # the resumed pieces exceed the declared size
            return
        path = _blob(repository, digest)
        headers = {"Range": f"bytes={have}-"} if have else {}
        url, scope = self._transport.url(path), scopes(path, "pull")
        with self._transport.streamed("GET", url, 200, 206, 416, scope=scope, headers=headers, most=size) as answer:
            if answer.status_code == 416:  # already complete
                return
            with open(part, "ab" if answer.status_code == 206 else "wb", opener=private_opener) as to:
                for piece in answer.iter_raw(_PIECE):
                    cancellation.check()
                    to.write(piece)


def _blob(repository: str, digest: str) -> str:
    return f"{check_repository(repository)}/blobs/{check_digest(digest)}"


def _manifest(repository: str, reference: str) -> str:
    return f"{check_repository(repository)}/manifests/{check_reference(reference)}"


def _uploads(repository: str) -> str:
    return f"{check_repository(repository)}/blobs/uploads/"


@contextmanager
def _explain_os_errors(what: str) -> Iterator[None]:
    """Turn errors of the local file system into an `ImageError`."""
    try:
        yield
    except OSError as error:
        raise ImageError(
            f"{what} failed on this computer: {error}. Free space or grant access there, or name another folder with"
            " XDG_CACHE_HOME=…, and try again."
        ) from error


def _size(body: Path | bytes) -> int:
    return len(body) if isinstance(body, bytes) else body.stat().st_size


def _had(part: Path) -> int:
    return _size(part) if part.exists() else 0


def _pieces(body: Path | bytes, sent: Sent | None) -> Iterator[bytes]:
    if isinstance(body, bytes):
        yield body
        return
    done = 0
    with body.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
            done += len(piece)
            if sent:
                sent(done)


def _verify(path: Path, digest: str, size: int | None, where: str) -> None:
    if size is not None and _size(path) != size:
        raise ImageError(
            f"{where} sent {_size(path)} bytes for {digest}, but its manifest says {size}; use another image."
        )
    hashed = sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise ImageError(_other(digest, where))


def _other(digest: str, where: str) -> str:
    return (
        f"{where} sent content that does not match {digest}; it was discarded. Try again, or report it to the"
        " registry's operator."
    )
