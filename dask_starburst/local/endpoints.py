"""The embedded AWSs of this user that run: where each answers, and its token, in a file that only this user can read.

Each server writes its own file before it answers, and removes it when it ends. One that was killed leaves its file,
which is removed when the files are read.
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
#: What this process has started, wherever XDG_STATE_HOME leads by now.
_started: dict[str, Endpoint] = {}


@dataclass(frozen=True)
class Endpoint:
    """One that runs.

    Attributes
    ----------
    url : str
        Where it answers.
    pid : int
        Process id of its server.
    region : str
        The region that it plays.
    token : str
        What its keys are derived from.
    stays : bool
        Whether it runs on when the program that started it has ended.
    """

    url: str
    pid: int
    region: str
    token: str
    stays: bool = False


def folder() -> Path:
    """Return where the files are."""
    return private_folder(state_dir() / "local")


def private_folder(path: Path) -> Path:
    """Make a folder that only this user can read.

    Raises
    ------
    LocalAWSError
        It cannot be made, or it belongs to another user.
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
    """Write the file of one that is about to answer."""
    write_atomic(_file(endpoint.url), json.dumps(asdict(endpoint)).encode())


def read(url: str) -> Endpoint:
    """Return the one that answers at an address.

    Raises
    ------
    LocalAWSError
        None of this user's does.
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
    """Know one that this process has started."""
    _started[endpoint.url] = endpoint


def every() -> list[Endpoint]:
    """Return all that run."""
    return list(_running())


def forget(url: str, pid: int) -> None:
    """Remove the file of one that ends, unless another has the address by now."""
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
    """Read a file, and remove it when its server is gone or it is not a whole one."""
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
    """Tell whether a process runs."""
    # Where this process started it, it can have ended and still be there; who started it reaps it.
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
