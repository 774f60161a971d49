"""The user's files on this computer, which no other user can read.

The folders are those of platformdirs, by the conventions of each operating system.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

_NAME = "dask-starburst"
_FOLDER, _FILE = 0o700, 0o600


def cache_dir() -> Path:
    """Return the cache folder, which may not exist. It may be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home) / _NAME if home else platformdirs.user_cache_path(_NAME, appauthor=False)


def state_dir() -> Path:
    """Return the folder of state about clusters, which may not exist. It may be deleted at any time."""
    home = os.environ.get("XDG_STATE_HOME")
    return Path(home) / _NAME if home else platformdirs.user_state_path(_NAME, appauthor=False)


def private_folder(folder: Path) -> Path:
    """Create a folder and its missing parents, accessible to their owner only; return it."""
    missing = []
    for each in (folder, *folder.parents):
        if each.is_dir():
            break
        missing.append(each)
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(_FOLDER)  # mkdir's mode is subject to the umask, which may exclude even the owner
    return folder


def private_opener(path: str, flags: int) -> int:
    """Open a file for its owner only: ``open(path, "w", opener=private_opener)``."""
    descriptor = os.open(path, flags, _FILE)
    if flags & os.O_CREAT:
        os.fchmod(descriptor, _FILE)  # also a file that an earlier version has created
    return descriptor


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file atomically, readable for its owner only."""
    private_folder(path.parent)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:  # its mode is 0600
        try:
            file.write(data)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
