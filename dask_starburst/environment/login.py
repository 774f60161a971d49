"""How a registry wants to be asked: with a password, with a token that a password buys, or not at all."""

from __future__ import annotations

import base64
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import httpx

from dask_starburst.errors import RegistryDenied

#: User and password.
Credentials: TypeAlias = tuple[str, str]
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


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
    def who(self) -> str:
        """Who we say that we are, without any secret."""
        return f"as {self._used[0]}" if self._used else "without credentials"

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
        kind, _, rest = challenge.partition(" ")
        used, self._used = self._used, self._ask()
        if kind.lower() == "basic":
            fresh = _basic(self._used) if self._used else None
            with self._lock:
                changed, self._basic = fresh != self._basic, fresh
            return changed and fresh is not None
        if kind.lower() != "bearer":
            return False
        wanted = dict(_PARAMETER.findall(rest))
        token = self._token(wanted, scopes, client)
        key = " ".join(scopes)
        with self._lock:
            changed, self._tokens[key] = self._tokens.get(key) != token, token
        return changed or used != self._used

    def _token(self, wanted: dict[str, str], scopes: Sequence[str], client: httpx.Client) -> str:
        realm = wanted.get("realm", "")
        if not realm.startswith(("https://", "http://127.", "http://localhost")):
            raise RegistryDenied(f"{self._host} wants its token asked for at {realm!r}, which is not safe to do.")
        parameters = [("service", wanted["service"])] if "service" in wanted else []
        asked = [("scope", scope) for scope in (wanted.get("scope", "").split() or scopes)]
        headers = {"Authorization": _basic(self._used)} if self._used else {}
        answer = client.get(realm, params=[*parameters, *asked], headers=headers)
        if answer.status_code != 200:
            raise RegistryDenied(
                f"{self._host} gives no token ({self.who}): {answer.status_code}. Log in with"
                f" `docker login {self._host}`."
            )
        found = answer.json()
        return f"Bearer {found.get('token') or found['access_token']}"


def _basic(credentials: Credentials) -> str:
    return f"Basic {base64.b64encode(':'.join(credentials).encode()).decode()}"
