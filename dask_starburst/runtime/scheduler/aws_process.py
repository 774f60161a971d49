"""Calling AWS without boto3 in one's own process.

boto3 adds a quarter to the memory of a scheduler and takes a second of its event loop to import, for a few calls each
ten minutes. So a process of its own makes them, and ends.
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
#: Seconds after which the calls have failed: boto3's own retries, and its import on a small instance, take less.
_TIMEOUT = 120.0


async def call(
    told: Callable[[Any], None],
    *arguments: str,
    timeout: float = _TIMEOUT,
    program: Iterable[str] = ("-m", _PROGRAM),
) -> None:
    """Run the program `aws_calls`. The process is gone when this ends, also where it is cancelled.

    Parameters
    ----------
    told : callable
        Called with each mapping that the program prints, as soon as it does: the instance may be gone soon after.
    *arguments : str
        Of the program.
    timeout : float
        Seconds after which the process is killed.
    program : iterable of str
        What the interpreter runs.

    Raises
    ------
    AWSError
        What AWS refused, or why it was not called.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable, *program, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        raise AWSError(f"AWS was not called, because no process could be started for it: {error}") from error
    try:
        async with asyncio.timeout(timeout):
            await _listen(process, told)
    except TimeoutError:
        raise AWSError(f"AWS has not answered within {timeout:g} s") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _listen(process: asyncio.subprocess.Process, told: Callable[[Any], None]) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            raise AWSError(f"what calls AWS printed {line!r}, which is not JSON") from None
        if "error" in said:
            raise AWSError(said["error"])
        told(said)
    code = await process.wait()
    if code:
        raise AWSError(f"what calls AWS ended with exit code {code}; the reason is in the log above")
