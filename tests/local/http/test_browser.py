"""A web page cannot use a local embedded AWS. With a real browser, Debian's chromium."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dask_starburst.local import LocalAWS, endpoints
from dask_starburst.local.backend.keys import TOKEN_HEADER

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")

ATTACKS = (Path(__file__).parent / "page.js").read_text()


class Page(BaseHTTPRequestHandler):
    """An empty page."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>a page</title><body></body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def page_at(host: str, *rules: str) -> Iterator[Any]:
    """Open an empty page in a browser that resolves a name to this computer."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server, playwright.sync_playwright() as play:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        arguments = [f"--host-resolver-rules={', '.join(rules)}", "--no-proxy-server"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=arguments, chromium_sandbox=False)
        page = browser.new_page()
        page.goto(f"http://{host}:{server.server_port}/")
        try:
            yield page
        finally:
            browser.close()
            server.shutdown()


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1"], ids=["elsewhere", "another server on this computer"])
def test_a_web_page_can_neither_read_nor_call_the_embedded_aws(aws: LocalAWS, host: str) -> None:
    token, before = endpoints.read(aws.endpoint_url).token, aws.status()
    with page_at(host, "MAP evil.example 127.0.0.1") as page:
        tried = page.evaluate(ATTACKS, [aws.endpoint_url, token, TOKEN_HEADER])
        assert not {name: text for name, text in tried.items() if text not in ("refused", "")}
        # DNS rebinding: the page's host name resolves to the embedded AWS, so the browser lets it read answers.
        rebound = f"http://evil.example:{urlsplit(aws.endpoint_url).port}"
        page.goto(rebound)
        tried = page.evaluate(ATTACKS, [rebound, token, TOKEN_HEADER])
        said = {text for text in [*tried.values(), page.evaluate("document.body.innerText")] if text != "refused"}
        assert said == {"", "this server is not called 'evil.example': ask for http://127.0.0.1"}
    after = aws.status()
    assert (after.pid, after.calls, after.clusters) == (before.pid, before.calls, before.clusters)
    assert after.now - before.now < 1_000_000, "the page must not advance the clock"
