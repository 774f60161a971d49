"""A registry, as far as images are pushed and pulled: the OCI distribution specification 1.1, on httpx.

The kept libraries for this cannot push an image index. Calls block and are safe from several threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx

from dask_starburst.environment.login import Credentials, Login
from dask_starburst.environment.oci import MANIFESTS, Manifest, media_type_of
from dask_starburst.environment.patience import patiently
from dask_starburst.errors import ImageError, RegistryDenied, RegistryUnavailable

#: Seconds until a connection stands, and between two pieces of an answer.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_PIECE = 1 << 20
_ACCEPT = {"Accept": ", ".join(MANIFESTS)}
#: How much of a registry's answer an error quotes.
_QUOTED = 500
_LOOPBACK = ("localhost", "127.", "[::1]")
#: What ECR and others answer to a tag that is taken and may not be moved.
_IMMUTABLE = ("TAG_INVALID", "ImageTagAlreadyExists", "immutable")

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
    """

    def __init__(self, host: str, credentials: Callable[[], Credentials | None] | None = None) -> None:
        self.host = host
        self.uploaded = 0
        self._lock = threading.Lock()
        self._base = f"{'http' if host.startswith(_LOOPBACK) else 'https'}://{host}"
        self._login = Login(host, credentials)
        # Redirects are followed by hand: a blob may be at another host, which must not see the credentials.
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=False)

    def __repr__(self) -> str:
        return f"<Registry {self.host}>"

    def credentials(self) -> Credentials | None:
        """Return user and password as of now, for a program that pushes in our place."""
        return self._login.credentials()

    def close(self) -> None:
        """Let the connections go."""
        self._client.close()

    # -- blobs ----------------------------------------------------------------------------------

    def has_blob(self, repository: str, digest: str) -> bool:
        """Whether a blob is in a repository."""
        answer = self._ask("HEAD", repository, f"blobs/{digest}", "pull")
        return self._sound(answer, repository, 200, 404).status_code == 200

    def mount_blob(self, repository: str, digest: str, source: str) -> bool:
        """Take a blob over from another repository of the same registry; whether that was allowed and possible."""
        query = f"blobs/uploads/?mount={digest}&from={source}"
        # A token for the source is asked for too; who may not read it gets a 202, as one who may not mount at all.
        answer = self._ask("POST", repository, query, "pull,push", also=source)
        return self._sound(answer, repository, 201, 202).status_code == 201

    def push_blob(self, repository: str, digest: str, body: Path | bytes, sent: Sent | None = None) -> None:
        """Push a blob in one piece; ECR's upload in chunks is broken (images.md §3).

        Parameters
        ----------
        repository, digest : str
            Where to, and what it is.
        body : Path or bytes
            A file, or what would be in it.
        sent : callable, optional
            Hears how far it is.

        Raises
        ------
        RegistryDenied, RegistryUnavailable, ImageError
            It could not be pushed; a registry keeps no part of it.
        """
        patiently(lambda: self._push_once(repository, digest, body, sent), f"pushing to {self.host}/{repository}")
        with self._lock:
            self.uploaded += _size(body)

    def pull_blob(self, repository: str, digest: str, to: Path) -> Path:
        """Fetch a blob into a file, which is there whole or not at all; what was cut off goes on where it was.

        Raises
        ------
        RegistryDenied, RegistryUnavailable
            It could not be had.
        ImageError
            What came is something else.
        """
        part = to.with_name(f"{to.name}.part-{threading.get_ident()}")
        try:
            patiently(lambda: self._pull_once(repository, digest, part), f"pulling from {self.host}/{repository}")
            _verify(part, digest, f"{self.host}/{repository}")
            part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return to

    def blob(self, repository: str, digest: str) -> bytes:
        """Return a small blob, such as an image's configuration."""
        with self._streamed(repository, digest, 0) as answer:
            body = answer.read()
        if f"sha256:{sha256(body).hexdigest()}" != digest:
            raise ImageError(_other(digest, f"{self.host}/{repository}"))
        return body

    # -- manifests ------------------------------------------------------------------------------

    def manifest(self, repository: str, reference: str) -> Manifest | None:
        """Return the manifest of a tag or digest; None if there is none."""
        answer = self._ask("GET", repository, f"manifests/{reference}", "pull", headers=_ACCEPT)
        if self._sound(answer, repository, 200, 404).status_code == 404:
            return None
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        found = Manifest(media_type if media_type in MANIFESTS else media_type_of(answer.content), answer.content)
        if reference.startswith("sha256:") and found.digest != reference:
            raise ImageError(_other(reference, f"{self.host}/{repository}"))
        return found

    def put_manifest(self, repository: str, reference: str, manifest: Manifest) -> str:
        """Push a manifest by its digest or a tag, and return its digest. What it names has to be there.

        Raises
        ------
        ImageError
            The tag is taken and may not be moved, or something that it names is missing.
        """
        headers = {"Content-Type": manifest.media_type}
        answer = self._ask(
            "PUT", repository, f"manifests/{reference}", "pull,push", headers=headers, content=manifest.body
        )
        if answer.status_code in (400, 409) and any(word in answer.text for word in _IMMUTABLE):
            raise ImageError(
                f"the tag {reference} of {self.host}/{repository} is another image's already, and tags there are"
                f" immutable: {_quote(answer)}"
            )
        self._sound(answer, repository, 201)
        return manifest.digest

    # -- how ------------------------------------------------------------------------------------

    def _push_once(self, repository: str, digest: str, body: Path | bytes, sent: Sent | None) -> None:
        begun = self._sound(self._send("POST", repository, "blobs/uploads/", "pull,push"), repository, 202)
        url = httpx.URL(urljoin(self._base, begun.headers["Location"])).copy_merge_params({"digest": digest})
        headers = {"Content-Length": str(_size(body)), "Content-Type": "application/octet-stream"}

        def send(authorization: dict[str, str]) -> httpx.Response:
            # An iterator can be sent once: each attempt gets its own.
            content = _pieces(body, sent)
            own = authorization if url.host == httpx.URL(self._base).host else {}
            return self._client.put(url, headers=headers | own, content=content)

        answer = self._authorized(send, repository, "pull,push")
        if answer.status_code == 400 and "DIGEST_INVALID" in answer.text:
            raise ImageError(f"{self.host} got something else than {digest}: {_quote(answer)}")
        self._sound(answer, repository, 201)

    def _pull_once(self, repository: str, digest: str, part: Path) -> None:
        have = part.stat().st_size if part.exists() else 0
        with (
            self._streamed(repository, digest, have) as answer,
            part.open("ab" if answer.status_code == 206 else "wb") as to,
        ):
            for piece in answer.iter_bytes(_PIECE):
                to.write(piece)

    @contextmanager
    def _streamed(self, repository: str, digest: str, start: int) -> Iterator[httpx.Response]:
        ranged = {"Range": f"bytes={start}-"} if start else {}
        url = f"{self._base}/v2/{repository}/blobs/{digest}"

        def send(authorization: dict[str, str]) -> httpx.Response:
            request = self._client.build_request("GET", url, headers=ranged | authorization)
            answer = self._client.send(request, stream=True)
            if answer.is_redirect:
                elsewhere = urljoin(url, answer.headers["Location"])
                answer.close()
                answer = self._client.send(self._client.build_request("GET", elsewhere, headers=ranged), stream=True)
            return answer

        answer = self._authorized(send, repository, "pull")
        try:
            if answer.status_code == 416:  # all of it was there
                yield httpx.Response(206, content=b"")
                return
            if answer.status_code not in (200, 206):
                answer.read()
            yield self._sound(answer, repository, 200, 206)
        finally:
            answer.close()

    def _ask(self, method: str, repository: str, path: str, actions: str, **what: Any) -> httpx.Response:
        """Send a request as often as it takes."""

        def ask() -> httpx.Response:
            answer = self._send(method, repository, path, actions, **what)
            if answer.status_code == 429 or answer.status_code >= 500:
                raise RegistryUnavailable(f"{self.host} answered {_quote(answer)}")
            return answer

        return patiently(ask, f"{method} at {self.host}/{repository}")

    def _send(
        self,
        method: str,
        repository: str,
        path: str,
        actions: str,
        headers: dict[str, str] | None = None,
        content: bytes | None = None,
        also: str | None = None,
    ) -> httpx.Response:
        url = f"{self._base}/v2/{repository}/{path}"

        def send(authorization: dict[str, str]) -> httpx.Response:
            return self._client.request(method, url, headers=(headers or {}) | authorization, content=content)

        return self._authorized(send, repository, actions, also)

    def _authorized(
        self, send: Callable[[dict[str, str]], httpx.Response], repository: str, actions: str, also: str | None = None
    ) -> httpx.Response:
        """Send a request with what the registry wanted before; if it wants something else, once more with that."""
        scopes = [f"repository:{repository}:{actions}", *([f"repository:{also}:pull"] if also else [])]
        headers = self._login.headers(scopes)
        answer = send(headers)
        for _ in range(2):  # first what it asks for, then new credentials in place of expired ones
            if answer.status_code != 401 and not _has_expired(answer):
                break
            challenge = answer.headers.get("WWW-Authenticate", "" if answer.status_code == 401 else "Basic")
            answer.close()
            if not self._login.take_up(challenge, scopes, self._client, headers):
                break
            headers = self._login.headers(scopes)
            answer = send(headers)
        return answer

    def _sound(self, answer: httpx.Response, repository: str, *expected: int) -> httpx.Response:
        """Return an answer of an expected status, and raise what any other one means."""
        if answer.status_code in expected:
            return answer
        where = f"{self.host}/{repository}"
        if answer.status_code in (401, 403):
            raise RegistryDenied(
                f"{where} refuses us ({self._login.who}): {_quote(answer)}. Log in with `docker login {self.host}`, or"
                " let your AWS identity use the repository."
            )
        if answer.status_code == 404:
            raise ImageError(f"{where} does not exist: {_quote(answer)}. Make the repository, or name another.")
        if answer.status_code == 429 or answer.status_code >= 500:
            raise RegistryUnavailable(f"{self.host} answered {_quote(answer)}")
        raise ImageError(f"{where} refused it: {_quote(answer)}")


def _has_expired(answer: httpx.Response) -> bool:
    """Whether ECR says, or may say, that a password is over.

    It does so with a 403 and without a challenge (github.com/flipt-io/flipt/issues/3043); to a HEAD it gives no reason.
    """
    if answer.status_code != 403:
        return False
    return answer.request.method == "HEAD" or "authorization token has expired" in answer.read().decode(
        errors="replace"
    )


def _quote(answer: httpx.Response) -> str:
    text = " ".join(answer.text.split())[:_QUOTED] if answer.is_closed else ""
    return f"{answer.status_code} {text}".strip()


def _size(body: Path | bytes) -> int:
    return len(body) if isinstance(body, bytes) else body.stat().st_size


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


def _verify(path: Path, digest: str, where: str) -> None:
    hashed = sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            hashed.update(piece)
    if f"sha256:{hashed.hexdigest()}" != digest:
        raise ImageError(_other(digest, where))


def _other(digest: str, where: str) -> str:
    return f"{where} sent something else than {digest}; what came was thrown away. Try again, or tell who runs it."
