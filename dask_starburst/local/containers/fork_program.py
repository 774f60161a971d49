"""The fork server's program; see `fork_server`. It must import only the standard library.

A nanny starts its worker with `multiprocessing`, as a new Python that imports distributed again. So each container
has a small fork server of its own, which was forked before the container's first thread started, and the worker is
forked from it. It becomes a child of the nanny, because the first process of a container is a child subreaper.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import importlib
import json
import multiprocessing.spawn
import multiprocessing.util
import os
import re
import runpy
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

READY = b"ready"
#: One BLAS thread: a process with threads cannot be forked safely. Scheduler and nanny use no BLAS, and a nanny sets
#: the same for its worker (``distributed.nanny.pre-spawn-environ``).
SINGLE_THREADED = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_LONGEST_MESSAGE = 1 << 20
_MOST_FDS = 64
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
#: What `multiprocessing.spawn.get_command_line` lets a new Python run.
_SPAWN_MAIN = re.compile(r"from multiprocessing\.spawn import spawn_main; spawn_main\((.*)\)")


def _serve(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Fork a process for each request; return in these processes, with the request and its file descriptors.

    The middle of two forks ends at once, so the process becomes a child of the next child subreaper.
    """
    while True:
        message, fds, _, _ = socket.recv_fds(connection, _LONGEST_MESSAGE, _MOST_FDS)
        if not message:
            os._exit(0)  # the other side has closed the connection, or ended
        read, write = os.pipe()
        if (middle := os.fork()) == 0:
            if os.fork() == 0:
                os.write(write, str(os.getpid()).encode())
                os.close(write)
                os.close(read)
                os.close(connection.detach())
                return json.loads(message), fds
            os._exit(0)
        os.close(write)
        with open(read, "rb") as pipe:
            pid = pipe.read()
        os.waitpid(middle, 0)
        for fd in fds:
            os.close(fd)
        connection.send(pid)


def _become_container(request: Mapping[str, Any], guard: int, output: int) -> None:
    """Make this process what `guard.Guard.wrap` would make of a new one."""
    os.setsid()
    os.write(guard, f"+{os.getpid()}\n".encode())
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    added = {name: value for name, value in os.environ.items() if name == "LC_CTYPE"}  # by Python, without a locale
    _start_afresh({**added, **request["env"]}, request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv = request["argv"]


def _start_afresh(environment: Mapping[str, str], folder: str) -> None:
    """Set what a new Python has of its own: environment, folder, random numbers."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # Python's own random numbers are seeded after every fork


def _default_signals() -> None:
    """Set signals as a new Python does in a container: the embedded AWS's parent may have ignored some."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is signal.SIG_IGN and number not in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


# -- the workers of nannies -----------------------------------------------------------------------


def _fork_spawned_processes() -> None:
    """Fork the processes that `multiprocessing` spawns from a process that has imported what this one has.

    Returns in this process, and never in the others.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _run_spawned(*_serve(theirs))
    theirs.close()
    spawn = multiprocessing.util.spawnv_passfds

    def fork(path: bytes, args: Sequence[Any], passfds: Sequence[int]) -> int:
        known = _SPAWN_MAIN.fullmatch(args[-2]) if len(args) > 1 else None
        fits = all(os.environ.get(name) == value for name, value in SINGLE_THREADED.items())
        fds = sorted(set(passfds))
        if known is None or not fits or len(fds) > _MOST_FDS:
            return int(spawn(path, args, passfds))
        request = {
            "main": known[1],
            "argv": ["-c", *args[-1:]],
            "env": dict(os.environ),
            "cwd": os.getcwd(),
            "fds": fds,
        }
        socket.send_fds(ours, [json.dumps(request).encode()], fds)
        return int(ours.recv(64))

    multiprocessing.util.spawnv_passfds = fork  # used by `multiprocessing.popen_spawn_posix`


def _run_spawned(request: Mapping[str, Any], received: Sequence[int]) -> None:
    _move(received, request["fds"])
    _start_afresh(request["env"], request["cwd"])
    sys.path[0] = ""
    sys.argv = request["argv"]
    arguments = (word.split("=") for word in request["main"].split(", "))
    multiprocessing.spawn.spawn_main(**{name: int(value) for name, value in arguments})  # ends with SystemExit


def _move(received: Sequence[int], numbers: Sequence[int]) -> None:
    """Give received file descriptors the numbers that they have in the sending process, and close all others."""
    above = max(*numbers, *received, 2) + 1
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD, above) for fd in received]
    os.closerange(3, above)
    for fd, number in zip(kept, numbers, strict=True):
        os.dup2(fd, number)
    os.closerange(above, os.sysconf("SC_OPEN_MAX"))


def _main(fd: int, module: str, *imported: str) -> None:
    _default_signals()
    for name in imported:
        importlib.import_module(name)
    if len(os.listdir("/proc/self/task")) > 1:
        sys.exit("the imports have started threads")
    gc.freeze()  # the collector would touch, and so copy, every object in each container
    connection = socket.socket(fileno=fd)
    connection.send(READY)
    request, fds = _serve(connection)
    _become_container(request, *fds)
    _fork_spawned_processes()
    gc.unfreeze()
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main(int(sys.argv[2]), *sys.argv[3:])
