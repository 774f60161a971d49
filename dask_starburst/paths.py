"""Files of the user on this computer: where they are, and how they are written so that no other user can read them.

The folders are those of platformdirs, which knows the conventions of each operating system.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import platformdirs

_NAME = "dask-starburst"
_FOLDER, _FILE = 0o700, 0o600


def cache_dir() -> Path:
    """Return the folder of what was built or downloaded once, which need not exist. It may be deleted at any time."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home) / _NAME if home else platformdirs.user_cache_path(_NAME, appauthor=False)


def state_dir() -> Path:
    """Return the folder of what is kept about clusters, which need not exist. It may be deleted at any time."""
    home = os.environ.get("XDG_STATE_HOME")
    return Path(home) / _NAME if home else platformdirs.user_state_path(_NAME, appauthor=False)


def private_folder(folder: Path) -> Path:
    """Make a folder, and those above it that are missing, for its owner only; return it."""
    missing = []
    for each in (folder, *folder.parents):
        if each.is_dir():
            break
        missing.append(each)
    for each in reversed(missing):
        each.mkdir(exist_ok=True)
        each.chmod(_FOLDER)  # mkdir's own mode is cut down by the umask, which may forbid even the owner
    return folder


def private_opener(path: str, flags: int) -> int:
    """Open a file for its owner only: ``open(path, "w", opener=private_opener)``."""
    descriptor = os.open(path, flags, _FILE)
    if flags & os.O_CREAT:
        os.fchmod(descriptor, _FILE)  # also one that an earlier version has made
    return descriptor


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file, or make it, so that no reader sees half of it; it is readable for its owner only."""
    private_folder(path.parent)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:  # its mode is 0600
        try:
            file.write(data)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise
