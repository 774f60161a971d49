"""AWS is called from a subprocess, which always ends."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import psutil
import pytest

from dask_starburst.errors import AWSError
from dask_starburst.runtime.scheduler import aws_process


def run(program: str, timeout: float = 60.0) -> list[Any]:
    said: list[Any] = []
    asyncio.run(aws_process.call(said.append, program=("-c", program), timeout=timeout))
    return said


def children() -> list[psutil.Process]:
    return psutil.Process(os.getpid()).children()


def test_each_line_is_passed_to_the_handler():
    assert run('print(\'{"zero": "a"}\'); print(\'{"zero": "b"}\')') == [{"zero": "a"}, {"zero": "b"}]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ('print(\'{"error": "AWS denies it"}\')', "AWS denies it"),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('Segmentation fault')", "not JSON"),
    ],
)
def test_a_failure_is_an_error_with_its_reason(program, words):
    with pytest.raises(AWSError, match=words):
        run(program)


def test_a_process_that_times_out_is_killed_and_leaves_no_zombie():
    before = children()
    with pytest.raises(AWSError, match=r"within 0\.5 s"):
        run("import time; time.sleep(600)", timeout=0.5)
    assert children() == before


def test_a_cancelled_call_takes_its_process_with_it_and_the_loop_goes_on_meanwhile():
    before = children()

    async def cancel() -> int:
        heard = asyncio.Event()
        program = ("-c", "import time; print('{}', flush=True); time.sleep(600)")
        task = asyncio.ensure_future(aws_process.call(lambda said: heard.set(), program=program))
        await heard.wait()  # it was told while the process goes on
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(children())

    assert asyncio.run(cancel()) == len(before)


def test_the_scheduler_process_imports_no_boto3():
    program = """
import json, sys
import dask_starburst.runtime.__main__, dask_starburst.runtime.scheduler.lease_keeper
import dask_starburst.runtime.scheduler.retirement
import dask_starburst.runtime.worker.notices
print(json.dumps({"found": sorted(sys.modules)}))
"""
    (said,) = run(program)
    roots = {name.split(".")[0] for name in said["found"]}
    assert not roots & {"boto3", "botocore", "cryptography", "rich", "moto"}
    assert "dask_starburst.aws" not in said["found"]
    assert "dask_starburst.settings" not in said["found"]
