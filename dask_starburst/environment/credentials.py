"""What ``docker login`` left on this computer for a registry."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dask_starburst.environment.login import Credentials
from dask_starburst.environment.oci import DOCKER_HUB

#: What docker calls its own hub.
_HUB = "https://index.docker.io/v1/"
_HELPER_SECONDS = 20.0


def stored_credentials(host: str) -> Callable[[], Credentials | None]:
    """Return what gives user and password for a registry, or None when nobody has logged in.

    They come from docker's ``config.json``, or from the credential helper that it names, over its standard input.
    """
    return lambda: _stored(host)


def _stored(host: str) -> Credentials | None:
    config = _config()
    key = _HUB if host == DOCKER_HUB else host
    helper = config.get("credHelpers", {}).get(key) or config.get("credsStore")
    if helper and (found := _from_helper(str(helper), key)):
        return found
    entry = config.get("auths", {}).get(key) or config.get("auths", {}).get(f"https://{key}") or {}
    if not entry.get("auth"):
        return None
    user, _, password = base64.b64decode(entry["auth"]).decode().partition(":")
    return user, password


def _config() -> dict[str, Any]:
    folder = os.environ.get("DOCKER_CONFIG")
    path = (Path(folder) if folder else Path.home() / ".docker") / "config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _from_helper(helper: str, key: str) -> Credentials | None:
    command = [f"docker-credential-{helper}", "get"]
    try:
        done = subprocess.run(command, input=key, capture_output=True, text=True, timeout=_HELPER_SECONDS, check=True)
        answer = json.loads(done.stdout)
        return str(answer["Username"]), str(answer["Secret"])
    except (OSError, ValueError, KeyError, subprocess.SubprocessError):
        return None
