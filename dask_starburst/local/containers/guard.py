"""The guard process: kills all containers when the server dies.

A process killed with SIGKILL cannot clean up, and neither Linux's ``PR_SET_PDEATHSIG`` (it
follows a thread, not a process) nor macOS has a substitute. So one small process holds the reading
end of a pipe. Only the server holds the writing end, and the kernel closes it with the server. The
guard then kills the remaining processes.

Each line on the pipe is ``+<process group>`` or ``-<process group>``. A group's first process writes its own
``+`` line before it executes its program (`Guard.wrap`), and holds the pipe open until it
has, so the guard knows of every live process.

A process may leave its group (``setsid``) and its parent (a daemon's second fork). On Linux the first process of each
group is a child subreaper (``man 2 prctl``), as the first process of a Docker container is in effect: all that comes
from it stays below it, so the guard finds it as long as the first process lives.

This file is also the guard's program, and the wrapper that starts each container. It must import only the
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
_CANNOT_RUN = 126  # as in a shell
_SECOND_LOOK_SECONDS = 0.1
# A process that changes its parent between two readings may be missed once.
_QUIET_PASSES = 2


class Guard:
    """The server's side of the guard process.

    Parameters
    ----------
    folder : Path
        Removed at the end with its contents. Its parent folder is removed too if it is empty.
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
        """Wrap a command so that it reports itself on its standard input, closes that, and then runs.

        Start it with ``stdin=guard.pipe()`` and as the leader of its own session.
        """
        return [*_PROGRAM, "run", *argv]

    def pipe(self) -> int:
        """Return the file descriptor for the standard input of a wrapped command."""
        with self._lock:
            if self._process.poll() is not None:
                self._replace()
            return _stdin_of(self._process)

    def started(self, group: int) -> None:
        """Record a group that has reported itself, in case the guard has to be restarted."""
        with self._lock:
            self._groups.add(group)

    def ended(self, group: int) -> None:
        """Forget a group. Call it before the leader is reaped: after that its id may be reused."""
        with self._lock:
            self._groups.discard(group)
            _send(self._process, f"-{group}\n")

    def close(self) -> None:
        """End the guard, which kills all remaining groups."""
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
            _send(self._process, f"+{group}\n")


# -I keeps this folder, whose modules have common names, off the guard's import path.
_PROGRAM = (sys.executable, "-I", "-S", os.path.abspath(__file__))


def adopt_orphans() -> None:
    """Become a child subreaper, the parent of orphaned descendants; only on Linux."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_of(process: int) -> list[int]:
    """Return the process ids of a process's children, zombies included; empty if not on Linux."""
    found: list[int] = []
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # the thread or the process has just ended
            found += map(int, file.read_text().split())
    return found


def kill_trees(processes: Iterable[int]) -> None:
    """Kill processes, their groups, and all their descendants.

    They are stopped first, so that they start no more processes, and killed last: orphans are reparented to
    them.
    """
    firsts = list(processes)
    for first in firsts:
        _deliver(first, signal.SIGSTOP, os.killpg)
        _deliver(first, signal.SIGSTOP, os.kill)  # not a group leader
    killed: set[int] = set()
    quiet = 0
    while quiet < _QUIET_PASSES:
        below = {each for first in firsts for each in _descendants(first)} - killed
        quiet = 0 if below else quiet + 1
        for each in below:
            _deliver(each, signal.SIGKILL, os.kill)  # it starts no more processes from here on
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
        stdout.read(1)  # signals are ignored from here on
    return process


def _stdin_of(process: subprocess.Popen[bytes]) -> int:
    assert process.stdin is not None
    return process.stdin.fileno()


def _send(process: subprocess.Popen[bytes], line: str) -> None:
    with suppress(BrokenPipeError):  # the next `pipe()` replaces the guard
        os.write(_stdin_of(process), line.encode())


def _watch(folder: Path) -> None:
    """Run the guard process: read the pipe to its end, then kill and clean up."""
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
        # On macOS a process that is being forked may be missed the first time.
        time.sleep(_SECOND_LOOK_SECONDS)
        for group in groups:
            _deliver(group, signal.SIGKILL, os.killpg)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        folder.parent.rmdir()


def _run(argv: list[str]) -> None:
    """Report this process to the guard, then execute the program."""
    os.write(0, f"+{os.getpid()}\n".encode())
    adopt_orphans()
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    # Reset all signals to their defaults, as in a container: Python and the server's parent ignore some.
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, _environment())
    except OSError as error:
        sys.stderr.write(f"exec {argv[0]}: {error.strerror}\n")
        sys.exit(_CANNOT_RUN)


def _environment() -> dict[bytes, bytes]:
    """Return the original environment: Python adds a locale if there is none."""
    with suppress(OSError):
        words = Path("/proc/self/environ").read_bytes().split(b"\0")
        return {name: value for name, _, value in (word.partition(b"=") for word in words if word)}
    return dict(os.environb)


def _deliver(process: int, number: int, send: Callable[[int, int], None]) -> None:
    # Already gone, or only zombies are left, for which macOS returns EPERM.
    with suppress(ProcessLookupError, PermissionError):
        send(process, number)


if __name__ == "__main__":
    if sys.argv[1] == "run":
        _run(sys.argv[2:])
    else:
        _watch(Path(sys.argv[2]))
