"""Call AWS from a subprocess, so that the scheduler does not import boto3.

boto3 adds a quarter to the scheduler's memory and blocks its event loop for a second while it is imported, for a few
calls every ten minutes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from dask_starburst.errors import AWSError

_PROGRAM = "dask_starburst.runtime.scheduler.aws_calls"
#: Timeout of the calls in seconds. boto3's import on a small instance and its retries take less.
_TIMEOUT = 120.0


async def call(
    handle: Callable[[Any], None],
    *arguments: str,
    timeout: float = _TIMEOUT,
    program: Iterable[str] = ("-m", _PROGRAM),
) -> None:
    """Run the program `aws_calls`. The process has ended when this returns or is cancelled.

    Parameters
    ----------
    handle : callable
        Called with each object that the program prints, at once: the instance may terminate soon after.
    *arguments : str
        Arguments of the program.
    timeout : float
        Seconds after which the process is killed.
    program : iterable of str
        Arguments of the Python interpreter.

    Raises
    ------
    AWSError
        AWS refused a call, or the program could not be run.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *program, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise AWSError(f"AWS was not called: cannot start a process: {error}") from error
    try:
        async with asyncio.timeout(timeout):
            await _listen(process, handle)
    except TimeoutError:
        raise AWSError(f"AWS did not answer within {timeout:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listen(process: asyncio.subprocess.Process, handle: Callable[[Any], None]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        try:
            message = json.loads(line)
        except ValueError:
            raise AWSError(f"the program that calls AWS printed {line!r}, which is not JSON") from None
        if message.keys() == {"error"}:
            raise AWSError(message["error"])
        handle(message)
    code = await process.wait()
    if code:
        raise AWSError(f"the program that calls AWS ended with exit code {code}; the reason is in the log above")
