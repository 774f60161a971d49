"""The router of every HTTP request.

It authorizes a request, identifies the call, counts it, and forwards it to its service.
"""

from __future__ import annotations

import io
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from dask_starburst.local.backend.clock import Clock
from dask_starburst.local.backend.keys import TOKEN_HEADER, Keys
from dask_starburst.local.faults.events import Calls, Error, LostResponse, Throttle, Timeout
from dask_starburst.local.http.authorize import Authorizer, signs_body
from dask_starburst.local.http.call_faults import Faults, no_answer
from dask_starburst.local.http.protocols import Answer, Protocol, Service, ServiceError, error_answer, not_implemented
from dask_starburst.local.http.throttle import Throttle as Buckets

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_SCOPE = re.compile(r"Credential=[^/,\s]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
#: Accepted Host headers. Other names are refused because of DNS rebinding.
_HOSTS = frozenset({"127.0.0.1", "localhost"})
#: Headers that only browsers send. Web pages must not reach the server or learn that it exists.
_OF_BROWSERS = ("HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE", "HTTP_SEC_FETCH_MODE", "HTTP_SEC_FETCH_DEST")
_TOKEN = "HTTP_" + TOKEN_HEADER.upper().replace("-", "_")
#: Paths that need the token, and endpoints with an unguessable path.
_CONTROLS = frozenset({"_local", "moto-api"})
_PRIVATE = frozenset({"imds", "ecs", "credentials", "agent", "checkip"})
#: The largest body of a call; AWS's limits are lower.
_MOST_BODY = 16 << 20
_THROTTLED: Mapping[Protocol, ServiceError] = {
    "json": ServiceError("ThrottlingException", "Rate exceeded"),
    "query": ServiceError("Throttling", "Rate exceeded"),
    "ec2": ServiceError("RequestLimitExceeded", "Request limit exceeded.", 503),
    "s3": ServiceError("SlowDown", "Please reduce your request rate.", 503),
}
# moto implements them, but the instance lifecycle here does not.
_NOT_HERE = frozenset({"ec2:StopInstances", "ec2:StartInstances"})


@dataclass(frozen=True)
class Call:
    """The service and operation of a request, and the protocol for errors."""

    service: str
    action: str
    protocol: Protocol

    def __str__(self) -> str:
        return f"{self.service}:{self.action}"


class Router:
    """The WSGI application in front of all services.

    Parameters
    ----------
    moto : WSGIApplication
        Answers for services that are not implemented here.
    services : iterable of Service
        The services implemented here.
    folders : mapping of str to WSGIApplication
        Applications by the first part of the path.
    clock : Clock
        The time of its ``Date`` headers.
    keys : Keys
        The accepted credentials and secrets.
    operations : mapping of str to callable, optional
        Handlers of single operations that moto lacks, by names such as ``"ec2:GetSpotPlacementScores"``.

    Attributes
    ----------
    faults : Faults
        Injected faults of calls.
    counts : Counter
        Number of calls of each action, as ``"ecs:RunTask"``, refused calls and retries included.
    throttled : int
        Number of throttled calls.
    latency : callable
        Returns the real seconds to delay a call.
    denial : callable
        Returns the error of a call that its caller has no right to; None if it is allowed.
    """

    def __init__(
        self,
        moto: WSGIApplication,
        services: Iterable[Service],
        folders: Mapping[str, WSGIApplication],
        clock: Clock,
        keys: Keys,
        operations: Mapping[str, Callable[[bytes], Answer]] | None = None,
    ) -> None:
        self._operations = operations or {}
        self._moto = moto
        self._services = {service.scope: service for service in services}
        self._folders = folders
        self._clock = clock
        self._keys = keys
        self._lock = threading.Lock()
        self.faults = Faults(clock.now)
        self._authorizer = Authorizer(keys, self._now)
        self.throttle = Buckets(clock.now)
        self.counts: Counter[str] = Counter()
        self.throttled = 0
        self.latency: Callable[[Call], float] = lambda call: 0.0
        self.denial: Callable[[WSGIEnvironment, Call, bytes], ServiceError | None] = lambda environ, call, body: None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        forbidden = _why_forbidden(environ)
        if forbidden:
            return _respond((403, "text/plain", forbidden.encode()), start_response)
        folder = environ.get("PATH_INFO", "").lstrip("/").partition("/")[0]
        if folder in self._folders and "HTTP_X_AMZ_TARGET" not in environ:
            return self._open(folder, environ, start_response)
        body = _take_body(environ)
        if body is not None and len(body) > _MOST_BODY and service_of(environ) != "s3":
            return _respond((413, "text/plain", b"Request Entity Too Large"), start_response)
        call = recognise(environ, body or b"")
        refusal = self._authorizer.refusal(call.protocol, environ, body, unknown=self.faults.not_enabled)
        if refusal is not None:
            # Signatures have the real time, and so has the answer to one that is refused.
            return _respond(error_answer(call.protocol, refusal), self._dated(start_response, self._now()))
        return self._call(call, body or b"", environ, start_response)

    def snapshot(self) -> tuple[dict[str, int], int]:
        """Return the counts and the number of throttled calls."""
        with self._lock:
            return dict(self.counts), self.throttled

    def _open(self, folder: str, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request that is not an AWS call."""
        if folder in _CONTROLS and not self._keys.is_token(environ.get(_TOKEN, "")):
            refused = f"this needs the token of this embedded AWS in the header {TOKEN_HEADER}"
            return _respond((403, "text/plain", refused.encode()), start_response)
        if folder in _PRIVATE:
            path = self._keys.public_path(environ["PATH_INFO"])
            if path is None:
                return _respond((404, "text/plain", b""), start_response)
            environ["PATH_INFO"] = path
        return self._folders[folder](environ, self._dated(start_response) if folder == "moto-api" else start_response)

    def _call(
        self, call: Call, body: bytes, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        fault = self._admit(call) or self.denial(environ, call, body)
        pause = self.latency(call)
        if pause > 0:
            time.sleep(pause)
        match fault:
            case ServiceError():
                return _respond(error_answer(call.protocol, fault), self._dated(start_response))
            case Timeout():
                time.sleep(fault.hold / self._clock.speed)
                raise no_answer()
            case LostResponse():
                _exhaust(self._perform(call, body, environ, _discard))
                raise no_answer()
        return self._perform(call, body, environ, self._dated(start_response))

    def _perform(
        self, call: Call, body: bytes, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        service = self._services.get(call.service)
        if service is not None:
            return _respond(service.answer(call.action, body), start_response)
        if str(call) in self._operations:
            return _respond(self._operations[str(call)](body), start_response)
        refusal = not_implemented(call.protocol, call.service, call.action)
        if str(call) in _NOT_HERE:
            return _respond(error_answer(call.protocol, refusal), start_response)
        try:
            return self._moto(environ, start_response)
        except NotImplementedError:
            # moto would answer with an HTML page and status 500, which botocore retries.
            return _respond(error_answer(call.protocol, refusal), start_response)

    def _admit(self, call: Call) -> ServiceError | Calls | None:
        """Count a call; return an error or a fault to apply instead of the normal answer."""
        fault = self.faults.of(str(call))
        with self._lock:
            self.counts[str(call)] += 1
            if isinstance(fault, Throttle) or (fault is None and not self.throttle.admit(str(call))):
                self.throttled += 1
                return _THROTTLED[call.protocol]
        return ServiceError(fault.code, fault.message, fault.status) if isinstance(fault, Error) else fault

    def _now(self) -> float:
        """Return AWS's time in real seconds, which the clock of the callers may differ from."""
        return time.time() + self.faults.behind

    def _dated(self, start_response: StartResponse, now: float | None = None) -> StartResponse:
        date = formatdate(self._clock.now() if now is None else now, usegmt=True)

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(name, value) for name, value in headers if not _is_overridden(name)]
            return start_response(status, [*kept, ("Date", date)], *rest)

        return start


def service_of(environ: WSGIEnvironment) -> str:
    """Return the service that a request is signed for; empty if it is not signed."""
    signed = environ.get("HTTP_AUTHORIZATION") or unquote(environ.get("QUERY_STRING", ""))
    scope = _SCOPE.search(signed)
    return scope["service"].lower() if scope else ""


def recognise(environ: WSGIEnvironment, body: bytes) -> Call:
    """Return the service and operation that a request calls."""
    service = service_of(environ)
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        return Call(service or "unknown", target.rpartition(".")[2], "json")
    form = body.decode(errors="replace") if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form") else ""
    action = parse_qs(form or environ.get("QUERY_STRING", "")).get("Action")
    if action:
        return Call(service or "unknown", action[0], "ec2" if service == "ec2" else "query")
    # The remaining services are identified by method and path, mostly S3.
    return Call(service or "s3", environ["REQUEST_METHOD"], "s3" if service in ("s3", "") else "query")


def _why_forbidden(environ: WSGIEnvironment) -> str | None:
    """Return why a request may come from a web page; None if it does not."""
    host = environ.get("HTTP_HOST", "").rpartition(":")[0] or environ.get("HTTP_HOST", "")
    if host not in _HOSTS:
        return f"this server is not called {host!r}: ask for http://127.0.0.1"
    if any(name in environ for name in _OF_BROWSERS):
        return "the embedded AWS does not answer web pages"
    return None


def _is_overridden(header: str) -> bool:
    """Return whether to replace or drop moto's header: dates are virtual, and CORS is not allowed."""
    return header.lower() == "date" or header.lower().startswith("access-control-")


def _discard(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
    return lambda data: None


def _exhaust(reply: Iterable[bytes]) -> None:
    for _ in reply:
        pass


def _take_body(environ: WSGIEnvironment) -> bytes | None:
    """Read a body and put it back for moto. None for an S3 upload whose hash is not signed: it is not read."""
    if service_of(environ) != "s3":
        body: bytes = environ["wsgi.input"].read(_MOST_BODY + 1)
    elif signs_body(environ):
        body = environ["wsgi.input"].read()
    else:
        return None
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _respond(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    status, kind, body = answer
    phrase = HTTPStatus(status).phrase
    start_response(f"{status} {phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
