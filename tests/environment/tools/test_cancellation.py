"""Work in threads that ends when nobody waits for it any more."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import pytest

from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.tools.cancellation import Interrupted
from tests.support.cluster_asserts import alive, wait_until

FOREVER = ["sleep", "600"]


@pytest.fixture
def begun() -> Event:
    return Event()


@pytest.mark.parametrize("kind", ["program", "pause", "own work"])
def test_what_a_thread_does_ends_when_who_wanted_it_goes(kind: str, begun: Event):
    def work() -> None:
        begun.set()
        if kind == "program":
            cancellation.run(FOREVER)
        elif kind == "pause":
            cancellation.pause(600)
        while True:
            cancellation.check()

    with ThreadPoolExecutor(1) as pool:
        with suppress(KeyboardInterrupt), cancellation.interruptible():
            job = cancellation.submit(pool, work)
            begun.wait()
            raise KeyboardInterrupt
        assert isinstance(job.exception(timeout=60), Interrupted)


def test_a_program_ends_with_what_it_has_started():
    command = ["sh", "-c", "sleep 600 & echo $!; wait"]
    with suppress(KeyboardInterrupt), cancellation.started(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        sleeper = int(process.stdout.readline())
        raise KeyboardInterrupt
    wait_until(lambda: not alive(sleeper), 60, "the sleeper has gone as well")
    assert not alive(process.pid)


def test_who_has_asked_for_nothing_is_not_interrupted_by_others(begun: Event):
    with suppress(ValueError), cancellation.interruptible():
        raise ValueError
    cancellation.check()
    assert cancellation.run(["cat"], input="heard").stdout == "heard"


def test_a_program_that_takes_too_long_is_ended():
    with pytest.raises(subprocess.TimeoutExpired):
        cancellation.run(FOREVER, timeout=0.1)
