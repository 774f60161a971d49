"""One request to a registry and its answer: with the proof that it wants, along redirects, in words when refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn, TypeVar

import httpx

from dask_starburst.aws.faults import password_over
from dask_starburst.environment.registry.answers import limit
from dask_starburst.environment.registry.auth import Credentials, Login, is_loopback
from dask_starburst.environment.registry.documents import MOST_DOCUMENT
from dask_starburst.environment.registry.retry import ATTEMPTS, FIRST_PAUSE, Busy, patiently
from dask_starburst.errors import ImageError, RegistryDenied, RegistryUnavailable

#: Seconds until a connection stands, and between two pieces of an answer.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
#: A registry hashes all of a blob, and may copy it, before it answers: some GB take their time.
_UPLOAD_TIMEOUT = httpx.Timeout(300.0, connect=10.0)
#: How much of a registry's answer an error quotes.
_QUOTED = 500
_REDIRECTS = 5
#: Blobs as they are: what a proxy has packed for the way has other offsets and another length.
_IDENTITY = {"Accept-Encoding": "identity"}
_ECR = (
    "Allow your AWS identity ecr:GetAuthorizationToken, and on the repository ecr:BatchGetImage,"
    " ecr:GetDownloadUrlForLayer, ecr:BatchCheckLayerAvailability, ecr:InitiateLayerUpload, ecr:UploadLayerPart,"
    " ecr:CompleteLayerUpload and ecr:PutImage."
)

T = TypeVar("T")

#: Gives the body of a request anew for each attempt: an iterator can be sent once.
Content = Callable[[], bytes | Iterable[bytes]]


class Exchange:
    """Requests to one registry. Safe from several threads.

    Parameters
    ----------
    host : str
        As it stands in the name of an image. Loopback is spoken to in plain HTTP and past any proxy, all others in
        HTTPS.
    credentials : callable, optional
        Gives user and password, or None.
    pause : float
        Seconds before a second attempt; twice as many before each further one.
    attempts : int
        How many attempts in a row may fail.
    patience : float, optional
        Seconds for a connection, and between two parts of an answer.
    """

    def __init__(
        self,
        host: str,
        credentials: Callable[[], Credentials | None] | None,
        pause: float = FIRST_PAUSE,
        attempts: int = ATTEMPTS,
        patience: float | None = None,
    ) -> None:
        self.host = host
        self._pause = pause
        self._attempts = attempts
        self._timeout = _TIMEOUT if patience is None else httpx.Timeout(patience)
        near = is_loopback(host)
        self.base = httpx.URL(f"{'http' if near else 'https'}://{host}")
        self.login = Login(host, credentials)
        # Redirects are followed by hand: a blob may be at another host, which must not see the credentials.
        self._client = httpx.Client(
            timeout=self._timeout, follow_redirects=False, trust_env=not near, headers=_IDENTITY
        )

    def close(self) -> None:
        """Let the connections go."""
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
        """Send a request as often as it takes, and return an answer of an expected status.

        Parameters
        ----------
        method, path : str
            The path is ``"repository/what"``, below ``/v2/``.
        *expected : int
            The statuses that are no error.
        actions : str
            What is done to the repository, as tokens name it: ``"pull,push"``.
        also : str, optional
            Another repository that is read.
        headers, content : optional
            What goes along.
        """
        what = f"{method} {self.host}/{path.partition('?')[0]}"
        body = None if content is None else lambda: content
        wanted = scopes(path, actions, also)

        def once() -> httpx.Response:
            return self.once(method, self.url(path), *expected, wanted=wanted, headers=headers, content=body)

        return self.patiently(once, what)

    def patiently(self, attempt: Callable[[], T], what: str, progress: Callable[[], int] = lambda: 0) -> T:
        """Make an attempt, and another one after the registry's pause; see `patience.patiently`."""
        return patiently(attempt, what, progress, self._pause, self._attempts)

    def once(
        self,
        method: str,
        url: httpx.URL,
        *expected: int,
        wanted: Sequence[str],
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
    ) -> httpx.Response:
        """Send a request, with what the registry asks for but without any patience; return an expected answer."""
        with self.streamed(method, url, *expected, wanted=wanted, headers=headers, content=content) as answer:
            answer.read()
        return answer

    @contextmanager
    def streamed(
        self,
        method: str,
        url: httpx.URL,
        *expected: int,
        wanted: Sequence[str],
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
        most: int = MOST_DOCUMENT,
    ) -> Iterator[httpx.Response]:
        """Do the same; the answer's body, of `most` bytes, is still to be read."""

        def send(authorization: Mapping[str, str]) -> httpx.Response:
            return self._follow(method, url, authorization, headers or {}, content, most)

        answer = self._authorized(send, wanted)
        try:
            if answer.status_code not in expected:
                answer.read()
                self._refuse(answer, wanted[0].split(":")[1])
            yield answer
        finally:
            answer.close()

    def url(self, path: str) -> httpx.URL:
        """Return where something is: below ``/v2/``, or where the registry itself has said."""
        return self.base.join(f"/v2/{path}")

    def location(self, answer: httpx.Response) -> httpx.URL:
        """Return what an answer points to; it may be relative.

        Raises
        ------
        RegistryUnavailable
            It points to nothing.
        """
        try:
            url = answer.request.url.join(answer.headers["Location"])
        except (KeyError, httpx.InvalidURL) as error:
            raise RegistryUnavailable(
                f"{self.host} answered {answer.status_code} without saying where to go on, as no registry does. Is it"
                " one, or is a proxy in between?"
            ) from error
        if url.scheme not in ("https", self.base.scheme):
            raise ImageError(
                f"{self.host} points to {url.scheme}://{url.host}, which is not encrypted; what is pulled or pushed"
                " would be open to anybody in between. Use another registry."
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
        """Send a request; what is only read may be somewhere else."""
        timeout = _UPLOAD_TIMEOUT if content else self._timeout
        for _ in range(_REDIRECTS + 1):
            body = content() if content else None
            own = authorization if self._is_ours(url) else {}
            request = self._client.build_request(method, url, headers={**headers, **own}, content=body, timeout=timeout)
            answer = self._client.send(request, stream=True)
            limit(answer, most if answer.status_code in (200, 206) else MOST_DOCUMENT)
            if method not in ("GET", "HEAD") or not answer.has_redirect_location:
                return answer
            answer.close()
            url = self.location(answer)
        raise RegistryUnavailable(f"{self.host} sends us from one place to the next without an end.")

    def _authorized(self, send: Callable[[Mapping[str, str]], httpx.Response], wanted: Sequence[str]) -> httpx.Response:
        """Send a request with what the registry wanted before; if it wants something else, once more with that."""
        headers = self.login.headers(wanted)
        answer = send(headers)
        for _ in range(2):  # what another thread has got in the meantime may be over, too
            # Somebody else's 401 is no question of the registry's: who answered it would give the password away.
            if not self._is_ours(answer.request.url) or not (answer.status_code == 401 or _has_expired(answer)):
                break
            challenge = answer.headers.get("WWW-Authenticate", "" if answer.status_code == 401 else "Basic")
            answer.read()  # not just closed: it may be what the user reads
            if not self.login.take_up(challenge, wanted, self._client, headers):
                break
            headers = self.login.headers(wanted)
            answer = send(headers)
        return answer

    def _is_ours(self, url: httpx.URL) -> bool:
        """Whether an address is the registry's own, by its scheme and port too."""
        return (url.scheme, url.host, url.port) == (self.base.scheme, self.base.host, self.base.port)

    def _refuse(self, answer: httpx.Response, repository: str) -> NoReturn:
        """Raise what an answer means."""
        where, status = f"{self.host}/{repository}", answer.status_code
        if not self._is_ours(answer.request.url):  # a link that the registry gave; it gives another one
            raise RegistryUnavailable(f"the storage of {self.host}, {answer.request.url.host}, answered {status}")
        if status in (401, 403):
            raise RegistryDenied(f"{where} refuses us ({self.login.who}): {quote(answer)}. {self._way_in()}")
        if status == 429:
            raise Busy(f"{self.host} answered {quote(answer)}", answer.headers.get("Retry-After"))
        if status >= 500:
            raise RegistryUnavailable(f"{self.host} answered {quote(answer)}")
        if status == 404:
            raise ImageError(
                f"{where} does not exist, or not what was asked of it: {quote(answer)}. Make the repository, or name"
                " another."
            )
        raise ImageError(f"{where} refused it: {quote(answer)}")

    def _way_in(self) -> str:
        return _ECR if self.login.user == "AWS" else f"Log in with `docker login {self.host}`, or name another image."


def scopes(path: str, actions: str, also: str | None = None) -> list[str]:
    """Return what a token has to allow, the repository of the path first."""
    repository = path.partition("/blobs/")[0].partition("/manifests/")[0]
    return [f"repository:{repository}:{actions}", *([f"repository:{also}:pull"] if also else [])]


def quote(answer: httpx.Response) -> str:
    """Return what a registry says, after it has been read: its own words, where it follows the specification."""
    try:
        said = "; ".join(f"{each['code']}: {each.get('message', '')}" for each in answer.json()["errors"])
    except (ValueError, KeyError, TypeError, AttributeError):
        said = answer.text
    # What cannot be printed might be meant for the terminal that this is shown on.
    said = "".join(c if c.isprintable() else " " for c in said)
    return f"{answer.status_code} {' '.join(said.split())[:_QUOTED]}".strip()


def _has_expired(answer: httpx.Response) -> bool:
    """Whether ECR says, or may say, that a password is over.

    It does so with a 403 and without a challenge; to a HEAD it gives no reason.
    """
    if answer.status_code != 403:
        return False
    return answer.request.method == "HEAD" or password_over(answer.read().decode("utf-8", "replace"))
