"""Containers as real processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dask_starburst.local.containers.processes import Containers
from tests.support.cluster_asserts import alive

ENV = {"PYTHONUNBUFFERED": "1"}


class Lines:
    """A listener that collects the output of a container."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.text: list[str] = []

    def __call__(self, when: float, line: str) -> None:
        self.times.append(when)
        self.text.append(line)


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Containers]:
    made = Containers(tmp_path / "containers")
    yield made
    made.close()


@pytest.fixture
def lines() -> Lines:
    return Lines()


def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.01)


def exit_code(containers: Containers, key: str) -> int:
    until(lambda: containers.poll(key) is not None)
    code = containers.poll(key)
    assert code is not None
    return code


def folders_of_containers(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "containers").glob("*/*"))


def python(program: str) -> list[str]:
    return ["python", "-c", program]


def test_both_streams_arrive_in_order_and_with_the_time(containers: Containers, lines: Lines) -> None:
    before = time.time()
    containers.start("a", ["sh", "-c", "echo one; echo two >&2; echo three"], ENV, lines)
    assert exit_code(containers, "a") == 0
    assert lines.text == ["one", "two", "three"]
    assert before <= lines.times[0] <= time.time()


def test_all_output_has_arrived_once_the_exit_code_is_reported(containers: Containers, lines: Lines) -> None:
    containers.start("a", python("print('\\n'.join(map(str, range(50_000))), end='')"), ENV, lines)
    assert exit_code(containers, "a") == 0
    assert lines.text == [str(number) for number in range(50_000)]


def test_the_exit_code_can_be_polled_repeatedly(containers: Containers, lines: Lines) -> None:
    containers.start("a", ["sh", "-c", "exit 3"], ENV, lines)
    assert exit_code(containers, "a") == 3
    assert containers.poll("a") == 3
    assert containers.running() == {}


def test_a_container_ended_by_a_signal_has_128_added(containers: Containers, lines: Lines) -> None:
    pid = containers.start("a", ["sleep", "60"], ENV, lines)
    assert containers.running() == {"a": pid}
    assert containers.poll("a") is None
    containers.kill("a")
    assert exit_code(containers, "a") == 128 + signal.SIGKILL


def test_a_container_can_handle_sigterm(containers: Containers, lines: Lines) -> None:
    program = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('ready'); signal.pause()"
    containers.start("a", python(program), ENV, lines)
    until(lambda: lines.text == ["ready"])
    containers.signal("a", signal.SIGTERM)
    assert exit_code(containers, "a") == 0


def test_a_signal_reaches_only_the_first_process_as_under_docker(containers: Containers, lines: Lines) -> None:
    child = "trap 'echo asked' TERM; echo ready; while :; do sleep 0.05; done"
    program = f'trap "exit 3" TERM; sh -c "{child}" & wait'
    containers.start("a", ["sh", "-c", program], ENV, lines)
    until(lambda: lines.text == ["ready"])
    containers.signal("a", signal.SIGTERM)
    assert exit_code(containers, "a") == 3
    assert lines.text == ["ready"]


def test_a_kill_reaches_the_whole_process_group(containers: Containers, lines: Lines) -> None:
    containers.start("a", ["sh", "-c", "sleep 60 & echo $!; wait"], ENV, lines)
    until(lambda: bool(lines.text))
    containers.kill("a")
    until(lambda: not alive(int(lines.text[0])))


def test_what_a_container_leaves_behind_is_killed_with_it(containers: Containers, lines: Lines) -> None:
    containers.start("a", ["sh", "-c", "sleep 60 & echo $!"], ENV, lines)
    assert exit_code(containers, "a") == 0
    until(lambda: not alive(int(lines.text[0])))


def test_a_process_that_escapes_with_the_pipe_does_not_delay_the_exit_code(
    containers: Containers, lines: Lines
) -> None:
    escape = "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid)"
    containers.start("a", python(escape), ENV, lines)
    assert exit_code(containers, "a") == 0
    os.kill(int(lines.text[0]), signal.SIGKILL)


