"""Containers that are forked from a process that has imported distributed already.

``python -m dask_starburst.runtime`` spends half a second of a processor on imports, for each container. The fork server
imports them once; a container is then a copy of it, which differs from a new Python only in what is imported. It has
its own session, environment, folder, standard streams and signals, and the server of the embedded AWS as its parent:
the fork server forks twice, and a server with `guard.adopt_orphans` becomes the parent of the orphan. So this is for
Linux only; elsewhere, and before the fork server is ready, containers start as usual.

A forked process has the threads of its parent cut off, and the variables that Python and its libraries have read at
their start. So the fork server ends if it has a second thread, and a container whose environment has such variables
of its own is not forked. `fork_program` is the fork server's program.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from dask_starburst.local.containers.fork_program import READY, SINGLE_THREADED

#: What is forked: ``python -m`` this module.
MODULE = "dask_starburst.runtime"
#: What it imports, and what its preloads import.
IMPORTED = (
    "dask_starburst.runtime.metadata",
    "dask_starburst.runtime.scheduler.demand",
    "dask_starburst.runtime.scheduler.lease_keeper",
    "dask_starburst.runtime.scheduler.retirement",
    "dask_starburst.runtime.worker.notices",
    "distributed.cli.dask_scheduler",
    "distributed.cli.dask_worker",
)
#: Prefixes of variables that Python, its libraries and Dask read when they start.
_READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_", "GLIBC_", "OMP_", "OPENBLAS_", "MKL_", "DASK_", "XDG_")
_TIMEOUT = 10.0
# Not as a script: its folder, whose modules have common names, would be on the import path.
_BOOTSTRAP = "import sys; exec(compile(open(sys.argv[1]).read(), sys.argv[1], 'exec'))"
_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "fork_program.py")


class ForkServer:
    """The embedded AWS's side of the fork server. Thread-safe.

    Parameters
    ----------
    environment : mapping of str to str
        The variables that containers inherit from this computer.
    module : str
        What is forked: containers with the command ``python -m`` this module.
    imported : sequence of str
        The modules that are imported before.
    """

    def __init__(
        self, environment: Mapping[str, str], module: str = MODULE, imported: Sequence[str] = IMPORTED
    ) -> None:
        self._module, self._imported = module, tuple(imported)
        self._environment = {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._ready = False

    @property
    def pid(self) -> int | None:
        """Process id of the fork server; None if it was not started."""
        return None if self._process is None else self._process.pid

    def prepare(self) -> None:
        """Start the fork server, unless it was started before. Does not wait until it is ready."""
        with self._lock:
            if self._process is not None or sys.platform != "linux":
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            words = (_PROGRAM, str(theirs.fileno()), self._module, *self._imported)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BOOTSTRAP, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={**self._environment, **SINGLE_THREADED, "PATH": os.defpath, "HOME": os.devnull},
                    pass_fds=[theirs.fileno()],
                    umask=0o022,
                    start_new_session=True,
                )
            ours.settimeout(_TIMEOUT)
            self._connection = ours

    def forks(self, argv: Sequence[str], environment: Mapping[str, str]) -> bool:
        """Return whether a container with this command and environment can be forked now."""
        own = {name: value for name, value in environment.items() if name.startswith(_READ_AT_START)}
        command = [os.path.dirname(argv[0]), *argv[1:3]]
        fits = command == [os.path.dirname(sys.executable), "-m", self._module]
        return fits and own == self._environment and self._is_up()

    def start(
        self, argv: Sequence[str], environment: Mapping[str, str], folder: str, guard: int, output: int
    ) -> Forked | None:
        """Fork a container; return None if the fork server has failed, and stop it.

        Parameters
        ----------
        argv : sequence of str
            The command, for which `forks` is true.
        environment : mapping of str to str
            Its whole environment.
        folder : str
            Its working directory.
        guard, output : int
            File descriptors: the guard's pipe, and where standard output and error go.
        """
        request = json.dumps({"argv": list(argv[2:]), "env": dict(environment), "cwd": folder}).encode()
        with self._lock:
            if self._connection is None:
                return None
            try:
                socket.send_fds(self._connection, [request], [guard, output])
                return Forked(int(self._connection.recv(64)))
            except (OSError, ValueError):
                self._stop()
                return None

    def close(self) -> None:
        """Stop the fork server. Its containers continue."""
        with self._lock:
            self._stop()

    def _is_up(self) -> bool:
        with self._lock:
            if self._connection is None or self._ready:
                return self._ready and self._connection is not None
            if not select.select([self._connection], [], [], 0)[0]:
                return False
            self._ready = self._connection.recv(64) == READY
            if not self._ready:
                self._stop()
            return self._ready

    def _stop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Forked:
    """A forked container, with the interface of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative after a signal; None while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end, and return the exit code, negative after a signal.

        Raises
        ------
        subprocess.TimeoutExpired
            It still runs after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self._wait(0 if deadline is None else os.WNOHANG)) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(0.01)
        return code

    def _wait(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode
