"""An HTTP proxy between a client and the embedded AWS: it records the client's calls, and can act at a given one.

Schedulers and instances do not use the proxy, so it affects the client only.
"""

from __future__ import annotations

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dask_starburst.local import LocalAWS, endpoints
from dask_starburst.local.http.protocols import Protocol, ServiceError, error_answer

_SCOPE = re.compile(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/")
_READS = ("Describe", "List", "Get")
_OWN = {"transfer-encoding", "connection", "content-length"}

#: A callback for a call, before it is forwarded or after AWS has performed it.
Hook = Callable[[str], bool]


class ClientProxy:
    """Forwards a client's calls to an embedded AWS; with a ``refusal`` it answers every call with that error.

    Calls are named ``ecs:RunTask 2``: the second call of that action since the proxy was started. Read-only calls
    are neither numbered nor recorded.

    Parameters
    ----------
    aws : LocalAWS
        The embedded AWS to forward to.
    before, after : callable
        Called with the name of a mutating call, before it is forwarded, and after AWS has performed it and before
        the client has the response. If it returns True, the connection is closed without a response.
    """

    def __init__(self, aws: LocalAWS, before: Hook = lambda call: False, after: Hook = lambda call: False) -> None:
        self.before = before
        self.after = after
        self.calls: list[str] = []
        self.refusal: ServiceError | None = None
        self._connections: set[socket.socket] = set()
        self._numbers: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._aws = urlsplit(aws.endpoint_url).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        # The proxy accepts the same token as the embedded AWS.
        endpoints.write(replace(endpoints.read(aws.endpoint_url), url=self.endpoint_url))
        self._server.daemon_threads = False  # closing waits for requests in progress
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint_url(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ClientProxy:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the proxy after AWS has answered all forwarded calls."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        for connection in tuple(self._connections):
            with suppress(OSError):  # it has just ended
                connection.shutdown(socket.SHUT_RD)  # no more requests; one in progress is answered
        self._server.server_close()

    def _name(self, headers: Any, body: bytes) -> str:
        """Return the name of a call; empty if it is read-only or not an AWS call."""
        scope = _SCOPE.search(headers.get("Authorization", ""))
        if scope is None:
            return ""
        target = headers.get("X-Amz-Target")
        action = target.rpartition(".")[2] if target else parse_qs(body.decode()).get("Action", [""])[0]
        if action.startswith(_READS):
            return ""
        with self._lock:
            self._numbers[f"{scope[1]}:{action}"] += 1
            name = f"{scope[1]}:{action} {self._numbers[f'{scope[1]}:{action}']}"
            self.calls.append(name)
        return name

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(self._aws, timeout=60)
        try:
            connection.request(handler.command, handler.path, body, dict(handler.headers))
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805 -- "self" is the handler's below
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                proxy._connections.add(self.connection)

            def finish(self) -> None:
                proxy._connections.discard(self.connection)
                super().finish()

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:  # the client is gone
                    self.close_connection = True

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = proxy._name(self.headers, body)
                if call and proxy.before(call):
                    self.close_connection = True
                    return
                if proxy.refusal is not None and "Authorization" in self.headers:
                    status, kind, answer = error_answer(_protocol(self.headers), proxy.refusal)
                    self._answer(status, {"Content-Type": kind}, answer)
                    return
                response, answer = proxy._ask(self, body)
                if call and proxy.after(call):
                    self.close_connection = True
                    return
                kept = {k: v for k, v in response.getheaders() if k.lower() not in _OWN}
                self._answer(response.status, kept, answer)

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 -- http.server's names

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        return Handler


def _protocol(headers: Any) -> Protocol:
    if headers.get("X-Amz-Target"):
        return "json"
    scope = _SCOPE.search(headers["Authorization"])
    return "ec2" if scope and scope[1] == "ec2" else "query"
