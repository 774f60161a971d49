"""All processes end with the server, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from dask_starburst.local.containers.guard import Guard
from tests.support.cluster_asserts import alive

# A minimal server: it starts three containers, one with a child, prints all process ids, and waits.
SERVER = """
import signal, sys, tempfile, threading
from pathlib import Path
from dask_starburst.local.containers.processes import Containers

containers = Containers(Path(tempfile.mkdtemp(dir=sys.argv[1])))
seen = []
done = threading.Event()

def on_line(when, line):
    seen.append(line)
    if len(seen) == 1:
        done.set()

pids = [containers.start(str(n), ["sleep", "300"], {}, on_line) for n in range(2)]
pids.append(containers.start("with child", ["sh", "-c", "sleep 300 & echo $!; wait"], {}, on_line))
done.wait(10)
print(containers._guard.pid, *pids, *seen, flush=True)
{end}
"""


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def serve(folder: Path, end: str) -> tuple[subprocess.Popen[str], list[int]]:
    program = SERVER.replace("{end}", end)
    server = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, [int(pid) for pid in server.stdout.readline().split()]


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_server_ended_by_a_signal_leaves_no_process(tmp_path: Path, signum: signal.Signals) -> None:
    server, pids = serve(tmp_path, "signal.pause()")
    assert len(pids) == 5
    assert all(alive(pid) for pid in pids)
    server.send_signal(signum)
    assert server.wait(10) == -signum
    until(lambda: not any(alive(pid) for pid in pids))
    assert list(tmp_path.iterdir()) == [], "the containers' folders should be gone"


@pytest.mark.parametrize("end", ["import os; os._exit(1)", "raise SystemExit(0)", "containers.close()"])
def test_a_server_that_ends_by_itself_leaves_no_process(tmp_path: Path, end: str) -> None:
    server, pids = serve(tmp_path, end)
    assert len(pids) == 5
    server.wait(10)
    until(lambda: not any(alive(pid) for pid in pids))


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Guard]:
    made = Guard(tmp_path / "folder")
    yield made
    made.close()


def start(guard: Guard) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(guard.wrap(["sleep", "300"]), stdin=guard.pipe(), start_new_session=True)
    guard.started(process.pid)
    until(lambda: psutil.Process(process.pid).name() == "sleep")
    return process


def test_closing_the_guard_kills_the_remaining_groups(guard: Guard) -> None:
    process = start(guard)
    guard.close()
    assert process.wait(10) == -signal.SIGKILL


def test_a_group_that_has_ended_is_not_killed(guard: Guard) -> None:
    """Its id may be reused by another process."""
    process = start(guard)
    guard.ended(process.pid)
    guard.close()
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_guard_that_was_killed_is_replaced_and_knows_the_groups(guard: Guard) -> None:
    process = start(guard)
    first = guard.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: not alive(first))
    another = start(guard)
    assert guard.pid != first
    guard.close()
    assert process.wait(10) == another.wait(10) == -signal.SIGKILL


def test_the_guard_outlives_the_signals_of_a_terminal(guard: Guard) -> None:
    process = start(guard)
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        os.kill(guard.pid, signum)
    assert alive(guard.pid)
    guard.close()
    assert process.wait(10) == -signal.SIGKILL


def test_a_guarded_program_does_not_hold_the_pipe(guard: Guard) -> None:
    """Otherwise the pipe would stay open while the program runs, and the guard would not see its end."""
    process = subprocess.Popen(
        guard.wrap([sys.executable, "-c", "import sys; print(repr(sys.stdin.read()))"]),
        stdin=guard.pipe(),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.communicate(timeout=90)[0] == b"''\n"


def test_a_guarded_program_inherits_only_its_environment_and_default_signals(guard: Guard) -> None:
    program = "cat /proc/self/status; echo; env"
    process = subprocess.Popen(
        guard.wrap(["/bin/sh", "-c", program]),
        stdin=guard.pipe(),
        stdout=subprocess.PIPE,
        env={"A": "b=c", "PATH": os.defpath},
        start_new_session=True,
    )
    status, _, environment = process.communicate(timeout=90)[0].decode().partition("\n\n")
    masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
    # A program cannot set those reserved by the C library (32 and 33).
    settable = sum(1 << (number - 1) for number in signal.valid_signals())
    assert {kind: int(masks[kind], 16) & settable for kind in ("SigIgn", "SigCgt", "SigBlk")} == {
        "SigIgn": 0,
        "SigCgt": 0,
        "SigBlk": 0,
    }
    own = {line for line in environment.splitlines() if not line.startswith(("PWD", "_", "SHLVL", "OLDPWD"))}
    assert own == {"A=b=c", f"PATH={os.defpath}"}


#: A classic daemon: two forks, its own session, and here an empty environment.
DAEMON = "(setsid env -i /bin/sh -c 'sleep 300 & echo $! $$; exec sleep 300' &) ; sleep 0.2 ; "
#: A server alone in its process, like the embedded AWS.
DAEMONS = """
import signal, sys, tempfile, threading, time
from pathlib import Path
from dask_starburst.local.containers.processes import Containers

