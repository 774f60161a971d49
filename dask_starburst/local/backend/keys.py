"""Authentication of the embedded AWS: one random token a server, and credentials and URLs derived from it.

Any local user can connect to a loopback address, so every request needs a secret: a signature for AWS
calls, the token itself for the control API, and an unguessable path where AWS's protocol has no field
for a secret (instance metadata, task metadata, task credentials, the ECS agent).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Literal

#: The header with the token of the control API.
TOKEN_HEADER = "X-Starburst-Token"
#: Endpoints with an unguessable path.
Private = Literal["imds", "ecs/v4", "credentials", "agent", "checkip"]

_MAC_DIGITS = 32


@dataclass(frozen=True)
class Credentials:
    """An access key and its secret; a session token if they are temporary."""

    access_key: str
    secret_key: str
    token: str | None = None


@dataclass(frozen=True)
class Session:
    """The content of a role's session token: its credentials, when they expire (seconds since 1970), its name."""

    credentials: Credentials
    role: str
    until: float
    name: str


class Keys:
    """Every secret derived from the token of one server.

    Parameters
    ----------
    token : str, optional
        Random by default.

    Attributes
    ----------
    token : str
        Grants full control of this embedded AWS.
    owner : Credentials
        Credentials with all permissions in the account.
    """

    def __init__(self, token: str | None = None) -> None:
        self.token = token or secrets.token_hex(32)
        self.owner = self._pair("AKIA", "owner")

    def is_token(self, given: str) -> bool:
        """Compare a string with the token in constant time."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def path(self, private: Private, id: str) -> str:
        """Return the secret path of an endpoint."""
        return f"/{private}/{id}.{self._proof(private, id)}"

    def public_path(self, path: str) -> str | None:
        """Return a private path without its secret; None if the secret is wrong or missing.

        >>> keys = Keys()
        >>> keys.public_path(keys.path("imds", "i-0a") + "/latest/meta-data/")
        '/imds/i-0a/latest/meta-data/'
        """
        head, *rest = path.lstrip("/").split("/")
        private = f"{head}/{rest.pop(0)}" if head == "ecs" and rest else head
        id, _, proof = (rest.pop(0) if rest else "").rpartition(".")
        if not id or not hmac.compare_digest(proof.encode(), self._proof(private, id).encode()):
            return None
        return "/".join(("", private, id, *rest))

    def of_role(self, role: str, until: float, name: str = "session") -> Credentials:
        """Return temporary credentials of a role.

        Parameters
        ----------
        role : str
            The ARN of the role.
        until : float
            When they expire, in seconds since 1970.
        name : str
            The name of the session: AWS's is the id of the instance or task.
        """
        pair = self._pair("ASIA", f"{role}/{name}")
        content = json.dumps([role, until, name]).encode()
        token = base64.b64encode(content + b"|" + self._mac("session", content.decode())).decode()
        return Credentials(pair.access_key, pair.secret_key, token)

    def session(self, token: str) -> Session | None:
        """Parse a session token of `of_role`; None if it is not valid."""
        try:
            content, _, proof = base64.b64decode(token, validate=True).partition(b"|")
            genuine = hmac.compare_digest(proof, self._mac("session", content.decode()))
        except (binascii.Error, UnicodeDecodeError):
            return None
        if not genuine:
            return None
        role, until, name = json.loads(content)
        return Session(self.of_role(role, until, name), role, until, name)

    def _pair(self, prefix: str, name: str) -> Credentials:
        # AWS's format: 20 characters of base 32, and 40 of base 64.
        key = base64.b32encode(self._mac("access key", name)).decode()[:16]
        return Credentials(prefix + key, base64.b64encode(self._mac("secret key", name)).decode()[:40])

    def _proof(self, private: str, id: str) -> str:
        return self._mac(private, id).hex()[:_MAC_DIGITS]

    def _mac(self, use: str, text: str) -> bytes:
        return hmac.digest(self.token.encode(), json.dumps([use, text]).encode(), hashlib.sha256)
