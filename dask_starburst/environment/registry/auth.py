"""Authenticate with a registry: basic authentication, bearer tokens, or anonymous access."""

from __future__ import annotations

import base64
import ipaddress
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import httpx

from dask_starburst.environment.registry.answers import limit
from dask_starburst.environment.registry.retry import TooManyRequests
from dask_starburst.errors import RegistryDenied, RegistryUnavailable

#: User and password.
Credentials: TypeAlias = tuple[str, str]
#: Limit of a token response in bytes; a few kB are usual.
_MAX_TOKEN_BYTES = 1 << 20
#: One challenge of a ``WWW-Authenticate`` header with its parameters; a header may have several.
_SCHEME = re.compile(r"(?:^|,)\s*(basic|bearer)\b(.*?)(?=,\s*(?:basic|bearer)\b|$)", re.I)
_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))')


class Authenticator:
    """Credentials and tokens for one registry. Thread-safe.

    Parameters
    ----------
    host : str
        The registry.
    credentials : callable, optional
        Returns user and password, or None.
    """

    def __init__(self, host: str, credentials: Callable[[], Credentials | None] | None) -> None:
        self._host = host
        self._keychain = credentials or (lambda: None)
        self._lock = threading.Lock()
        self._answering = threading.Lock()
        self._basic: str | None = None
        self._used: Credentials | None = None
        self._tokens: dict[str, str] = {}

    def credentials(self) -> Credentials | None:
        """Return user and password, freshly looked up."""
        return self._keychain()

    @property
    def user(self) -> str | None:
        """The user name of the last credentials."""
        return self._used[0] if self._used else None

    @property
    def identity(self) -> str:
        """The user name for error messages, without a secret."""
        return f"as {self.user}" if self.user else "without credentials"

    def headers(self, scopes: Sequence[str]) -> dict[str, str]:
        """Return the authorization header of a request."""
        with self._lock:
            found = self._tokens.get(" ".join(scopes)) or self._basic
        return {"Authorization": found} if found else {}

    def answer_challenge(
        self, challenge: str, scopes: Sequence[str], client: httpx.Client, refused: Mapping[str, str]
    ) -> bool:
        """Answer the challenge of a 401; return whether a retry may succeed.

        Parameters
        ----------
        challenge : str
            The ``WWW-Authenticate`` header.
        scopes : sequence of str
            Scopes of the request.
        client : httpx.Client
            The client for the token request.
        refused : mapping of str to str
            The authorization header of the refused request.
        """
        with self._answering:
            # Another thread may have answered it in the meantime.
            return self.headers(scopes) != refused or self._answer_challenge(challenge, scopes, client)

    def _answer_challenge(self, challenge: str, scopes: Sequence[str], client: httpx.Client) -> bool:
        offered = {kind.lower(): rest for kind, rest in _SCHEME.findall(challenge)}
        if not offered:
            return False
        used, self._used = self._used, self._keychain()
        if "bearer" not in offered:
            fresh = _basic(self._used) if self._used else None
            with self._lock:
                changed, self._basic = fresh != self._basic, fresh
            return changed and fresh is not None
        parameters = {name: quoted or plain for name, quoted, plain in _PARAMETER.findall(offered["bearer"])}
        token = self._token(parameters, scopes, client)
        key = " ".join(scopes)
        with self._lock:
            changed, self._tokens[key] = self._tokens.get(key) != token, token
        return changed or used != self._used

    def _token(self, parameters: Mapping[str, str], scopes: Sequence[str], client: httpx.Client) -> str:
        realm = self._realm(parameters.get("realm", ""))
        query = [("service", parameters["service"])] if "service" in parameters else []
        query += [("scope", scope) for scope in (parameters.get("scope", "").split() or scopes)]
        headers = {"Authorization": _basic(self._used)} if self._used else {}
        with client.stream("GET", realm, params=[*realm.params.multi_items(), *query], headers=headers) as answer:
            limit(answer, _MAX_TOKEN_BYTES)
            answer.read()
        if answer.status_code == 429:
            raise TooManyRequests(
                f"{realm.host}, the token server of {self._host}, answered 429", answer.headers.get("Retry-After")
            )
        if answer.status_code in (400, 401, 403, 404):
            raise RegistryDenied(
                f"{self._host} refused a token ({self.identity}): {answer.status_code}. Log in with"
                f" `docker login {self._host}`."
            )
        try:
            found = answer.raise_for_status().json()
            return f"Bearer {found.get('token') or found['access_token']}"
        except (httpx.HTTPStatusError, ValueError, KeyError, AttributeError):
            # Not chained: the request contains a password.
            raise RegistryUnavailable(
                f"{realm.host}, the token server of {self._host}, answered {answer.status_code} without a token"
            ) from None

    def _realm(self, text: str) -> httpx.URL:
        """Return the URL of the token server, if a password may be sent there."""
        try:
            realm = httpx.URL(text)
        except httpx.InvalidURL:
            realm = httpx.URL()
        local = is_loopback(self._host) and is_loopback(realm.host)
        if realm.host and (realm.scheme == "https" or (realm.scheme == "http" and local)):
            return realm
        raise RegistryDenied(f"{self._host} requests tokens from {text!r}, which is not a safe address for a password.")


def is_loopback(host: str) -> bool:
    """Whether a host, with or without a port, is a loopback address."""
    name = re.sub(r":\d+$", "", host).strip("[]") if not host.count(":") > 1 or "]" in host else host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _basic(credentials: Credentials) -> str:
    return f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}"
