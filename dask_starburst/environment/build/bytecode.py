"""Compile Python files ahead of time: a worker then starts in a third of the time.

The interpreter that runs this compiles for every platform: bytecode depends on Python's minor version and on the
source, not on the processor. Compiled files are cached for the second platform and the next build.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.tools.files import drop_unused
from dask_starburst.paths import write_atomic
from dask_starburst.errors import ImageError

#: The compiler's version, part of cache keys; two patch releases may differ in a few of thousands of files.
COMPILER = f"{sys.implementation.cache_tag} {sys.version.split()[0]}"
#: Size of a compiled file's header in bytes.
_HEADER = 16


@dataclass(frozen=True, slots=True)
class _Source:
    path: Path
    compiled: Path
    kept: Path


class Bytecode:
    """The cache of files compiled on this computer.

    Parameters
    ----------
    folder : Path
        Cache folder; it may be deleted at any time.
    jobs : int, optional
        Number of concurrent processes.
    """

    def __init__(self, folder: Path, jobs: int | None = None) -> None:
        self._folder = folder
        self._jobs = jobs or max(1, (os.cpu_count() or 1) // 2)

    def compile(self, folder: Path, shown: str, select: Callable[[str], bool]) -> None:
        """Compile the Python files of a folder.

        They are loaded without a check of the source's time or hash (``unchecked-hash``, PEP 552): a layer has no
        times, and its files do not change. A file that is not valid Python of this version is skipped.

        Parameters
        ----------
        folder : Path
            The folder to compile, recursively.
        shown : str
            The folder's path in tracebacks.
        select : callable
            Whether to compile a file, by its path in the folder.
        """
        paths = ((path, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*.py")))
        sources = [self._source(path, f"{shown}/{name}") for path, name in paths if select(name) and path.is_file()]
        missing = [source for source in sources if not _taken(source)]
        _run(folder, shown, [missing[start :: self._jobs] for start in range(self._jobs)])
        for source in missing:
            _keep(source)

    def prune(self, now: float | None = None) -> None:
        """Delete files that have not been used for a month."""
        drop_unused(self._folder.glob("??/*"), now)

    def _source(self, path: Path, shown: str) -> _Source:
        cancellation.check()
        digest = hashlib.sha256(f"{COMPILER}\0{shown}\0".encode())
        digest.update(path.read_bytes())
        name = digest.hexdigest()
        return _Source(path, Path(importlib.util.cache_from_source(path)), self._folder / name[:2] / name[2:])


def _taken(source: _Source) -> bool:
    """Copy a compiled file from the cache; return whether it was cached."""
    try:
        data = source.kept.read_bytes()
        os.utime(source.kept)
    except OSError:
        return False
    if len(data) <= _HEADER or not data.startswith(importlib.util.MAGIC_NUMBER):
        return False  # truncated, for example by a crash while it was written
    source.compiled.parent.mkdir(exist_ok=True)
    source.compiled.write_bytes(data)
    return True


def _keep(source: _Source) -> None:
    if source.compiled.exists():
        write_atomic(source.kept, source.compiled.read_bytes())


def _run(folder: Path, shown: str, shares: Iterable[list[_Source]]) -> None:
    """Compile in subprocesses: a pool of ``multiprocessing`` would import the user's script again."""
    # -I: ignore the user's environment variables and current folder.
    command = [sys.executable, "-I", "-W", "ignore", "-m", "compileall", "-qq", "-s", str(folder), "-p", shown]
    command += ["--invalidation-mode", "unchecked-hash", "-i", "-"]

    def run(share: list[_Source]) -> subprocess.CompletedProcess[str]:
        names = "\n".join(str(source.path) for source in share)
        return cancellation.run(command, input=names)

    with ThreadPoolExecutor() as pool:
        for job in [cancellation.submit(pool, run, share) for share in shares if share]:
            done = job.result()
            # 1: a file was not valid Python of this version; packages contain such templates.
            if done.returncode not in (0, 1) or done.stderr:
                raise ImageError(f"compiling Python files failed: {done.stderr.strip() or done.returncode}")
