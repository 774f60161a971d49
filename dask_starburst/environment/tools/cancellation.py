"""Work in threads that ends when nobody waits for it any more: after Ctrl-C, or since another part of it has failed.

Nobody can end a thread from outside. So the work looks from time to time whether it is still wanted, and the programs
that it waits for are ended. Who has not said `interruptible` is never interrupted.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Interrupted(Exception):
    """The work is not wanted any more. Nobody sees it: who waited for the work has gone."""


class Interruption:
    """Whether some work is still wanted, and which programs it waits for."""

    def __init__(self) -> None:
        self._unwanted = threading.Event()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()

    def stop(self) -> None:
        """End the work soon, and its programs at once."""
        with self._lock:
            self._unwanted.set()
            for process in self._running:
                _end(process)

    def check(self) -> None:
        """Raise `Interrupted` if the work is not wanted."""
        if self._unwanted.is_set():
            raise Interrupted

    def wait(self, seconds: float) -> None:
        """Wait, and raise `Interrupted` as soon as the work is not wanted."""
        if self._unwanted.wait(seconds):
            raise Interrupted

    @contextmanager
    def watching(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """End a program too when the work is not wanted."""
        with self._lock:
            self._running.add(process)
            if self._unwanted.is_set():
                _end(process)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(process)
        self.check()


_current: ContextVar[Interruption] = ContextVar("interruption", default=Interruption())  # noqa: B039 -- nobody stops it


@contextmanager
def interruptible() -> Iterator[None]:
    """Have whatever is begun in here, in threads as well, end when this is left by an exception."""
    own = Interruption()
    token = _current.set(own)
    try:
        yield
    except BaseException:
        own.stop()
        raise
    finally:
        _current.reset(token)


def check() -> None:
    """Raise `Interrupted` if the work is not wanted any more."""
    _current.get().check()


def pause(seconds: float) -> None:
    """Wait, but not longer than the work is wanted."""
    _current.get().wait(seconds)


def submit(pool: Executor, work: Callable[..., T], *arguments: Any) -> Future[T]:
    """Have a thread of a pool do a part of the work."""
    return pool.submit(copy_context().run, work, *arguments)


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a program as long as the work is wanted; it is ended with what it has started.

    It is in a process group of its own: Ctrl-C reaches this process only, which then ends the program.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    **options
        Of `subprocess.Popen`.
    """
    with subprocess.Popen(command, text=True, process_group=0, **options) as process:
        try:
            with _current.get().watching(process):
                yield process
        except BaseException:
            _end(process)
            raise


def run(
    command: Sequence[str],
    *,
    input: str | None = None,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, as `subprocess.run` does, as long as the work is wanted.

    Raises
    ------
    subprocess.TimeoutExpired
        It took too long, and was ended.
    """
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    with started(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        said, complained = process.communicate(input, timeout)
    return subprocess.CompletedProcess(list(command), process.returncode, said, complained)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
