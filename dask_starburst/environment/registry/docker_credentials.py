"""Credentials stored by ``docker login``."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dask_starburst.environment.registry.auth import Credentials
from dask_starburst.environment.registry.documents import DOCKER_HUB

#: Names of Docker Hub in docker's configuration.
_HUB_KEYS = ("https://index.docker.io/v1/", "docker.io", "index.docker.io", DOCKER_HUB)
_HELPER_SECONDS = 20.0


def stored_credentials(host: str) -> Callable[[], Credentials | None]:
    """Return a function that looks up user and password of a registry; it returns None without a login.

    Credentials come from docker's ``config.json``, or from the credential helper that it names.
    """
    return lambda: _stored(host)


def _stored(host: str) -> Credentials | None:
    config = _config()
    helpers, entries = _table(config, "credHelpers"), _table(config, "auths")
    for key in _HUB_KEYS if host == DOCKER_HUB else (host, f"https://{host}"):
        helper = helpers.get(key) or config.get("credsStore")
        if helper and (found := _from_helper(str(helper), key)):
            return found
        if found := _from_entry(entries.get(key)):
            return found
    return None


def _config() -> dict[str, Any]:
    folder = os.environ.get("DOCKER_CONFIG")
    try:
        path = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a user without a home
        return {}
    return found if isinstance(found, dict) else {}


def _table(config: dict[str, Any], name: str) -> dict[str, Any]:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def _from_entry(entry: Any) -> Credentials | None:
    try:
        user, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (ValueError, KeyError, TypeError):  # missing, or written by another program in another format
        return None
    return (user, password.rstrip("\0")) if user and password else None


def _from_helper(helper: str, key: str) -> Credentials | None:
    command = [f"docker-credential-{helper}", "get"]
    try:
        done = subprocess.run(command, input=key, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=True)
        answer = json.loads(done.stdout)
        return str(answer["Username"]), str(answer["Secret"])
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError):
        return None
