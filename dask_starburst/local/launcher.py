"""Start and stop the server process of the embedded AWS.

Its standard input is a pipe from this process. The server exits when the pipe closes, which the kernel does
when this process ends. So nothing is left running, and no exit handler is needed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dask_starburst import extras
from dask_starburst.errors import LocalAWSError

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_KILL_SECONDS = 5.0
_REMEMBERED_LINES = 40
#: Python's last line when the server imports a missing module.
_ABSENT = re.compile(
    r"^(?:ModuleNotFoundError: No module named|ImportError: cannot import name) '(?P<module>[^']+)'.*", re.M
)


@dataclass(frozen=True)
class Handshake:
    """The line that a server prints when it is ready."""

    endpoint_url: str
    pid: int
    network: str
    aliases: bool
    scheduler_port: int


def server_options(
    *,
    region: str,
    timing: str,
    speed: float,
    seed: int = 0,
    aliases: bool | None = None,
    port: int = 0,
    processes: bool = True,
    latency: tuple[float, float] = (0.0, 0.0),
    images: Mapping[str, str] | None = None,
    iam: bool | str = False,
    fork: bool = True,
) -> list[str]:
    """Return the server's command-line options."""
    options = ["--port", str(port), "--region", region, "--timing", timing, "--speed", str(speed), "--seed", str(seed)]
    switches = [*([] if processes else ["--no-processes"]), *(["--no-aliases"] if aliases is False else [])]
    switches += [] if fork else ["--no-fork"]
    slow = ["--latency", *map(str, latency)] if any(latency) else []
    pythons = [word for prefix, python in (images or {}).items() for word in ("--image", f"{prefix}={python}")]
    rights = ["--iam", word_of(iam)] if iam else []
    return [*options, *switches, *slow, *pythons, *rights]


def word_of(iam: bool | str) -> str:
    """Return an enforcement of IAM as the server's option."""
    return ("on" if iam else "off") if isinstance(iam, bool) else iam


def start_detached(options: Sequence[str], log: Path) -> Handshake:
    """Start a server that outlives this process, and wait until it answers.

    Parameters
    ----------
    options : sequence of str
        From `server_options`.
    log : Path
        The file for its output.

    Raises
    ------
    LocalAWSError
        It did not start.
    """
    _require_moto()
    log.unlink(missing_ok=True)  # an older file may have wider permissions
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
        process = subprocess.Popen(
            [*_COMMAND, *options, "--stay"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=_environment_of_server(),
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        lines = log.read_text(errors="replace").splitlines(keepends=True)
        handshake = next(filter(None, map(_parse, (line for line in lines if line.endswith("\n")))), None)
        if handshake is not None:
            return handshake
        if process.poll() is not None:
            raise _did_not_start(process.poll(), lines)
        time.sleep(0.02)
    process.kill()
    raise _did_not_start(None, lines)


class Server:
    """A server that belongs to this process, and the threads that read its output.

    Parameters
    ----------
    options : sequence of str
        From `server_options`.
    """

    def __init__(self, options: Sequence[str]) -> None:
        _require_moto()
        self.owner = os.getpid()
        self._lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._handshake: Handshake | None = None
        self._said_or_ended = threading.Event()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [*_COMMAND, *options],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=_environment_of_server(),
            # Ctrl-C in a notebook's terminal must not reach the server; it ends with the pipe.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        _in_background(self._read_stdout, self._process.stdout)
        self._stderr_reader = _in_background(self._read_stderr, self._process.stderr)
        _open_servers.add(self)

    def wait_for_handshake(self, seconds: float = _START_SECONDS) -> Handshake:
        """Wait until it answers; raise `LocalAWSError` if it does not."""
        ended = self._said_or_ended.wait(seconds)
        if self._handshake is None:
            self.stop(at_once=True)
            self._stderr_reader.join(_KILL_SECONDS)
            # After a timeout the exit code would be that of our own signal.
            raise _did_not_start(self._process.returncode if ended else None, list(self._lines), seconds)
        return self._handshake

    def stop(self, at_once: bool = False) -> None:
        """Close the pipe and wait; then SIGTERM, then SIGKILL."""
        self.close_pipe()
        ways: list[tuple[Callable[[], None], float]] = [
            (lambda: None, 0.1 if at_once else _STOP_SECONDS),
            (self._process.terminate, _KILL_SECONDS),
            (self._process.kill, _KILL_SECONDS),
        ]
        for request, timeout in ways:
            request()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout)
                return

    def close_pipe(self) -> None:
        """Close this process's end of the pipe."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _read_stdout(self, stdout: IO[bytes]) -> None:
        with stdout:
            for line in stdout:
                self._handshake = self._handshake or _parse(line)
                if self._handshake is not None:
                    self._said_or_ended.set()
        self._said_or_ended.set()

    def _read_stderr(self, stderr: IO[bytes]) -> None:
        with stderr:
            for line in stderr:
                self._lines.append(line.decode(errors="replace"))


# -P: a `queue.py` in the user's working directory must not shadow the standard library.
_COMMAND = (sys.executable, "-P", "-m", "dask_starburst.local")
_open_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _close_pipes_after_fork() -> None:
    """Close the pipe in a forked child, or the server would outlive its owner."""
    for server in list(_open_servers):
        server.close_pipe()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_pipes_after_fork)


def _environment_of_server() -> dict[str, str]:
    """Return the server's environment, without AWS credentials and endpoints: the server must not call AWS."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # The package may come from a folder that is only on this process's path.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
    return {**inherited, "PYTHONPATH": path}


def _in_background(read: Callable[[IO[bytes]], None], stream: IO[bytes]) -> threading.Thread:
    thread = threading.Thread(target=read, args=(stream,), name="local-aws-output", daemon=True)
    thread.start()
    return thread


def _parse(line: bytes | str) -> Handshake | None:
    """Parse the handshake; None for other lines, because moto and its libraries print too."""
    try:
        data = json.loads(line)
        return Handshake(**{name: data[name] for name in Handshake.__dataclass_fields__})
    except (ValueError, TypeError, KeyError):
        return None


def _require_moto() -> None:
    from importlib.util import find_spec

    if find_spec("moto") is None:
        missing = ModuleNotFoundError("No module named 'moto'", name="moto")
        raise LocalAWSError(extras.explain("The embedded AWS", missing, "local"))


def _did_not_start(code: int | None, lines: Sequence[str], seconds: float = _START_SECONDS) -> LocalAWSError:
    what = f"did not answer within {seconds:g} s" if code is None else f"ended with exit code {code}"
    output = "".join(lines[-_REMEMBERED_LINES:]).strip() or "(nothing)"
    absent = _ABSENT.search(output)
    hint = ""
    if absent:
        error = ImportError(absent[0], name=absent["module"])
        hint = f" {extras.explain('It', error, 'local')}"
    return LocalAWSError(f"The embedded AWS {what}.{hint} Its last output:\n{output}")
