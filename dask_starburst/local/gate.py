"""The gate that every HTTP request comes through: it recognises the call, counts it, and sends it where it belongs."""

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
from urllib.parse import parse_qs

from dask_starburst.local.clock import Clock
from dask_starburst.local.faults import Faults, no_answer
from dask_starburst.local.throttle import Throttle as Buckets
from dask_starburst.local.weather import Calls, Error, LostResponse, Throttle, Timeout
from dask_starburst.local.wire import Answer, Protocol, Service, ServiceError, error_answer, not_implemented

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_SCOPE = re.compile(r"Credential=[^/,\s]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")
_THROTTLED: Mapping[Protocol, ServiceError] = {
    "json": ServiceError("ThrottlingException", "Rate exceeded"),
    "query": ServiceError("Throttling", "Rate exceeded"),
    "ec2": ServiceError("RequestLimitExceeded", "Request limit exceeded.", 503),
}
# moto has them, but our instances do not live through them.
_NOT_HERE = frozenset({"ec2:StopInstances", "ec2:StartInstances"})


@dataclass(frozen=True)
class Call:
    """Which operation of which service a request is for, and how errors are written there."""

    service: str
    action: str
    protocol: Protocol

    def __str__(self) -> str:
        return f"{self.service}:{self.action}"


class Gate:
    """The WSGI application in front of everything.

    Parameters
    ----------
    moto : WSGIApplication
        What answers for the services that are not our own.
    services : iterable of Service
        Our own.
    folders : mapping of str to WSGIApplication
        What answers for paths that begin with these words.
    clock : Clock
        What time it says that it is.
    operations : mapping of str to callable, optional
        What answers for single operations that moto lacks, by names such as ``"ec2:GetSpotPlacementScores"``.

    Attributes
    ----------
    faults : Faults
        What the weather does to calls.
    counts : Counter
        How often each action was called, as ``"ecs:RunTask"``, refused calls and retries included.
    throttled : int
        How many calls were refused for coming too fast.
    latency : callable
        How many real seconds to hold a call back, for clients that poll.
    """

    def __init__(
        self,
        moto: WSGIApplication,
        services: Iterable[Service],
        folders: Mapping[str, WSGIApplication],
        clock: Clock,
        operations: Mapping[str, Callable[[bytes], Answer]] | None = None,
    ) -> None:
        self._operations = operations or {}
        self._moto = moto
        self._services = {service.scope: service for service in services}
        self._folders = folders
        self._clock = clock
        self._lock = threading.Lock()
        self.faults = Faults(clock.now)
        self.throttle = Buckets(clock.now)
        self.counts: Counter[str] = Counter()
        self.throttled = 0
        self.latency: Callable[[Call], float] = lambda call: 0.0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        folder = environ.get("PATH_INFO", "").lstrip("/").partition("/")[0]
        if folder in self._folders and "HTTP_X_AMZ_TARGET" not in environ:
            return self._folders[folder](environ, start_response)
        body = _take_body(environ)
        call = recognise(environ, body)
        fault = self._admit(call)
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
                _exhaust(self._perform(call, body, environ, _unheard))
                raise no_answer()
        return self._perform(call, body, environ, self._dated(start_response))

    def snapshot(self) -> tuple[dict[str, int], int]:
        """Return the counts, and how many calls were throttled."""
        with self._lock:
            return dict(self.counts), self.throttled

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
            # moto's own answer would be an HTML page with status 500, which botocore retries.
            return _respond(error_answer(call.protocol, refusal), start_response)

    def _admit(self, call: Call) -> ServiceError | Calls | None:
        """Count a call, and return what is to happen to it instead of being performed and answered."""
        fault = self.faults.of(str(call))
        with self._lock:
            self.counts[str(call)] += 1
            if isinstance(fault, Throttle) or (fault is None and not self.throttle.admit(str(call))):
                self.throttled += 1
                return _THROTTLED[call.protocol]
        return ServiceError(fault.code, fault.message, fault.status) if isinstance(fault, Error) else fault

    def _dated(self, start_response: StartResponse) -> StartResponse:
        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            kept = [(name, value) for name, value in headers if name.lower() != "date"]
            return start_response(status, [*kept, ("Date", formatdate(self._clock.now(), usegmt=True))], *rest)

        return start


def recognise(environ: WSGIEnvironment, body: bytes) -> Call:
    """Tell which operation of which service a request calls."""
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    service = scope["service"].lower() if scope else ""
    target = environ.get("HTTP_X_AMZ_TARGET")
    if target:
        return Call(service or "unknown", target.rpartition(".")[2], "json")
    form = body.decode(errors="replace") if environ.get("CONTENT_TYPE", "").startswith("application/x-www-form") else ""
    action = parse_qs(form or environ.get("QUERY_STRING", "")).get("Action")
    if action:
        return Call(service or "unknown", action[0], "ec2" if service == "ec2" else "query")
    # The rest go by method and path, most of them S3.
    return Call(service or "s3", environ["REQUEST_METHOD"], "query")


def _unheard(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
    return lambda data: None


def _exhaust(reply: Iterable[bytes]) -> None:
    for _ in reply:
        pass


def _take_body(environ: WSGIEnvironment) -> bytes:
    """Read a form or a JSON body, and put it back for moto. Uploads to S3 are left where they are."""
    kind = environ.get("CONTENT_TYPE", "")
    if not kind.startswith(("application/x-www-form", "application/x-amz-json")):
        return b""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _respond(answer: Answer, start_response: StartResponse) -> Iterable[bytes]:
    status, kind, body = answer
    phrase = HTTPStatus(status).phrase
    start_response(f"{status} {phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
