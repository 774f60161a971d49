"""Containers that are forked from a process that has imported distributed already.

``python -m dask_starburst.runtime`` spends half a second of a processor on imports, for each container. The fork server
imports them once; a container is then a copy of it, which differs from a new Python only in what is imported. It has
its own session, environment, folder, standard streams and signals, and the server of the embedded AWS as its parent:
the fork server forks twice, and a server with `guard.adopt_orphans` becomes the parent of the orphan. So this is for
Linux only; elsewhere, and before the fork server is ready, containers start as usual.

A forked process has the threads of its parent cut off, and the variables that Python and its libraries have read at
their start. So the fork server ends if it has a second thread, and a container whose environment has such variables
of its own is not forked.

This file is also the fork server's program. It must import only the standard library.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

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
#: One BLAS thread: a process with threads cannot be forked safely. Scheduler and nanny use no BLAS.
_SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_TIMEOUT = 10.0
_LONGEST_MESSAGE = 1 << 20
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_READY = b"ready"


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

    def expect(self, command: Sequence[str]) -> None:
        """Prepare for containers with this command, if they can be forked."""
        if list(command[:3]) == ["python", "-m", self._module]:
            self.prepare()

    def prepare(self) -> None:
        """Start the fork server, unless it was started before. Does not wait until it is ready."""
        with self._lock:
            if self._process is not None or sys.platform != "linux":
                return
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            words = (os.path.abspath(__file__), str(theirs.fileno()), self._module, *self._imported)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BOOTSTRAP, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    env={**self._environment, **_SINGLE_THREADED, "PATH": os.defpath, "HOME": os.devnull},
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
            self._ready = self._connection.recv(64) == _READY
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


# -- the fork server's program --------------------------------------------------------------------

# Not as a script: its folder, whose modules have common names, would be on the import path.
_BOOTSTRAP = "import sys; exec(compile(open(sys.argv[1]).read(), sys.argv[1], 'exec'))"


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork a container for each request; return in the containers, with the request."""
    while True:
        message, fds, _, _ = socket.recv_fds(connection, _LONGEST_MESSAGE, 2)
        if not message:
            os._exit(0)  # the embedded AWS has closed the connection, or ended
        read, write = os.pipe()
        if (middle := os.fork()) == 0:
            if os.fork() == 0:
                request: dict[str, Any] = json.loads(message)
                connection.detach()
                _become(request, write, *fds)
                return request
            os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:
            pid = pipe.read()  # to its end: the container has closed it, or ended
        os.waitpid(middle, 0)
        for fd in fds:
            os.close(fd)
        connection.send(pid)


def _become(request: Mapping[str, Any], parent: int, guard: int, output: int) -> None:
    """Make this process what `guard.wrap` would make of a new one."""
    os.setsid()
    os.write(guard, f"+{os.getpid()}\n".encode())
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.write(parent, str(os.getpid()).encode())
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["cwd"])
    added = {name: value for name, value in os.environ.items() if name == "LC_CTYPE"}  # by Python, without a locale
    os.environ.clear()
    os.environ.update({**added, **request["env"]})
    tempfile.tempdir = None
    sys.path[0] = request["cwd"]
    sys.argv = request["argv"]
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()


def _default_signals() -> None:
    """Set signals as a new Python does in a container: the embedded AWS's parent may have ignored some."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def _main(fd: int, module: str, *imported: str) -> None:
    _default_signals()
    for name in imported:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("the imports have started threads")
    gc.freeze()  # the collector would touch, and so copy, every object in each container
    with suppress(BrokenPipeError):
        connection = socket.socket(fileno=fd)
        connection.send(_READY)
        _serve(connection)
        gc.unfreeze()
        runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(int(sys.argv[2]), *sys.argv[3:])
