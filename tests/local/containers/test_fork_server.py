"""A forked container is like one that is a new Python, and starts without the imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")

#: What a container runs. `wave` is imported by the fork server only.
MODULE = """
import atexit, json, multiprocessing, os, random, resource, sys, time

forked = "wave" in sys.modules


def report():
    kept = ("PPid", "Umask", "SigIgn", "SigCgt", "SigBlk", "Threads")
    status = dict(line.rstrip().split(":\\t", 1) for line in open("/proc/self/status") if line.startswith(kept))
    return {
        "session": os.getsid(0) == os.getpgid(0) == os.getpid(),
        "status": status,
        "files": len(os.listdir("/proc/self/fd")) - forked,  # the connection by which its processes are forked
        "streams": {fd: os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in range(3)},
        "path": [os.path.relpath(sys.path[0]), *sys.path[1:]],
        "arguments": sys.argv,
        "main": [__name__, __spec__.name, sys.modules["__main__"].__file__],
        "flags": repr(sys.flags),
        "environment": {name: value for name, value in os.environ.items() if name not in ("HOME", "TMPDIR")},
        "home": os.environ["HOME"] == os.environ["TMPDIR"] == os.getcwd(),
        "limits": [resource.getrlimit(number) for number in range(16)],
        "encoding": [sys.stdout.encoding, sys.stdout.line_buffering, sys.getfilesystemencoding()],
    }


def child(connection):
    said = {
        "mine": os.getppid() == multiprocessing.parent_process().pid == os.getpgid(0),
        "files": len(os.listdir("/proc/self/fd")),
        "variable": os.environ.get("SET_BY_THE_NANNY"),
        "name": multiprocessing.current_process().name,
    }
    connection.send({"forked": forked, "random": random.random(), "same": said})
    sys.exit(5)


def spawn(**variables):
    os.environ.update(variables)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=child, args=(theirs,), name="worker")
    process.start()
    theirs.close()
    said = ours.recv()
    process.join()
    said["same"]["code"] = process.exitcode
    print(json.dumps(said), flush=True)


if __name__ == "__main__":
    print(json.dumps({"forked": forked, "random": random.random(), "same": report()}), flush=True)
    atexit.register(print, "the exit handlers run")
    match sys.argv[1:]:
        case ["fail"]:
            raise ValueError("a failure")
        case ["exit", code]:
            sys.exit(int(code))
        case ["spawn"]:
            one = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
            spawn(SET_BY_THE_NANNY="yes", **one)
            spawn(OMP_NUM_THREADS="2")
        case ["daemon"]:
            if os.fork() == 0:
                os.setsid()
                print(os.getpid(), flush=True)
                time.sleep(300)
            time.sleep(300)
"""
SERVER = """
import json, os, sys, time
from pathlib import Path
from dask_starburst.local.containers.fork_server import ForkServer
from dask_starburst.local.containers.processes import Containers

folder = Path(sys.argv[1])
inherited = {"PYTHONPATH": str(folder), "LANG": "C.UTF-8"}
forks = ForkServer(inherited, "reporting", ("wave",))
containers = Containers(folder / "containers", alone=True, fork_server=forks)

def run(key, *words, kill_after=None, **more):
    lines = []
    containers.start(key, ["python", "-m", "reporting", *words], inherited | more, lambda _, line: lines.append(line))
    while (code := containers.poll(key)) is None:
        if kill_after is not None and len(lines) == kill_after:
            containers.kill(key)
        time.sleep(0.01)
    return {"lines": lines, "code": code}

found = {"new": run("new")}
assert forks.pid is None
forks.prepare()
while not forks.forks([sys.executable, "-m", "reporting"], inherited):
    time.sleep(0.01)
found["forked"], found["another"] = run("forked"), run("another")
found["own hash seed"] = run("own hash seed", PYTHONHASHSEED="1")
found["fail"], found["exit"] = run("fail", "fail"), run("exit", "exit", "7")
found["spawn"], found["new spawn"] = run("spawn", "spawn"), run("new spawn", "spawn", PYTHONHASHSEED="1")
found["daemon"] = run("daemon", "daemon", kill_after=2)
found["alive"] = [os.path.exists(f"/proc/{found['daemon']['lines'][1]}")]
os.kill(forks.pid, 9)
found["after its end"], found["and again"] = run("after its end"), run("and again")
print(json.dumps(found), flush=True)
containers.close()
forks.close()
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the output of containers that were started one after the other, some of them forked."""
    folder: Path = tmp_path_factory.mktemp("forked")
    (folder / "reporting.py").write_text(MODULE)
    process = subprocess.run([sys.executable, "-c", SERVER, str(folder)], capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    answer: dict[str, Any] = json.loads(process.stdout)
    return answer


def report(container: dict[str, Any], line: int = 0) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(container["lines"][line])
    return answer


def test_a_forked_container_differs_from_a_new_python_in_its_imports_only(found: dict[str, Any]) -> None:
    new, forked = report(found["new"]), report(found["forked"])
    assert (new["forked"], forked["forked"]) == (False, True)
    assert forked["same"] == new["same"]
    assert found["forked"]["code"] == found["new"]["code"] == 0


def test_two_forked_containers_have_different_random_numbers(found: dict[str, Any]) -> None:
    assert report(found["forked"])["random"] != report(found["another"])["random"]


def test_a_variable_that_python_reads_at_its_start_needs_a_new_python(found: dict[str, Any]) -> None:
    assert not report(found["own hash seed"])["forked"]


def test_a_forked_container_ends_like_every_python(found: dict[str, Any]) -> None:
    assert (found["exit"]["code"], found["exit"]["lines"][1:]) == (7, ["the exit handlers run"])
    assert found["fail"]["code"] == 1
    assert found["fail"]["lines"][1] == "Traceback (most recent call last):"
    assert "ValueError: a failure" in found["fail"]["lines"]


def test_what_a_forked_container_spawns_is_forked_too_as_its_own_child(found: dict[str, Any]) -> None:
    forked, with_threads = report(found["spawn"], 1), report(found["spawn"], 2)
    new = report(found["new spawn"], 1)
    assert (forked["forked"], with_threads["forked"], new["forked"]) == (True, False, False)
    assert forked["random"] != new["random"]
    assert forked["same"] == new["same"]
    assert new["same"] == {**new["same"], "mine": True, "variable": "yes", "code": 5}


def test_a_killed_forked_container_takes_its_daemons_along(found: dict[str, Any]) -> None:
    assert report(found["daemon"])["forked"]
    assert found["daemon"]["code"] == 128 + 9
    assert found["alive"] == [False]


def test_without_the_fork_server_containers_are_new_pythons(found: dict[str, Any]) -> None:
    assert not report(found["after its end"])["forked"]
    assert not report(found["and again"])["forked"]
