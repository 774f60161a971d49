"""Starting and stopping the embedded AWS, a process of its own.

Its standard input is a pipe from this process, and the end of it is how the server learns that this process is gone,
however it went. So nothing is left running, and nothing has to be registered to run at exit.
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
#: What Python says last when the server imports what is not there.
_ABSENT = re.compile(
    r"^(?:ModuleNotFoundError: No module named|ImportError: cannot import name) '(?P<module>[^']+)'.*", re.M
)


@dataclass(frozen=True)
class Hello:
    """What a server says about itself once it answers."""

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
) -> list[str]:
    """Return the server's command-line options."""
    options = ["--port", str(port), "--region", region, "--timing", timing, "--speed", str(speed), "--seed", str(seed)]
    switches = [*([] if processes else ["--no-processes"]), *(["--no-aliases"] if aliases is False else [])]
    slow = ["--latency", *map(str, latency)] if any(latency) else []
    pythons = [word for prefix, python in (images or {}).items() for word in ("--image", f"{prefix}={python}")]
    return [*options, *switches, *slow, *pythons]


def start_detached(options: Sequence[str], log: Path) -> Hello:
    """Start a server that stays when this process ends, and wait until it answers.

    Parameters
    ----------
    options : sequence of str
        From `server_options`.
    log : Path
        A file that takes everything that it prints.

    Raises
    ------
    LocalAWSError
        It did not come up.
    """
    _require_moto()
    log.unlink(missing_ok=True)  # it may be older than the rule that only its owner reads it
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
        hello = next(filter(None, map(_parse, (line for line in lines if line.endswith("\n")))), None)
        if hello is not None:
            return hello
        if process.poll() is not None:
            raise _did_not_start(process.poll(), lines)
        time.sleep(0.02)
    process.kill()
    raise _did_not_start(None, lines)


class Server:
    """A server that belongs to this process, and the threads that keep its output from filling up.

    Parameters
    ----------
    options : sequence of str
        From `server_options`.
    """

    def __init__(self, options: Sequence[str]) -> None:
        _require_moto()
        self.owner = os.getpid()
        self._lines: deque[str] = deque(maxlen=_REMEMBERED_LINES)
        self._hello: Hello | None = None
        self._said_or_ended = threading.Event()
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            [*_COMMAND, *options],
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            env=_environment_of_server(),
            # Ctrl-C in a notebook's terminal is for the notebook: the server ends with the pipe.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        _in_background(self._read_stdout, self._process.stdout)
        self._stderr_reader = _in_background(self._read_stderr, self._process.stderr)
        _open_servers.add(self)

    def wait_for_hello(self, seconds: float = _START_SECONDS) -> Hello:
        """Wait until it answers; `LocalAWSError` when it does not."""
        ended = self._said_or_ended.wait(seconds)
        if self._hello is None:
            self.stop(at_once=True)
            self._stderr_reader.join(_KILL_SECONDS)
            # The exit code of one that only took too long is that of our own signal.
            raise _did_not_start(self._process.returncode if ended else None, list(self._lines), seconds)
        return self._hello

    def stop(self, at_once: bool = False) -> None:
        """Close the pipe, wait, and go on to stronger ways when that does not end it."""
        self.close_pipe()
        ways: list[tuple[Callable[[], None], float]] = [
            (lambda: None, 0.1 if at_once else _STOP_SECONDS),
            (self._process.terminate, _KILL_SECONDS),
            (self._process.kill, _KILL_SECONDS),
        ]
        for ask, patience in ways:
            ask()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(patience)
                return

    def close_pipe(self) -> None:
        """Close this process's end of the pipe."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def _read_stdout(self, stdout: IO[bytes]) -> None:
        with stdout:
            for line in stdout:
                self._hello = self._hello or _parse(line)
                if self._hello is not None:
                    self._said_or_ended.set()
        self._said_or_ended.set()

    def _read_stderr(self, stderr: IO[bytes]) -> None:
        with stderr:
            for line in stderr:
                self._lines.append(line.decode(errors="replace"))


# -P: a `queue.py` in the folder that the user works in must not become the server's.
_COMMAND = (sys.executable, "-P", "-m", "dask_starburst.local")
_open_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _close_pipes_after_fork() -> None:
    """A forked child must not hold the pipe open: the server would outlive the process that it belongs to."""
    for server in list(_open_servers):
        server.close_pipe()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_pipes_after_fork)


def _environment_of_server() -> dict[str, str]:
    """The server calls no AWS, so it inherits no credentials, and nothing that would lead moto's own calls to one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    # The package may have been imported from a folder that only this process has on its path.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), root)))
    return {**inherited, "PYTHONPATH": path}


def _in_background(read: Callable[[IO[bytes]], None], stream: IO[bytes]) -> threading.Thread:
    thread = threading.Thread(target=read, args=(stream,), name="local-aws-output", daemon=True)
    thread.start()
    return thread


def _parse(line: bytes | str) -> Hello | None:
    """Moto and its libraries print too, so a line that is no hello is passed over."""
    try:
        data = json.loads(line)
        return Hello(**{name: data[name] for name in Hello.__dataclass_fields__})
    except (ValueError, TypeError, KeyError):
        return None


def _require_moto() -> None:
    from importlib.util import find_spec

    if find_spec("moto") is None:
        missing = ModuleNotFoundError("No module named 'moto'", name="moto")
        raise LocalAWSError(extras.explain("The embedded AWS", missing, "local"))


def _did_not_start(code: int | None, lines: Sequence[str], seconds: float = _START_SECONDS) -> LocalAWSError:
    what = f"did not answer within {seconds:g} s" if code is None else f"ended with exit code {code}"
    said = "".join(lines[-_REMEMBERED_LINES:]).strip() or "(nothing)"
    absent = _ABSENT.search(said)
    hint = ""
    if absent:
        error = ImportError(absent[0], name=absent["module"])
        hint = f" {extras.explain('It', error, 'local')}"
    return LocalAWSError(f"The embedded AWS {what}.{hint} Its last words:\n{said}")
