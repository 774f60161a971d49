"""Files of the user's own on this computer, which other users of it cannot read, whatever the umask is."""

from __future__ import annotations

import os
from pathlib import Path

_FOLDER, _FILE = 0o700, 0o600


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
