"""Files in the cache folder: deleted when they have not been used for a month, and a full disk explained."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dask_starburst.errors import ImageError

#: Seconds after which an unused file is deleted; it is rebuilt on demand.
_KEPT = 30 * 86_400.0
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def drop_unused(paths: Iterable[Path], now: float | None = None) -> None:
    """Delete files and folders that have not been used for a month."""
    oldest = (time.time() if now is None else now) - _KEPT
    for path in paths:
        with suppress(FileNotFoundError):  # another process deletes unused files as well
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextmanager
def explain_full_disk(folder: Path) -> Iterator[None]:
    """Turn the error of a full disk into one that names the folder and what to do.

    Raises
    ------
    ImageError
        The disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise ImageError(
            f"no space left for the layers of the image in {folder} ({os.strerror(error.errno)}); free some space,"
            " or name another folder with XDG_CACHE_HOME=…, and start again: finished layers are kept."
        ) from error
