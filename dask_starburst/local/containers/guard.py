"""The guard: when the server dies, whatever the way, all that it started dies too.

A process that is killed with SIGKILL can clean up nothing, and neither Linux's ``PR_SET_PDEATHSIG`` (it
follows a thread, not a process) nor anything on macOS does it for us. So one small process holds the reading
end of a pipe. Nothing but the server holds the writing end, and the kernel closes that with the server. The
guard then kills what is left.

Each line on the pipe is ``+<process group>`` or ``-<process group>``. A group's first process writes its own
``+`` line before it becomes the program that it is to run (`Guard.wrap`), and holds the pipe open until it
has, so there is no moment at which a process is alive and the guard cannot know of it.

A process may leave its group (``setsid``) and its parent (a daemon's second fork). On Linux the first process of each
group is a child subreaper (``man 2 prctl``), as the first process of a Docker container is in effect: all that comes
from it stays below it, so the guard finds it as long as the first process lives.

This file is also the guard's program, and the one that starts each container. It must go on importing nothing but the
standard library.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_CANNOT_RUN = 126  # as a shell says it
_SECOND_LOOK_SECONDS = 0.1
# What changes its parent between two readings may be missed once.
_QUIET_PASSES = 2


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
        return [*_PROGRAM, "run", *argv]

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


# -I keeps this folder, whose modules have everyday names, off the guard's import path.
_PROGRAM = (sys.executable, "-I", "-S", os.path.abspath(__file__))


def adopt_orphans() -> None:
    """Become the parent of every process below this one whose own parent ends; only on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(process: int) -> list[int]:
    """Return the process ids of the children of a process, ended ones included; none where there is no Linux."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # the thread, or the whole process, has just ended
            found += map(int, file.read_text().split())
    return found


def kill_trees(processes: Iterable[int]) -> None:
    """Kill processes, their groups, and all that has come from them.

    They are stopped first, so that they start nothing more, and killed last: what loses its parent meanwhile comes to
    them.
    """
    firsts = list(processes)
    for first in firsts:
        _deliver(first, signal.SIGSTOP, os.killpg)
        _deliver(first, signal.SIGSTOP, os.kill)  # one that leads no group
    killed: set[int] = set()
    quiet = 0
    while quiet < _QUIET_PASSES:
        below = {each for first in firsts for each in _descendants(first)} - killed
        quiet = 0 if below else quiet + 1
        for each in below:
            _deliver(each, signal.SIGKILL, os.kill)  # from now on it starts nothing more either
        killed |= below
    for first in firsts:
        _deliver(first, signal.SIGKILL, os.killpg)
        _deliver(first, signal.SIGKILL, os.kill)


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    left = children_of(process)
    while left:
        found += left
        left = [child for each in left for child in children_of(each)]
    return found


def _start(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [*_PROGRAM, "watch", str(folder.absolute())],
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
    kill_trees(groups)
    if groups:
        # macOS does not promise that a process being forked at this moment is reached the first time.
        time.sleep(_SECOND_LOOK_SECONDS)
        for group in groups:
            _deliver(group, signal.SIGKILL, os.killpg)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def _run(argv: list[str]) -> None:
    """Become a program, once the guard has been told of this process."""
    os.write(0, f"+{os.getpid()}\n".encode())
    adopt_orphans()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # As in a container, every signal has its default: Python ignores some, and what has started the server others.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, _environment())
    except OSError as error:
        sys.stderr.write(f"exec {argv[0]}: {error.strerror}\n")
        sys.exit(_CANNOT_RUN)


def _environment() -> dict[bytes, bytes]:
    """Return the environment as it was given: Python adds a locale where there is none."""
    with suppress(OSError):
        words = Path("/proc/self/environ").read_bytes().split(b"\0")
        return {name: value for name, _, value in (word.partition(b"=") for word in words if word)}
    return dict(os.environb)


def _deliver(process: int, number: int, send: Callable[[int, int], None]) -> None:
    # Gone already, or nothing but zombies are left, for which macOS has EPERM.
    with suppress(ProcessLookupError, PermissionError):
        send(process, number)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        _run(sys.argv[2:])
    else:
        _watch(Path(sys.argv[2]))
