"""Cancellation of work in threads."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import pytest

from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.tools.cancellation import Cancelled
from tests.support.cluster_asserts import alive, wait_until

FOREVER = ["sleep", "600"]


@pytest.fixture
def begun() -> Event:
    return Event()


@pytest.mark.parametrize("kind", ["program", "pause", "own work"])
def test_work_in_a_thread_ends_when_its_caller_is_cancelled(kind: str, begun: Event):
    def work() -> None:
        begun.set()
        if kind == "program":
            cancellation.run(FOREVER)
        elif kind == "pause":
            cancellation.pause(600)
        while True:
            cancellation.check()

    with ThreadPoolExecutor(1) as pool:
        with suppress(KeyboardInterrupt), cancellation.cancellable():
            job = cancellation.submit(pool, work)
            begun.wait()
            raise KeyboardInterrupt
        assert isinstance(job.exception(timeout=60), Cancelled)


def test_a_subprocess_is_terminated_with_its_children():
    command = ["sh", "-c", "sleep 600 & echo $!; wait"]
    with suppress(KeyboardInterrupt), cancellation.started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        sleeper = int(process.stdout.readline())
        raise KeyboardInterrupt
    wait_until(lambda: not alive(sleeper), 60, "the child process ends as well")
    assert not alive(process.pid)


def test_work_outside_of_a_cancellable_block_is_not_cancelled(begun: Event):
    with suppress(ValueError), cancellation.cancellable():
        raise ValueError
    cancellation.check()
    assert cancellation.run(["cat"], input="text").stdout == "text"


def test_a_subprocess_is_terminated_after_its_timeout():
    with pytest.raises(subprocess.TimeoutExpired):
        cancellation.run(FOREVER, timeout=0.1)
