"""The caller's public address, from a page that may return anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dask_starburst.aws.addresses import is_loopback
from dask_starburst.aws.identity import _admissible, caller_cidr
from dask_starburst.errors import AWSError

PAGE = "https://checkip.amazonaws.com"
NEAR = "http://127.0.0.1:5000/_local/ip"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ("0.0.0.0/0", "not an address"),
        ("0.0.0.0/1", "not an address"),
        ("8.8.8.8/0", "not an address"),
        ("8.8.8.8/32", "not an address"),
        ("", "not an address"),
        ("<html>Please log in</html>", "not an address"),
        ("8.8.8.8\n9.9.9.9", "not an address"),
        ("8.8.8.8, 9.9.9.9", "not an address"),
        ("8" * 65, "not an address"),
        ("134744072", "not an address"),
        ("0.0.0.0", "not a public address"),
        ("10.1.2.3", "not a public address"),
        ("192.168.1.7", "not a public address"),
        ("100.64.0.1", "not a public address"),
        ("127.0.0.1", "not a public address"),
        ("169.254.169.254", "not a public address"),
        ("224.0.0.1", "not a public address"),
        ("255.255.255.255", "not a public address"),
        ("2001:4860:4860::8888", "IPv4"),
    ],
)
def test_an_answer_that_is_not_a_valid_address_is_refused(answer: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        _admissible(answer, PAGE)


def test_an_address_becomes_a_cidr_of_one_address() -> None:
    assert _admissible("8.8.8.8", PAGE) == "8.8.8.8/32"
    assert _admissible("127.0.0.1", NEAR) == "127.0.0.1/32"
    with pytest.raises(ValueError, match="not a loopback address"):
        _admissible("8.8.8.8", NEAR)


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Do not log."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("body", [b"0.0.0.0/0", b"127.0.0.1" + b" " * 1_000_000, b"\xff\xfe", b"127.0.0.1/32"])
def test_a_refused_address_suggests_the_setting(body: bytes) -> None:
    with answering(body) as url, pytest.raises(AWSError, match='"caller": "203'):
        asyncio.run(caller_cidr(url))


def test_loopback_urls_bypass_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    with answering(b"127.0.0.1\n") as url:
        assert asyncio.run(caller_cidr(url)) == "127.0.0.1/32"


@pytest.mark.parametrize(
    ("url", "near"),
    [
        ("http://127.0.0.1:5000", True),
        ("http://localhost:5000/a", True),
        ("http://[::1]:5000", True),
        ("https://checkip.amazonaws.com", False),
        ("http://127.0.0.1.evil.test", False),
        ("http://user@evil.test/127.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_urls_are_recognised(url: str, near: bool) -> None:
    assert is_loopback(url) is near
