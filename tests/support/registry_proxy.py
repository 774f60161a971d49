"""A proxy in front of a registry that injects faults."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Fault:
    """A fault for the next `times` matching requests: a fixed response, a cut connection or a changed body."""

    method: str
    path: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"errors": [{"code": "INJECTED"}]}'
    #: Bytes of the request's or response's body after which the connection is cut.
    cut_after: int | None = None
    #: Changes the body of the response.
    spoil: Callable[[bytes], bytes] | None = None
    seen: int = 0

    def takes(self, method: str, path: str) -> bool:
        return self.times > 0 and method == self.method and self.path in path


class Proxy:
    """Forward requests to a registry, except those that match a fault."""

    def __init__(self, registry: str) -> None:
        self.registry = registry
        self.faults: list[Fault] = []
        self.requests: list[tuple[str, str]] = []
        self.authorizations: list[str | None] = []
        self.password: Callable[[str | None], bool] | None = None
        self.challenge = 'Basic realm="test"'
        self._lock = threading.Lock()

    def fault(self, method: str, path: str) -> Fault | None:
        with self._lock:
            self.requests.append((method, path))
            for each in self.faults:
                if each.takes(method, path):
                    each.times -= 1
                    each.seen += 1
                    return each
        return None


@contextmanager
def proxied(registry: str) -> Iterator[tuple[str, Proxy]]:
    """Run a proxy; yield its host and port, and the proxy."""
    proxy = Proxy(registry)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": proxy}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", proxy
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def handle_any(self) -> None:
        fault = self.proxy.fault(self.command, self.path)
        self.proxy.authorizations.append(self.headers.get("Authorization"))
        length = int(self.headers.get("Content-Length", 0))
        if fault and fault.cut_after is not None and length > fault.cut_after:
            self.rfile.read(fault.cut_after)
            self.cut()
            return
        body = self.rfile.read(length)
        if self.proxy.password and not self.proxy.password(self.headers.get("Authorization")):
            self.answer(401, {"WWW-Authenticate": self.proxy.challenge}, b"{}")
            return
        if fault and fault.status is not None:
            self.answer(fault.status, fault.headers, fault.body)
            return
        self.forward(fault, body)

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = handle_any  # noqa: N815 -- http.server's names

    def forward(self, fault: Fault | None, body: bytes) -> None:
        upstream = http.client.HTTPConnection(self.proxy.registry)
        hidden = ("host", "authorization")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in hidden}
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        found = {n: v for n, v in answer.getheaders() if n.lower() not in ("content-length", "connection")}
        if "Location" in found:  # the registry gives its own address
            found["Location"] = found["Location"].replace(self.proxy.registry, self.headers["Host"])
        if fault and fault.spoil:
            content = fault.spoil(content)
        length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        if fault and fault.cut_after is not None:
            self.answer(answer.status, {**found, "Content-Length": length}, content[: fault.cut_after])
            self.cut()
            return
        self.answer(answer.status, {**found, "Content-Length": length}, content)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self) -> None:
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
