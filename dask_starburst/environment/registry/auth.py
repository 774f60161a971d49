"""How a registry wants to be asked: with a password, with a token that a password buys, or not at all."""

from __future__ import annotations

import base64
import ipaddress
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import httpx

from dask_starburst.environment.registry.answers import limit
from dask_starburst.environment.registry.retry import Busy
from dask_starburst.errors import RegistryDenied, RegistryUnavailable

#: User and password.
Credentials: TypeAlias = tuple[str, str]
#: Bytes of an answer with a token; some kB are usual.
_MOST_TOKEN = 1 << 20
#: One of the ways in that a header offers, and what it says of it. There may be several, one after the other.
_SCHEME = re.compile(r"(?:^|,)\s*(basic|bearer)\b(.*?)(?=,\s*(?:basic|bearer)\b|$)", re.I)
_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))')


class Login:
    """What is known of a registry's wishes. Safe from several threads.

    Parameters
    ----------
    host : str
        The registry.
    credentials : callable, optional
        Gives user and password, or None.
    """

    def __init__(self, host: str, credentials: Callable[[], Credentials | None] | None) -> None:
        self._host = host
        self._ask = credentials or (lambda: None)
        self._lock = threading.Lock()
        self._taking_up = threading.Lock()
        self._basic: str | None = None
        self._used: Credentials | None = None
        self._tokens: dict[str, str] = {}

    def credentials(self) -> Credentials | None:
        """Return user and password, asked for anew."""
        return self._ask()

    @property
    def user(self) -> str | None:
        """Who we have said that we are."""
        return self._used[0] if self._used else None

    @property
    def who(self) -> str:
        """The same in words, without any secret."""
        return f"as {self.user}" if self.user else "without credentials"

    def headers(self, scopes: Sequence[str]) -> dict[str, str]:
        """Return what goes along with a request."""
        with self._lock:
            found = self._tokens.get(" ".join(scopes)) or self._basic
        return {"Authorization": found} if found else {}

    def take_up(self, challenge: str, scopes: Sequence[str], client: httpx.Client, refused: Mapping[str, str]) -> bool:
        """Do what a 401 asks for; whether there is a point in trying again.

        Parameters
        ----------
        challenge : str
            The header ``WWW-Authenticate``.
        scopes : sequence of str
            What the request needs.
        client : httpx.Client
            Asks for a token.
        refused : mapping of str to str
            What went along with the request that was answered so.
        """
        with self._taking_up:
            # Another thread may have done it while this one's request was under way.
            return self.headers(scopes) != refused or self._take_up(challenge, scopes, client)

    def _take_up(self, challenge: str, scopes: Sequence[str], client: httpx.Client) -> bool:
        offered = {kind.lower(): rest for kind, rest in _SCHEME.findall(challenge)}
        if not offered:
            return False
        used, self._used = self._used, self._ask()
        if "bearer" not in offered:
            fresh = _basic(self._used) if self._used else None
            with self._lock:
                changed, self._basic = fresh != self._basic, fresh
            return changed and fresh is not None
        wanted = {name: quoted or plain for name, quoted, plain in _PARAMETER.findall(offered["bearer"])}
        token = self._token(wanted, scopes, client)
        key = " ".join(scopes)
        with self._lock:
            changed, self._tokens[key] = self._tokens.get(key) != token, token
        return changed or used != self._used

    def _token(self, wanted: Mapping[str, str], scopes: Sequence[str], client: httpx.Client) -> str:
        realm = self._realm(wanted.get("realm", ""))
        asked = [("service", wanted["service"])] if "service" in wanted else []
        asked += [("scope", scope) for scope in (wanted.get("scope", "").split() or scopes)]
        headers = {"Authorization": _basic(self._used)} if self._used else {}
        with client.stream("GET", realm, params=[*realm.params.multi_items(), *asked], headers=headers) as answer:
            limit(answer, _MOST_TOKEN)
            answer.read()
        if answer.status_code == 429:
            raise Busy(
                f"{realm.host}, where {self._host} gives tokens, answered 429", answer.headers.get("Retry-After")
            )
        if answer.status_code in (400, 401, 403, 404):
            raise RegistryDenied(
                f"{self._host} gives no token ({self.who}): {answer.status_code}. Log in with"
                f" `docker login {self._host}`."
            )
        try:
            found = answer.raise_for_status().json()
            return f"Bearer {found.get('token') or found['access_token']}"
        except (httpx.HTTPStatusError, ValueError, KeyError, AttributeError):
            # Not chained: what was asked for with a password is nobody's to see.
            raise RegistryUnavailable(
                f"{realm.host}, where {self._host} gives tokens, answered {answer.status_code} and no token"
            ) from None

    def _realm(self, text: str) -> httpx.URL:
        """Return where tokens are given, if a password may be sent there."""
        try:
            realm = httpx.URL(text)
        except httpx.InvalidURL:
            realm = httpx.URL()
        near = is_loopback(self._host) and is_loopback(realm.host)
        if realm.host and (realm.scheme == "https" or (realm.scheme == "http" and near)):
            return realm
        raise RegistryDenied(f"{self._host} wants its token asked for at {text!r}, which is not safe to do.")


def is_loopback(host: str) -> bool:
    """Whether a host, maybe with a port, is this computer itself."""
    name = re.sub(r":\d+$", "", host).strip("[]") if not host.count(":") > 1 or "]" in host else host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.lower() == "localhost"


def _basic(credentials: Credentials) -> str:
    return f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}"