def test_a_command_that_does_not_exist_is_an_error_at_once(
    containers: Containers, lines: Lines, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        containers.start("a", ["no-such-program"], ENV, lines)
    assert containers.running() == {}
    assert folders_of_containers(tmp_path) == []


def test_a_file_that_is_not_executable_is_an_error_at_once(
    containers: Containers, lines: Lines, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(PermissionError, match="program"):
        containers.start("a", [str(program)], ENV, lines)


def test_python_is_the_one_that_runs_the_embedded_aws(containers: Containers, lines: Lines) -> None:
    containers.start("a", python("import sys; print(sys.prefix)"), ENV, lines)
    exit_code(containers, "a")
    assert lines.text == [sys.prefix]


def test_a_container_sees_its_own_environment_and_folder_only(
    containers: Containers, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_SERVER", "secret")
    program = "from os import *; print('OF_THE_SERVER' in environ, environ['GIVEN'], getcwd() == environ['HOME'])"
    containers.start("a", python(program), {"GIVEN": "yes"}, lines)
    exit_code(containers, "a")
    assert lines.text == ["False yes True"]
    assert folders_of_containers(tmp_path) == []


def test_a_line_without_an_end_is_cut_as_docker_cuts_it(containers: Containers, lines: Lines) -> None:
    containers.start("a", python("print('x' * 40_000, end='')"), ENV, lines)
    exit_code(containers, "a")
    assert [len(line) for line in lines.text] == [16_384, 16_384, 7_232]


def test_bytes_that_are_not_text_do_not_stop_the_reader(containers: Containers, lines: Lines) -> None:
    containers.start("a", ["printf", "\\377\\nnext\\n"], ENV, lines)
    exit_code(containers, "a")
    assert lines.text == ["\N{REPLACEMENT CHARACTER}", "next"]


def test_a_listener_that_fails_does_not_stop_the_others(containers: Containers, lines: Lines) -> None:
    def fail(_when: float, _line: str) -> None:
        raise RuntimeError("no disk")

    containers.start("bad", ["echo", "one"], ENV, fail)
    assert exit_code(containers, "bad") == 0
    containers.start("good", ["echo", "two"], ENV, lines)
    assert exit_code(containers, "good") == 0
    assert lines.text == ["two"]


def test_a_key_is_used_once(containers: Containers, lines: Lines) -> None:
    containers.start("a", ["true"], ENV, lines)
    with pytest.raises(ValueError, match="used before"):
        containers.start("a", ["true"], ENV, lines)
    with pytest.raises(KeyError):
        containers.poll("b")


def test_closing_kills_everything_and_is_idempotent(tmp_path: Path, lines: Lines) -> None:
    containers = Containers(tmp_path / "containers")
    pids = [containers.start(str(number), ["sleep", "60"], ENV, lines) for number in range(3)]
    containers.close()
    containers.close()
    assert not any(alive(pid) for pid in pids)
    assert containers.poll("0") == 128 + signal.SIGKILL
    assert not (tmp_path / "containers").exists()
    with pytest.raises(ValueError, match="closed"):
        containers.start("late", ["true"], ENV, lines)


def test_the_worker_of_a_nanny_is_in_the_same_process_group(containers: Containers, lines: Lines) -> None:
    """So a signal to the group, and the guard, reach the worker process."""
    program = (
        "from distributed import LocalCluster\n"
        "import os\n"
        "if __name__ == '__main__':\n"
        "    with LocalCluster(n_workers=1, dashboard_address=None) as cluster:\n"
        "        print(os.getpgid(cluster.workers[0].pid) == os.getpgid(0))\n"
    )
    containers.start("a", python(program), ENV, lines)
    assert exit_code(containers, "a") == 0
    assert lines.text[-1] == "True"
