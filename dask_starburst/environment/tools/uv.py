"""Run uv, which resolves, builds and installs packages, with pip's configuration of indexes."""

from __future__ import annotations

import configparser
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from uv import find_uv_bin

from dask_starburst.environment.tools import cancellation
from dask_starburst.errors import ImageError

#: Timeout of one call in seconds, including downloads of large packages.
_MOST = 1800.0
#: uv's environment variables for pip's settings.
_SETTINGS = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "find-links": ("UV_FIND_LINKS",),
}
_SECRET = re.compile(r"(\w+://)[^/@\s]+@")
_LINES = 25


def run(arguments: Sequence[str], extra: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run uv and return the completed process; the caller handles a failure.

    Parameters
    ----------
    arguments : sequence of str
        uv's arguments. Index URLs are not among them: they may contain passwords, which other users could read.
    extra : mapping, optional
        Further environment variables.

    Raises
    ------
    ImageError
        It took longer than half an hour.
    """
    environment = {**os.environ, **indexes(), **(extra or {}), "NO_COLOR": "1"}
    # The caller's virtual environment must not affect the resolution for another platform.
    environment.pop("VIRTUAL_ENV", None)
    try:
        return cancellation.run([find_uv_bin(), *arguments], timeout=_MOST, env=environment)
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"uv {arguments[0]} took longer than {_MOST / 60:.0f} minutes and was stopped.") from error


def words(done: subprocess.CompletedProcess[str]) -> str:
    """Return the last lines of uv's output, without passwords in index URLs."""
    said = without_secrets(done.stderr.strip() or done.stdout.strip())
    return "\n".join(said.splitlines()[-_LINES:])


def without_secrets(text: str) -> str:
    """Return a text without the user names and passwords in its URLs."""
    return _SECRET.sub(r"\1***@", text)


def version() -> str:
    """Return uv's version, which is part of cache keys: another version may resolve differently."""
    return importlib.metadata.version("uv")


def own_platform() -> str:
    """Return the platform of wheels built on this computer, in OCI's notation."""
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{platform.system().lower()}/{machine}"


def indexes_digest() -> str:
    """Return a hash of the configured indexes; a hash because URLs may contain passwords."""
    chosen = {name: value for name, value in {**os.environ, **indexes()}.items() if name.startswith("UV_")}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:16]


def indexes() -> dict[str, str]:
    """Return environment variables that pass pip's indexes to uv, where uv has no setting of its own."""
    found: dict[str, str] = {}
    configured = _pip_settings()
    for setting, names in _SETTINGS.items():
        value = os.environ.get(f"PIP_{setting.upper().replace('-', '_')}") or configured.get(setting)
        if value and not any(name in os.environ for name in names):
            found[names[0]] = (",".join if setting == "find-links" else " ".join)(value.split())
    if "UV_INDEX" in found and "UV_INDEX_STRATEGY" not in os.environ:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's behaviour with several indexes
    return found


@functools.lru_cache(maxsize=1)
def _pip_settings() -> Mapping[str, str]:
    """Return pip's index settings from its configuration files: global, user and site."""
    parser = configparser.ConfigParser(interpolation=None)
    named = os.environ.get("PIP_CONFIG_FILE")
    home, xdg = Path.home(), os.environ.get
    shared = [Path(each) / "pip" for each in (xdg("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)]
    shared += [Path("/Library/Application Support/pip"), Path("/etc")]
    own = [
        home / ".pip",
        home / "Library/Application Support/pip",
        Path(xdg("XDG_CONFIG_HOME") or home / ".config") / "pip",
    ]
    places = [folder / "pip.conf" for folder in (*shared, *own, Path(sys.prefix))]
    try:
        parser.read([*places, *([named] if named else [])])
    except configparser.Error:
        return {}
    sections = [dict(parser[name]) for name in ("global", "install") if parser.has_section(name)]
    return {key: value for section in sections for key, value in section.items() if key in _SETTINGS}
