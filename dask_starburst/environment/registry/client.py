"""A registry, as far as images are pushed and pulled: the OCI distribution specification 1.1, on httpx.

The kept libraries for this cannot push an image index. Calls block and are safe from several threads.
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
    MOST_LAYER,
    Manifest,
    check_digest,
    check_reference,
    check_repository,
    digest_of,
    media_type_of,
)
from dask_starburst.environment.registry.retry import ATTEMPTS, FIRST_PAUSE
from dask_starburst.environment.registry.transport import Exchange, quote, scopes
from dask_starburst.environment.tools import cancellation
from dask_starburst.errors import ImageError, RegistryUnavailable
from dask_starburst.paths import private_opener

_PIECE = 1 << 20
_ACCEPT = {"Accept": ", ".join(MANIFESTS)}
_PUSH = "pull,push"
#: What ECR and others answer to a tag that is taken and may not be moved.
_IMMUTABLE = ("TAG_INVALID", "ImageTagAlreadyExists", "immutable")
#: What a registry answers that has forgotten an upload, as one does behind a balancer: it is begun anew.
_FORGOTTEN = ("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID")

#: Hears how many bytes of a blob have been sent so far.
Sent = Callable[[int], None]


class Registry:
    """One registry.

    Parameters
    ----------
    host : str
        As it stands in the name of an image: ``"127.0.0.1:5000"``. Loopback is spoken to in plain HTTP, all others
        in HTTPS.
    credentials : callable, optional
        Gives user and password, or None for an anonymous visit. It is asked again when the registry refuses what it
        gave before: ECR's passwords hold for 12 hours.
    pause : float
        Seconds before a second attempt, when a connection was lost or the registry had a fault; twice as many before
        each further one.
    attempts, patience : optional
        As for `Exchange`: how many attempts in a row may fail, and how long (seconds) each waits for an answer.
    """

    def __init__(
        self,
        host: str,
        credentials: Callable[[], Credentials | None] | None = None,
        pause: float = FIRST_PAUSE,
        attempts: int = ATTEMPTS,
        patience: float | None = None,
    ) -> None:
        self.host = host
        self.uploaded = 0
        self._lock = threading.Lock()
        self._exchange = Exchange(host, credentials, pause, attempts, patience)

    def __repr__(self) -> str:
        return f"<Registry {self.host}>"

    def credentials(self) -> Credentials | None:
        """Return user and password as of now, for a program that pushes in our place."""
        return self._exchange.login.credentials()

    def close(self) -> None:
        """Let the connections go."""
        self._exchange.close()

    # -- blobs ----------------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether a blob is in a repository."""
        return self._exchange.ask("HEAD", _blob(repository, digest), 200, 404).status_code == 200

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Take a blob over from another repository of the same registry; whether that was allowed and possible."""
        path = f"{_uploads(repository)}?mount={check_digest(digest)}&from={check_repository(source)}"
        # A token for the source is asked for too. Who may not mount, or not from there, pushes: that is refused in
        # words if it is the repository itself that may not be written.
        no = (202, 400, 403, 404, 405)
        return self._exchange.ask("POST", path, 201, *no, actions=_PUSH, also=source).status_code == 201

    def push_blob(self, repository: str, digest: str, body: Path | bytes, sent: Sent | None = None) -> None:
        """Push a blob in one piece; ECR's upload in chunks is broken (images.md §3).

        Parameters
        ----------
        repository, digest : str
            Where to, and what it is.
        body : Path or bytes
            A file, or what would be in it.
        sent : callable, optional
            Hears how far it is; after a lost connection it begins at the beginning.

        Raises
        ------
        RegistryDenied, RegistryUnavailable, ImageError
            It could not be pushed; a registry keeps no part of it.
        """
        what = f"pushing to {self.host}/{repository}"
        with _in_words(what):
            self._exchange.patiently(lambda: self._push_once(repository, digest, body, sent), what)
            with self._lock:
                self.uploaded += _size(body)

    def pull_blob(self, repository: str, digest: str, to: Path, size: int | None = None) -> Path:
        """Fetch a blob into a file, which is there whole or not at all; what was cut off goes on where it was.

        Parameters
        ----------
        repository, digest : str
            Where it is, and what it is.
        to : Path
            The file.
        size : int, optional
            The bytes that its manifest says it has; no others are taken.

        Raises
        ------
        RegistryDenied, RegistryUnavailable
            It could not be had.
        ImageError
            What came is something else, or there is no room for it.
        """
        part = to.with_name(f"{to.name}.part-{os.getpid()}-{threading.get_ident()}")
        what = f"pulling from {self.host}/{repository}"
        try:
            with _in_words(f"{what} into {to.parent}"):
                pull = partial(self._pull_once, repository, digest, part, MOST_LAYER if size is None else size)
                self._exchange.patiently(pull, what, lambda: _had(part) // _PIECE)
                _verify(part, digest, size, f"{self.host}/{repository}")
                part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return to

    def blob(self, repository: str, digest: str) -> bytes:
        """Return a small blob, such as an image's configuration."""
        body = self._exchange.ask("GET", _blob(repository, digest), 200).content
        if digest_of(body) != digest:
            raise ImageError(_other(digest, f"{self.host}/{repository}"))
        return body

    # -- manifests ------------------------------------------------------------------------------

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """Return the manifest of a tag or digest; None if there is none."""
        answer = self._exchange.ask("GET", _manifest(repository, reference), 200, 404, headers=_ACCEPT)
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
        """Push a manifest by its digest or a tag, and return its digest. What it names has to be there.

        Raises
        ------
        ImageError
            The tag is taken and may not be moved, or something that it names is missing.
        """
        path, headers = _manifest(repository, reference), {"Content-Type": manifest.media_type}
        put = ("PUT", path, 200, 201, 400, 409)
        answer = self._exchange.ask(*put, actions=_PUSH, headers=headers, content=manifest.body)
        if answer.status_code in (400, 409):
            if any(word in answer.text for word in _IMMUTABLE):
                raise ImageError(
                    f"the tag {reference} of {self.host}/{repository} is another image's already, and tags there are"
                    f" immutable: {quote(answer)}. Take another tag."
                )
            raise ImageError(f"{self.host}/{repository} refused it: {quote(answer)}")
        kept = answer.headers.get("Docker-Content-Digest", manifest.digest)
        if kept != manifest.digest:
            raise ImageError(f"{self.host}/{repository} made {kept} of {manifest.digest}, which no registry may.")
        return manifest.digest

    # -- how ------------------------------------------------------------------------------------

    def _push_once(self, repository: str, digest: str, body: Path | bytes, sent: Sent | None) -> None:
        exchange, path = self._exchange, _uploads(repository)
        wanted = scopes(path, _PUSH)
        begun = exchange.once("POST", exchange.url(path), 202, wanted=wanted)
        url = exchange.location(begun).copy_merge_params({"digest": check_digest(digest)})
        headers = {"Content-Length": str(_size(body)), "Content-Type": "application/octet-stream"}
        answer = exchange.once(
            "PUT", url, 201, 400, 404, 409, wanted=wanted, headers=headers, content=lambda: _pieces(body, sent)
        )
        if answer.status_code == 201:
            return
        if any(word in answer.text for word in _FORGOTTEN):
            raise RegistryUnavailable(f"{self.host} answered {quote(answer)}")
        if "DIGEST_INVALID" in answer.text:
            raise ImageError(
                f"{self.host} got something else than {digest}: {quote(answer)}. The file has changed, or was spoiled"
                " on the way; start again."
            )
        if not self.has_blob(repository, digest):  # somebody else may have been quicker
            raise ImageError(f"{self.host}/{repository} refused it: {quote(answer)}")

    def _pull_once(self, repository: str, digest: str, part: Path, size: int) -> None:
        have = _had(part)
        if have > size:  # pieces of what was cut off add up to more than it has
            return
        path = _blob(repository, digest)
        headers = {"Range": f"bytes={have}-"} if have else {}
        url, wanted = self._exchange.url(path), scopes(path, "pull")
        with self._exchange.streamed("GET", url, 200, 206, 416, wanted=wanted, headers=headers, most=size) as answer:
            if answer.status_code == 416:  # all of it was there
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
def _in_words(what: str) -> Iterator[None]:
    """Say what this computer could not do."""
    try:
        yield
    except OSError as error:
        raise ImageError(
            f"{what} failed on this computer: {error}. Make room or give access there, or name another folder with"
            " XDG_CACHE_HOME=…, and start again."
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
            f"{where} has {_size(path)} bytes as {digest}, and its manifest says {size}; use another image."
        )
    hashed = sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise ImageError(_other(digest, where))


def _other(digest: str, where: str) -> str:
    return f"{where} sent something else than {digest}; what came was thrown away. Try again, or tell who runs it."
