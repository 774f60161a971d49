"""The guard: when the server dies, whatever the way, all that it started dies too.

A process that is killed with SIGKILL can clean up nothing, and neither Linux's ``PR_SET_PDEATHSIG`` (it
follows a thread, not a process) nor anything on macOS does it for us. So one small process holds the reading
end of a pipe. Nothing but the server holds the writing end, and the kernel closes that with the server. The
guard then kills what is left.

Each line on the pipe is ``+<process group>`` or ``-<process group>``. A group's first process writes its own
``+`` line before it becomes the program that it is to run (`Guard.wrap`), and holds the pipe open until it
has, so there is no moment at which a process is alive and the guard cannot know of it.

This file is also the guard's program. It must go on importing nothing but the standard library.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_REGISTER_THEN_RUN = 'echo "+$$" >&0 && exec "$@" </dev/null'
_SECOND_LOOK_SECONDS = 0.1


class Guard:
    """The server's side of the guard process.

    Parameters
    ----------
    folder : Path
        What is removed in the end, with all that is in it. The folder above it goes too if it is empty then.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self._process = _start(folder)

    @property
    def pid(self) -> int:
        """Process id of the guard process."""
        return self._process.pid

    def wrap(self, argv: Sequence[str]) -> list[str]:
        """Turn a command into one that reports itself on its standard input, and then runs with that closed.

        Start it with ``stdin=guard.pipe()`` and as the leader of a session of its own.
        """
        return ["/bin/sh", "-c", _REGISTER_THEN_RUN, "sh", *argv]

    def pipe(self) -> int:
        """Return the file descriptor to give to a wrapped command as its standard input."""
        with self._lock:
            if self._process.poll() is not None:
                self._replace()
            return _stdin_of(self._process)

    def started(self, group: int) -> None:
        """Remember a group that has reported itself, in case the guard has to be started anew."""
        with self._lock:
            self._groups.add(group)

    def ended(self, group: int) -> None:
        """Forget a group. Call it before the leader is reaped: after that its number may be somebody else's."""
        with self._lock:
            self._groups.discard(group)
            _tell(self._process, f"-{group}\n")

    def close(self) -> None:
        """End the guard, which kills every group that is left."""
        with self._lock:
            stdin = self._process.stdin
            if stdin is not None and not stdin.closed:
                stdin.close()
        self._process.wait()

    def _replace(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = _start(self._folder)
        for group in self._groups:
            _tell(self._process, f"+{group}\n")


def _start(folder: Path) -> subprocess.Popen[bytes]:
    # -I keeps this folder, whose modules have everyday names, off the guard's import path.
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", os.path.abspath(__file__), str(folder.absolute())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
        cwd="/",
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        stdout.read(1)  # it ignores signals from here on
    return process


def _stdin_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None
    return process.stdin.fileno()


def _tell(process: subprocess.Popen[bytes], line: str) -> None:
    with suppress(BrokenPipeError):  # the next `pipe()` replaces the guard
        os.write(_stdin_of(process), line.encode())


def _watch(folder: Path) -> None:
    """Be the guard process: read the pipe to its end, then kill and clear away."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    os.write(1, b"\n")
    groups: set[int] = set()
    for line in sys.stdin.buffer:
        group = int(line[1:])
        if line.startswith(b"+"):
            groups.add(group)
        else:
            groups.discard(group)
    _kill(groups)
    if groups:
        # macOS does not promise that a process being forked at this moment is reached the first time.
        time.sleep(_SECOND_LOOK_SECONDS)
        _kill(groups)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def _kill(groups: set[int]) -> None:
    for group in groups:
        # Gone already, or nothing but zombies are left, for which macOS has EPERM.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    _watch(Path(sys.argv[1]))
