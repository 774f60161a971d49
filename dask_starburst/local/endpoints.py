"""The running embedded AWSes of this user: URL and token of each, in a file that only this user can read.

Each server writes its file before it answers, and removes it when it ends. A killed server leaves its file,
which is removed when the files are next read.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dask_starburst.errors import LocalAWSError
from dask_starburst.paths import state_dir, write_atomic

_NAMES = frozenset({"127.0.0.1", "localhost"})
#: Servers that this process has started, regardless of later changes to XDG_STATE_HOME.
_started: dict[str, Endpoint] = {}


@dataclass(frozen=True)
class Endpoint:
    """A running embedded AWS.

    Attributes
    ----------
    url : str
        Its URL.
    pid : int
        Process id of its server.
    region : str
        The simulated region.
    token : str
        The token that its keys are derived from.
    stays : bool
        Whether it keeps running after the program that started it ends.
    """

    url: str
    pid: int
    region: str
    token: str
    stays: bool = False


def folder() -> Path:
    """Return the folder of the files."""
    return private_folder(state_dir() / "local")


def private_folder(path: Path) -> Path:
    """Create a folder that only this user can read.

    Raises
    ------
    LocalAWSError
        It cannot be created, or it belongs to another user.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.chmod(0o700)
        if path.stat().st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
    except OSError as error:
        raise LocalAWSError(
            f"The token of the embedded AWS cannot be kept in {path} ({error.strerror}). "
            "Set XDG_STATE_HOME to a folder that you can write to."
        ) from error
    return path


def write(endpoint: Endpoint) -> None:
    """Write the file of a server before it answers."""
    write_atomic(_file(endpoint.url), json.dumps(asdict(endpoint)).encode())


def read(url: str) -> Endpoint:
    """Return the embedded AWS at a URL.

    Raises
    ------
    LocalAWSError
        No embedded AWS of this user answers there.
    """
    path = _file(url)
    known = _started.get(url.rstrip("/"))
    found = known if known is not None and is_alive(known.pid) else _parse(path)
    if found is None:
        raise LocalAWSError(
            f"No embedded AWS answers at {url}, or it is not yours: there is no token for it in {path}. "
            "Only the user who started it can use it, with the same XDG_STATE_HOME."
        )
    return found


def remember(endpoint: Endpoint) -> None:
    """Remember a server that this process has started."""
    _started[endpoint.url] = endpoint


def every() -> list[Endpoint]:
    """Return all running ones."""
    return list(_running())


def forget(url: str, pid: int) -> None:
    """Remove the file of a server that ends, unless another server uses the address now."""
    path = _file(url)
    found = _parse(path)
    if found is not None and found.pid == pid:
        path.unlink(missing_ok=True)


def _running() -> Iterator[Endpoint]:
    for path in sorted(folder().glob("*.json")):
        found = _parse(path)
        if found is not None:
            yield found


def _file(url: str) -> Path:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise LocalAWSError(f"{url} is not an address: {error}.") from error
    if host not in _NAMES or port is None:
        raise LocalAWSError(f"No embedded AWS answers at {url}: its address is like http://127.0.0.1:4566.")
    return folder() / f"{port}.json"


def _parse(path: Path) -> Endpoint | None:
    """Parse a file; remove it if its server is gone or it is incomplete."""
    try:
        found = Endpoint(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        path.unlink(missing_ok=True)
        return None
    if is_alive(found.pid):
        return found
    path.unlink(missing_ok=True)
    return None


def is_alive(pid: int) -> bool:
    """Return whether a process runs."""
    # A child of this process may be a zombie; its `Popen` reaps it.
    if hasattr(os, "waitid"):
        with contextlib.suppress(ChildProcessError):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