containers = Containers(Path(tempfile.mkdtemp(dir=sys.argv[1])), alone=True)
seen = []
done = threading.Event()

def on_line(when, line):
    seen.append(line)
    if len(seen) == 2:
        done.set()

first = containers.start("a", ["sh", "-c", {daemon!r} + {end!r}], {{"PATH": "/usr/bin:/bin"}}, on_line)
other = containers.start("b", ["sh", "-c", {daemon!r} + "exec sleep 300"], {{"PATH": "/usr/bin:/bin"}}, on_line)
assert done.wait(20)
print(*" ".join(seen).split(), flush=True)
print(other, flush=True)
{then}
"""


def daemons(folder: Path, end: str, then: str) -> tuple[subprocess.Popen[str], list[int], int]:
    program = DAEMONS.format(daemon=DAEMON, end=end, then=then)
    server = subprocess.Popen([sys.executable, "-c", program, str(folder)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    return server, [int(pid) for pid in server.stdout.readline().split()], int(server.stdout.readline())


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a daemon cannot be followed")


@needs_linux
@pytest.mark.parametrize(
    ("end", "then"),
    [("exec sleep 300", "signal.pause()"), ("exit 0", "signal.pause()"), ("exec sleep 300", "containers.close()")],
    ids=["killed while all run", "killed when one has ended", "closed"],
)
def test_daemons_of_containers_end_with_the_server_however_it_ends(tmp_path: Path, end: str, then: str) -> None:
    wait = f"while containers.poll('a') is None and {end == 'exit 0'}: pass\nprint(flush=True)\n"
    server, pids, _ = daemons(tmp_path, end, wait + then)
    assert len(pids) == 4
    assert server.stdout is not None
    server.stdout.readline()
    if then == "signal.pause()":
        server.kill()
    server.wait(10)
    until(lambda: not any(map(alive, pids)))


@needs_linux
@pytest.mark.parametrize("end", ["exit 0", "exec sleep 300"])
def test_a_daemon_ends_with_its_container_and_not_with_another(tmp_path: Path, end: str) -> None:
    kill = "containers.kill('a')\n" if end != "exit 0" else ""
    wait = "while containers.poll('a') is None: time.sleep(0.01)\n"
    server, pids, other = daemons(tmp_path, end, f"{kill}{wait}print(flush=True)\nsignal.pause()")
    assert server.stdout is not None
    server.stdout.readline()
    # The containers print in any order: the first's processes are those that are not descendants of the second's.
    below = {each.pid for each in psutil.Process(other).children(recursive=True)}
    theirs = [pid for pid in pids if pid in below]
    assert len(theirs) == 2
    until(lambda: not any(alive(pid) for pid in pids if pid not in below))
    assert all(map(alive, theirs))
    server.kill()
    server.wait(10)
    until(lambda: not any(map(alive, pids)))
