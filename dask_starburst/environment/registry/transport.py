"""Requests to a registry: authentication, redirects, retries and errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import httpx

from dask_starburst.aws.faults import password_over
from dask_starburst.environment.registry.answers import limit
from dask_starburst.environment.registry.auth import Authenticator, Credentials, is_loopback
from dask_starburst.environment.registry.documents import MAX_DOCUMENT_BYTES
from dask_starburst.environment.registry.retry import ATTEMPTS, FIRST_PAUSE, TooManyRequests, retry
from dask_starburst.errors import ImageError, RegistryDenied, RegistryUnavailable

#: Seconds to connect, and between two chunks of a response.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
#: A registry hashes a blob, and may copy it, before it answers: this takes time for several GB.
_UPLOAD_TIMEOUT = httpx.Timeout(300.0, connect=10.0)
#: Characters of a registry's response that an error quotes.
_QUOTED = 500
_REDIRECTS = 5
#: Blobs without encoding: one that a proxy compressed has other offsets and another length.
_IDENTITY = {"Accept-Encoding": "identity"}
_ECR = (
    "Allow your AWS identity ecr:GetAuthorizationToken, and on the repository ecr:BatchGetImage,"
    " ecr:GetDownloadUrlForLayer, ecr:BatchCheckLayerAvailability, ecr:InitiateLayerUpload, ecr:UploadLayerPart,"
    " ecr:CompleteLayerUpload and ecr:PutImage."
)

T = TypeVar("T")

#: Returns the body of a request for each attempt: an iterator can be sent once only.
Content = Callable[[], bytes | Iterable[bytes]]


class Transport:
    """Requests to one registry. Thread-safe.

    Parameters
    ----------
    host : str
        The host part of an image name. Loopback addresses use plain HTTP without a proxy, all others HTTPS.
    credentials : callable, optional
        Returns user and password, or None.
    pause : float
        Seconds before the second attempt; doubled for each further one.
    attempts : int
        Number of consecutive attempts.
    timeout : float, optional
        Seconds to connect, and between two chunks of a response.
    """

    def __init__(
        self,
        host: str,
        credentials: Callable[[], Credentials | None] | None,
        pause: float = FIRST_PAUSE,
        attempts: int = ATTEMPTS,
        timeout: float | None = None,
    ) -> None:
        self.host = host
        self._pause = pause
        self._attempts = attempts
        self._timeout = _TIMEOUT if timeout is None else httpx.Timeout(timeout)
        local = is_loopback(host)
        self.base = httpx.URL(f"{'http' if local else 'https'}://{host}")
        self.auth = Authenticator(host, credentials)
        # Redirects are followed explicitly: a blob may be on another host, which must not see the credentials.
        self._client = httpx.Client(
            timeout=self._timeout, follow_redirects=False, trust_env=not local, headers=_IDENTITY
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(
        self,
        method: str,
        path: str,
        *expected: int,
        actions: str = "pull",
        also: str | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Send a request, with retries, and return a response with an expected status.

        Parameters
        ----------
        method, path : str
            The path, below ``/v2/``.
        *expected : int
            Statuses that are not an error.
        actions : str
            Actions on the repository, as in a token's scope: ``"pull,push"``.
        also : str, optional
            Another repository to read from.
        headers, content : optional
            Headers and body of the request.
        """
        what = f"{method} {self.host}/{path.partition('?')[0]}"
        body = None if content is None else lambda: content
        scope = scopes(path, actions, also)

        def once() -> httpx.Response:
            return self.once(method, self.url(path), *expected, scope=scope, headers=headers, content=body)

        return self.retry(once, what)

    def retry(self, attempt: Callable[[], T], what: str, progress: Callable[[], int] = lambda: 0) -> T:
        """Call a function with this registry's pause and number of attempts; see `retry.retry`."""
        return retry(attempt, what, progress, self._pause, self._attempts)

    def once(
        self,
        method: str,
        url: httpx.URL,
        *expected: int,
        scope: Sequence[str],
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
    ) -> httpx.Response:
        """Send an authenticated request without retries; return a response with an expected status."""
        with self.streamed(method, url, *expected, scope=scope, headers=headers, content=content) as answer:
            answer.read()
        return answer

    @contextmanager
    def streamed(
        self,
        method: str,
        url: httpx.URL,
        *expected: int,
        scope: Sequence[str],
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
        most: int = MAX_DOCUMENT_BYTES,
    ) -> Iterator[httpx.Response]:
        """Do the same without reading the body, which is limited to `most` bytes."""

        def send(authorization: Mapping[str, str]) -> httpx.Response:
            return self._follow(method, url, authorization, headers or {}, content, most)

        answer = self._authorized(send, scope)
        try:
            if answer.status_code not in expected:
                answer.read()
                self._refuse(answer, scope[0].split(":")[1])
            yield answer
        finally:
            answer.close()

    def url(self, path: str) -> httpx.URL:
        """Return the URL of a path below ``/v2/``, or of a location that the registry gave."""
        return self.base.join(f"/v2/{path}")

    def location(self, answer: httpx.Response) -> httpx.URL:
        """Return the `Location` of a response; it may be relative.

        Raises
        ------
        RegistryUnavailable
            The response has no valid `Location`.
        """
        try:
            url = answer.request.url.join(answer.headers["Location"])
        except (KeyError, httpx.InvalidURL) as error:
            raise RegistryUnavailable(
                f"{self.host} answered {answer.status_code} without a valid Location header. Is it a registry, or is a"
                " proxy in between?"
            ) from error
        if url.scheme not in ("https", self.base.scheme):
            raise ImageError(
                f"{self.host} redirects to {url.scheme}://{url.host}, which is not encrypted: transfers could be read"
                " and changed in transit. Use another registry."
            )
        return url

    def _follow(
        self,
        method: str,
        url: httpx.URL,
        authorization: Mapping[str, str],
        headers: Mapping[str, str],
        content: Content | None,
        most: int,
    ) -> httpx.Response:
        """Send a request, and follow redirects of GET and HEAD."""
        timeout = _UPLOAD_TIMEOUT if content else self._timeout
        for _ in range(_REDIRECTS + 1):
            body = content() if content else None
            own = authorization if self._is_registry_url(url) else {}
            request = self._client.build_request(method, url, headers={**headers, **own}, content=body, timeout=timeout)
            answer = self._client.send(request, stream=True)
            limit(answer, most if answer.status_code in (200, 206) else MAX_DOCUMENT_BYTES)
            if method not in ("GET", "HEAD") or not answer.has_redirect_location:
                return answer
            answer.close()
            url = self.location(answer)
        raise RegistryUnavailable(f"{self.host} redirected more than {_REDIRECTS} times.")

    def _authorized(self, send: Callable[[Mapping[str, str]], httpx.Response], scope: Sequence[str]) -> httpx.Response:
        """Send a request with the known authorization; answer a challenge of the registry and send it again."""
        headers = self.auth.headers(scope)
        answer = send(headers)
        for _ in range(2):  # a token that another thread obtained meanwhile may have expired, too
            # A 401 of another host is not a challenge of the registry: answering it would leak the password.
            if not self._is_registry_url(answer.request.url) or not (answer.status_code == 401 or _has_expired(answer)):
                break
            challenge = answer.headers.get("WWW-Authenticate", "" if answer.status_code == 401 else "Basic")
            answer.read()  # not only closed: an error may quote it
            if not self.auth.answer_challenge(challenge, scope, self._client, headers):
                break
            headers = self.auth.headers(scope)
            answer = send(headers)
        return answer

    def _is_registry_url(self, url: httpx.URL) -> bool:
        """Whether a URL has the registry's scheme, host and port."""
        return (url.scheme, url.host, url.port) == (self.base.scheme, self.base.host, self.base.port)

    def _refuse(self, answer: httpx.Response, repository: str) -> NoReturn:
        """Raise the error for an unexpected response."""
        where, status = f"{self.host}/{repository}", answer.status_code
        if not self._is_registry_url(answer.request.url):  # a retry gets another link from the registry
            raise RegistryUnavailable(f"the storage of {self.host}, {answer.request.url.host}, answered {status}")
        if status in (401, 403):
            raise RegistryDenied(f"{where} denied access ({self.auth.identity}): {quote(answer)}. {self._hint()}")
        if status == 429:
            raise TooManyRequests(f"{self.host} answered {quote(answer)}", answer.headers.get("Retry-After"))
        if status >= 500:
            raise RegistryUnavailable(f"{self.host} answered {quote(answer)}")
        if status == 404:
            raise ImageError(
                f"{where}, or the requested part of it, does not exist: {quote(answer)}. Create the repository, or"
                " name another one."
            )
        raise ImageError(f"{where} refused it: {quote(answer)}")

    def _hint(self) -> str:
        return _ECR if self.auth.user == "AWS" else f"Log in with `docker login {self.host}`, or name another image."


def scopes(path: str, actions: str, also: str | None = None) -> list[str]:
    """Return the scopes of a token, starting with the repository of the path."""
    repository = path.partition("/blobs/")[0].partition("/manifests/")[0]
    return [f"repository:{repository}:{actions}", *([f"repository:{also}:pull"] if also else [])]


def quote(answer: httpx.Response) -> str:
    """Return the status and message of a response that was read: its error codes, if it follows the specification."""
    try:
        said = "; ".join(f"{each['code']}: {each.get('message', '')}" for each in answer.json()["errors"])
    except (ValueError, KeyError, TypeError, AttributeError):
        said = answer.text
    # Control characters could be escape sequences for the user's terminal.
    said = "".join(c if c.isprintable() else " " for c in said)
    return f"{answer.status_code} {' '.join(said.split())[:_QUOTED]}".strip()


def _has_expired(answer: httpx.Response) -> bool:
    """Whether ECR says, or may say, that a password has expired.

    It answers with a 403 without a challenge, and gives no reason for a HEAD request.
    """
    if answer.status_code != 403:
        return False
    return answer.request.method == "HEAD" or password_over(answer.read().decode("utf-8", "replace"))
