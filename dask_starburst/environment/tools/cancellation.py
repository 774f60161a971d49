"""Cancel work in threads: after Ctrl-C, or when another part of it has failed.

A thread cannot be ended from outside. So the work checks regularly whether it was cancelled, and the subprocesses that
it waits for are terminated. Work outside of a `cancellable` block is never cancelled.
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


class Cancelled(Exception):
    """The work was cancelled. Only its own threads see this: the caller has already left."""


class Cancellation:
    """Whether some work was cancelled, and which subprocesses it waits for."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()

    def cancel(self) -> None:
        """Cancel the work, and terminate its subprocesses at once."""
        with self._lock:
            self._cancelled.set()
            for process in self._running:
                _end(process)

    def check(self) -> None:
        """Raise `Cancelled` if the work was cancelled."""
        if self._cancelled.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Wait, and raise `Cancelled` as soon as the work is cancelled."""
        if self._cancelled.wait(seconds):
            raise Cancelled

    @contextmanager
    def watching(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Terminate a subprocess when the work is cancelled."""
        with self._lock:
            self._running.add(process)
            if self._cancelled.is_set():
                _end(process)
        try:
            yield
        finally:
            with self._lock:
                self._running.discard(process)
        self.check()


_current: ContextVar[Cancellation] = ContextVar("cancellation", default=Cancellation())  # noqa: B039 -- never cancelled


@contextmanager
def cancellable() -> Iterator[None]:
    """Cancel the work started in this block, also in threads, when an exception leaves it."""
    own = Cancellation()
    token = _current.set(own)
    try:
        yield
    except BaseException:
        own.cancel()
        raise
    finally:
        _current.reset(token)


def check() -> None:
    """Raise `Cancelled` if the work was cancelled."""
    _current.get().check()


def pause(seconds: float) -> None:
    """Sleep; raise `Cancelled` as soon as the work is cancelled."""
    _current.get().wait(seconds)


def submit(pool: Executor, work: Callable[..., T], *arguments: Any) -> Future[T]:
    """Submit a part of the work to a pool, in the current context."""
    return pool.submit(copy_context().run, work, *arguments)


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a subprocess that is terminated, with its own children, when the work is cancelled.

    It has its own process group: Ctrl-C reaches this process only, which then terminates the subprocess.

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
    """Run a subprocess to completion, as `subprocess.run` does; terminate it when the work is cancelled.

    Raises
    ------
    subprocess.TimeoutExpired
        It took too long, and was terminated.
    """
    stdin = subprocess.DEVNULL if input is None else subprocess.PIPE
    with started(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env) as process:
        stdout, stderr = process.communicate(input, timeout)
    return subprocess.CompletedProcess(list(command), process.returncode, stdout, stderr)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
