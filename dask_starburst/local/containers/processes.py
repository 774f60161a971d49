"""Containers of the embedded AWS: real processes, each the leader of its own session.

A container ends with its first process, as under Docker: all its descendants are killed then, daemons in other sessions
included (on Linux; elsewhere only its process group). Its folder is removed with it.
"""

from __future__ import annotations

import logging
import os
import queue
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dask_starburst.local.containers.fork_server import Forked, ForkServer
from dask_starburst.local.containers.guard import Guard, adopt_orphans, children_of, kill_trees

OnLine = Callable[[float, str], None]
Process = subprocess.Popen[bytes] | Forked

_log = logging.getLogger(__name__)

_DRAIN_SECONDS = 1.0
_KILL_SECONDS = 5.0
# Docker splits lines here too, so that a program without line breaks cannot fill the memory.
_LONGEST_LINE = 16 * 1024


class Containers:
    """All containers of one embedded AWS, by a key that the caller chooses.

    Every method is thread-safe, and none except `close` waits for a container.

    Parameters
    ----------
    directory : Path
        The parent of each container's working directory. It is created if missing, and removed at the end, even if
        this process is killed, unless it contains other files.
    alone : bool
        Whether this process starts nothing else. Then an unknown child is an orphan of an ended container,
        and is killed.
    fork_server : ForkServer, optional
        Starts the containers that it can, if this process is alone.
    """

    def __init__(self, directory: Path, *, alone: bool = False, fork_server: ForkServer | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = Path(tempfile.mkdtemp(prefix="c-", dir=directory))
        self._lock = threading.Lock()
        self._containers: dict[str, _Container] = {}
        self._exit_codes: dict[str, int] = {}
        self._closed = False
        self._alone = alone
        self._fork_server = fork_server if alone else None
        if alone:
            adopt_orphans()
        self._guard = Guard(self._directory)
        self._reader = _Reader()

    def start(self, key: str, argv: Sequence[str], env: Mapping[str, str], on_line: OnLine) -> int:
        """Start a container and return the process id of its first process.

        Parameters
        ----------
        key : str
            A key that has not been used before.
        argv : sequence of str
            The command. The first word is looked up beside this Python first, for ``python`` and ``dask``.
        env : mapping of str to str
            Its whole environment, as in a container. ``HOME`` and ``TMPDIR`` default to its folder.
        on_line : callable
            Called as ``on_line(time.time(), line)`` for every line of standard output and error, from one
            thread.

        Raises
        ------
        OSError
            The command does not exist or is not executable.
        ValueError
            The key has been used before, or this object is closed.
        """
        self._refuse(key)
        folder = Path(tempfile.mkdtemp(prefix="c-", dir=self._directory))
        try:
            with self._lock:  # or a new process that is not yet known would be taken for an orphan
                self._refuse(key)
                process, stdout = self._spawn(argv, env, folder)
                output = _Output(stdout, on_line)
                self._guard.started(process.pid)
                self._containers[key] = _Container(process, output, folder)
                self._reader.add(output)
        except (OSError, ValueError):
            folder.rmdir()
            raise
        return process.pid

    def poll(self, key: str) -> int | None:
        """Return the exit code, 128 + N after signal N; None while it runs or has unread output.

        Raises
        ------
        KeyError
            No container with this key was ever started.
        """
        with self._lock:
            if key in self._exit_codes:
                return self._exit_codes[key]
            container = self._containers[key]
            if container.exit_code is None:
                self._reap(container)
            if container.exit_code is None or not self._drained(container):
                return None
            del self._containers[key]
            self._exit_codes[key] = container.exit_code
        shutil.rmtree(container.folder, ignore_errors=True)
        return container.exit_code

    def signal(self, key: str, signum: int) -> None:
        """Send a signal to the first process of a container, as Docker does. No-op if it has ended."""
        with self._lock:
            container = self._containers.get(key)
            if container is not None and container.exit_code is None:
                _deliver(container.process.pid, signum, os.kill)

    def kill(self, key: str) -> None:
        """Kill every process of a container."""
        with self._lock:
            container = self._containers.get(key)
            if container is not None and container.exit_code is None:
                kill_trees([container.process.pid])

    def forget(self, key: str) -> None:
        """Forget the exit code of a container. No-op while it runs."""
        with self._lock:
            self._exit_codes.pop(key, None)

    def running(self) -> dict[str, int]:
        """Return the process ids of all containers that run or have unread output."""
        for key in tuple(self._containers):
            self.poll(key)  # a container killed together with its instance is not polled any more
        with self._lock:
            return {key: container.process.pid for key, container in self._containers.items()}

    def close(self) -> None:
        """Kill everything and wait for it to end."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            left = [container.process for container in self._containers.values() if container.exit_code is None]
            kill_trees(process.pid for process in left)
            for process in left:
                _wait(process)
            self._kill_orphans()
            for key, container in self._containers.items():
                shutil.rmtree(container.folder, ignore_errors=True)
                self._exit_codes[key] = 128 + signal.SIGKILL if container.exit_code is None else container.exit_code
            self._containers.clear()
            self._reader.close()
        self._guard.close()

    def _refuse(self, key: str) -> None:
        if self._closed:
            raise ValueError(f"container {key} cannot be started: the embedded AWS is closed")
        if key in self._containers or key in self._exit_codes:
            raise ValueError(f"container {key} cannot be started: the key has been used before")

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str], folder: Path) -> tuple[Process, int]:
        """Start the first process; return it and the file descriptor of its output."""
        path = os.pathsep.join((os.path.dirname(sys.executable), env.get("PATH", os.defpath)))
        environment = {"HOME": str(folder), "TMPDIR": str(folder), **env, "PATH": path}
        command = [_find(argv[0], path), *argv[1:]]
        if self._fork_server is not None and self._fork_server.forks(command, environment):
            read, write = os.pipe()
            forked = self._fork_server.start(command, environment, str(folder), self._guard.pipe(), write)
            os.close(write)
            if forked is not None:
                return forked, read
            os.close(read)
        process = subprocess.Popen(
            self._guard.wrap(command),
            stdin=self._guard.pipe(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            bufsize=0,
            cwd=folder,
            env=environment,
            umask=0o022,  # as in a container
            start_new_session=True,
        )
        return process, _stdout_of(process)

    def _reap(self, container: _Container) -> None:
        process = container.process
        if not _has_ended(process):
            return
        # While the first process is a zombie its id is not reused, so this kills only its own group.
        _deliver(process.pid, signal.SIGKILL, os.killpg)
        self._guard.ended(process.pid)
        code = process.wait()
        container.exit_code = 128 - code if code < 0 else code
        container.drain_until = time.monotonic() + _DRAIN_SECONDS
        self._kill_orphans()

    def _kill_orphans(self) -> None:
        """Kill orphans of ended containers. The lock must be held."""
        if not self._alone:
            return
        helpers = {self._guard.pid, *([self._fork_server.pid] if self._fork_server is not None else [])}
        own = helpers | {each.process.pid for each in self._containers.values()}
        orphans = set(children_of(os.getpid())) - own
        kill_trees(orphans)
        for orphan in orphans:
            with suppress(ChildProcessError):
                os.waitpid(orphan, os.WNOHANG)  # one that has not ended yet is reaped the next time

    def _drained(self, container: _Container) -> bool:
        if container.output.drained.is_set():
            return True
        if time.monotonic() < container.drain_until:
            return False
        self._reader.give_up(container.output)
        return True


@dataclass
class _Output:
    """The output of one container."""

    fd: int
    on_line: OnLine
    rest: bytes = b""
    drained: threading.Event = field(default_factory=threading.Event)

    def feed(self, data: bytes) -> None:
        now = time.time()
        *lines, self.rest = (self.rest + data).split(b"\n")
        while len(self.rest) >= _LONGEST_LINE:
            lines.append(self.rest[:_LONGEST_LINE])
            self.rest = self.rest[_LONGEST_LINE:]
        for line in lines:
            self._emit(now, line)

    def finish(self) -> None:
        if self.rest:
            self._emit(time.time(), self.rest)
        os.close(self.fd)
        self.drained.set()

    def _emit(self, now: float, line: bytes) -> None:
        try:
            self.on_line(now, line.rstrip(b"\r").decode(errors="replace"))
        except Exception:  # noqa: BLE001 - the loop's edge: one failed listener must not stop the others
            _log.exception("a line of container output could not be delivered; continuing")


@dataclass
class _Container:
    process: Process
    output: _Output
    folder: Path
    exit_code: int | None = None
    drain_until: float = 0.0


class _Reader:
    """The thread that reads the output of all containers."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._commands: queue.SimpleQueue[tuple[str, _Output | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="container-output", daemon=True)
        self._thread.start()

    def add(self, output: _Output) -> None:
        self._send_command("add", output)

    def give_up(self, output: _Output) -> None:
        self._send_command("drop", output)

    def close(self) -> None:
        """Stop the thread, then close the pipe: the thread may see the command before the wake-up byte."""
        self._send_command("stop", None)
        self._thread.join(_KILL_SECONDS)
        if not self._thread.is_alive():
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _send_command(self, command: str, output: _Output | None) -> None:
        self._commands.put((command, output))
        with suppress(BlockingIOError):  # the pipe is full of wake-up bytes; one more is not needed
            os.write(self._wake_write, b"\0")

    def _run(self) -> None:
        going = True
        while going:
            for key, _ in self._selector.select():
                if key.fd == self._wake_read:
                    os.read(self._wake_read, 4096)
                else:
                    self._read(key.data)
            going = self._handle_commands()
        self._end()

    def _read(self, output: _Output) -> None:
        data = os.read(output.fd, 65536)
        if data:
            output.feed(data)
        else:
            self._drop(output)

    def _handle_commands(self) -> bool:
        while not self._commands.empty():
            command, output = self._commands.get()
            if output is None:
                return False
            if command == "add":
                self._selector.register(output.fd, selectors.EVENT_READ, output)
            elif not output.drained.is_set():
                self._drop(output)
        return True

    def _drop(self, output: _Output) -> None:
        self._selector.unregister(output.fd)
        output.finish()

    def _end(self) -> None:
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._drop(key.data)
        self._selector.close()


def _find(word: str, path: str) -> str:
    found = shutil.which(word, path=path)
    if found is not None:
        return os.path.abspath(found)
    if os.path.exists(word) and os.sep in word:
        raise PermissionError(f"{word} is not an executable file")
    raise FileNotFoundError(f"exec: {word!r}: executable file not found in $PATH")


def _stdout_of(process: subprocess.Popen[bytes]) -> int:
    # The reader owns the descriptor from here on: a collected Popen must not close a reused number.
    assert process.stdout is not None
    fd = os.dup(process.stdout.fileno())
    process.stdout.close()
    return fd


def _has_ended(process: Process) -> bool:
    if sys.platform == "darwin" and sys.version_info < (3, 13):
        return process.poll() is not None  # no waitid: it is reaped a moment before its group is killed
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _deliver(pid: int, signum: int, send: Callable[[int, int], None]) -> None:
    # Already gone, or only zombies are left, for which macOS returns EPERM.
    with suppress(ProcessLookupError, PermissionError):
        send(pid, signum)


def _wait(process: Process) -> None:
    try:
        process.wait(_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        _log.warning("process %d does not end", process.pid)
