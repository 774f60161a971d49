"""SIGTERM in a container: who sends it, and that the first process of a container obeys it."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys

import pytest

from dask_starburst.plan.scheduler.notices import HOST_STOP_SECONDS, MARGIN, NOTICE_SECONDS, margin_of
from dask_starburst.runtime.metadata import is_stopped_by_ecs
from tests.support.task_metadata import VARIABLE, task_metadata

#: A process that has done what a container does first, and then works.
PROGRAM = """
import time
from dask_starburst.runtime.__main__ import end_on_sigterm
end_on_sigterm()
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(("desired", "stopped"), [("RUNNING", False), ("STOPPED", True)])
def test_the_task_metadata_tells_who_stops_the_container(desired: str, stopped: bool, monkeypatch: pytest.MonkeyPatch):
    with task_metadata({"DesiredStatus": desired}) as url:
        monkeypatch.setenv(VARIABLE, url)
        assert is_stopped_by_ecs(5.0) is stopped


def test_without_task_metadata_ecs_is_assumed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert is_stopped_by_ecs(5.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nothing listens
        monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{closed.getsockname()[1]}/v4/abc")
        assert is_stopped_by_ecs(5.0)


def test_a_short_notice_leaves_most_of_its_time_for_moving_data():
    assert margin_of(NOTICE_SECONDS) == MARGIN
    assert margin_of(HOST_STOP_SECONDS) == HOST_STOP_SECONDS / 4
    assert margin_of(-1.0) == 0.0


def first_of_a_container() -> list[str]:
    """Return the prefix of a command that makes it the first process of a PID namespace, as in a container."""
    unshare = shutil.which("unshare")
    command = [unshare or "", "--pid", "--fork", "--kill-child"]
    if unshare is None or subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not create PID namespaces with unshare")
    return command


def test_the_first_process_of_a_container_ends_on_sigterm_before_dask_has_its_handlers():
    command = [*first_of_a_container(), sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        (first,) = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        subprocess.run(["kill", f"-{signal.SIGTERM.value}", first], check=True)
        assert process.wait(timeout=60) == 128 + signal.SIGTERM
