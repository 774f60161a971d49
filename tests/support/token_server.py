"""A token server for a registry, like those of Docker Hub, GitHub and public ECR."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

SERVICE, ISSUER = "the registry", "tests"


class TokenServer:
    """Sign tokens that a registry accepts.

    Pushing requires a password; anonymous tokens allow pulling only.
    """

    def __init__(self) -> None:
        self.host = ""
        self.password = "open sesame"
        self.given: list[list[str]] = []
        self.status = 200
        #: Lifetime of tokens in seconds. A registry tolerates another minute.
        self.seconds = 300.0
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.now(UTC)
        self.certificate = (
            x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .sign(self._key, hashes.SHA256())
        )

    def answer(self, url: str, authorization: str | None) -> tuple[int, dict[str, Any]]:
        """Return the status and response to a token request."""
        query = parse_qs(urlsplit(url).query)
        known = authorization == f"Basic {base64.b64encode(f'me:{self.password}'.encode()).decode()}"
        if self.status != 200 or (authorization and not known) or query["service"] != [SERVICE]:
            return (self.status if self.status != 200 else 401), {}
        self.given.append([_sorted(scope) for scope in query["scope"]])
        return 200, {"token": self._token([self._access(scope, known) for scope in query["scope"]])}

    @staticmethod
    def _access(scope: str, known: bool) -> dict[str, Any]:
        kind, name, actions = scope.split(":")
        return {"type": kind, "name": name, "actions": actions.split(",") if known else ["pull"]}

    def _token(self, access: list[dict[str, Any]]) -> str:
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": SERVICE, "sub": "me", "nbf": now - 600, "iat": now, "jti": str(len(self.given))}
        signed = f"{_part(head)}.{_part({**claims, 'exp': int(now + self.seconds), 'access': access})}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"


@contextmanager
def serving_tokens(folder: Path) -> Iterator[tuple[TokenServer, str]]:
    """Run a token server; yield it with the registry configuration that refers to it."""
    tokens = TokenServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            status, document = tokens.answer(self.path, self.headers.get("Authorization"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(document).encode())

    (folder / "tokens.pem").write_bytes(tokens.certificate.public_bytes(serialization.Encoding.PEM))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    tokens.host = f"127.0.0.1:{server.server_port}"
    where = {
        "realm": f"http://{tokens.host}/token?from=tests",
        "service": SERVICE,
        "issuer": ISSUER,
        "rootcertbundle": str(folder / "tokens.pem"),
    }
    try:
        yield tokens, f"auth: {{token: {json.dumps(where)}}}"
    finally:
        server.shutdown()
        server.server_close()


def _sorted(scope: str) -> str:
    """Return a scope with sorted actions: the registry requests them in any order."""
    kind, name, actions = scope.split(":")
    return f"{kind}:{name}:{','.join(sorted(actions.split(',')))}"


def _part(document: dict[str, Any]) -> str:
    return _base64(json.dumps(document).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
