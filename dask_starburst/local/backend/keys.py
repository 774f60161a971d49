"""Who may call the embedded AWS: one random token a server, and the credentials and addresses derived from it.

Any local user can connect to a loopback address, so whatever the server answers needs a secret: a signature for AWS
calls, the token itself for the control API, and an address that cannot be guessed where AWS's own protocol has no place
for a secret (instance metadata, task metadata, credentials of a task, the ECS agent).
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

#: The header in which the control API is given the token.
TOKEN_HEADER = "X-Starburst-Token"
#: What answers at an address that cannot be guessed.
Private = Literal["imds", "ecs/v4", "credentials", "agent", "checkip"]

_MAC_DIGITS = 32


@dataclass(frozen=True)
class Credentials:
    """An access key and its secret; a session token where they are temporary."""

    access_key: str
    secret_key: str
    token: str | None = None


@dataclass(frozen=True)
class Session:
    """What a session token of a role says: whose credentials they are, and until when (seconds since 1970)."""

    credentials: Credentials
    role: str
    until: float


class Keys:
    """Everything that is derived from the token of one server.

    Parameters
    ----------
    token : str, optional
        A random one by default.

    Attributes
    ----------
    token : str
        Whoever has it owns this embedded AWS.
    owner : Credentials
        With all rights in the account.
    """

    def __init__(self, token: str | None = None) -> None:
        self.token = token or secrets.token_hex(32)
        self.owner = self._pair("AKIA", "owner")

    def is_token(self, given: str) -> bool:
        """Tell whether this is the token, in a time that tells nothing about it."""
        return hmac.compare_digest(given.encode(), self.token.encode())

    def path(self, private: Private, id: str) -> str:
        """Return the path of something that answers only there."""
        return f"/{private}/{id}.{self._proof(private, id)}"

    def public_path(self, path: str) -> str | None:
        """Return a private path without its secret, None when the secret is wrong or missing.

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

    def of_role(self, role: str, until: float) -> Credentials:
        """Return credentials of a role, valid until a time.

        Parameters
        ----------
        role : str
            ARN of the role.
        until : float
            Seconds since 1970.
        """
        pair = self._pair("ASIA", role)
        said = json.dumps([role, until]).encode()
        token = base64.b64encode(said + b"|" + self._mac("session", said.decode())).decode()
        return Credentials(pair.access_key, pair.secret_key, token)

    def session(self, token: str) -> Session | None:
        """Read a session token of `of_role`; None when it is none."""
        try:
            said, _, proof = base64.b64decode(token, validate=True).partition(b"|")
            genuine = hmac.compare_digest(proof, self._mac("session", said.decode()))
        except (binascii.Error, UnicodeDecodeError):
            return None
        if not genuine:
            return None
        role, until = json.loads(said)
        return Session(self.of_role(role, until), role, until)

    def _pair(self, prefix: str, whose: str) -> Credentials:
        # In the form of AWS's own: 20 characters of base 32, and 40 of base 64.
        key = base64.b32encode(self._mac("access key", whose)).decode()[:16]
        return Credentials(prefix + key, base64.b64encode(self._mac("secret key", whose)).decode()[:40])

    def _proof(self, private: str, id: str) -> str:
        return self._mac(private, id).hex()[:_MAC_DIGITS]

    def _mac(self, use: str, text: str) -> bytes:
        return hmac.digest(self.token.encode(), json.dumps([use, text]).encode(), hashlib.sha256)
