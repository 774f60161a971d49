"""CloudWatch Logs."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from dask_starburst.aws.patience import unseen
from dask_starburst.aws.session import AWS
from dask_starburst.aws.tolerant import create, delete, get

#: Seconds between two attempts to read a stream without lines.
_PAUSE = 0.5
#: The most pages of a stream that are read. A page is a period of time, or 1 MB.
_MOST_PAGES = 100


async def ensure_group(aws: AWS, name: str, retention: int, tags: dict[str, str]) -> None:
    """Create a log group with a retention in days; the retention of an existing one stays.

    It is looked up first, so that no right to create is needed where it exists.
    """
    answer = await aws.call("logs", "DescribeLogGroups", logGroupNamePrefix=name)
    found = [group for group in answer["logGroups"] if group["logGroupName"] == name]
    if any("retentionInDays" in group for group in found):
        return
    # The creator of an existing one may have failed before setting a retention, and the group would keep (and charge
    # for) everything.
    if not found and await create(aws, "logs", "CreateLogGroup", logGroupName=name, tags=tags) is None:
        raise unseen(f"the log group {name}", "logs:DescribeLogGroups")
    await aws.call("logs", "PutRetentionPolicy", logGroupName=name, retentionInDays=retention)


async def group_state(aws: AWS, name: str) -> Literal["there", "missing", "incomplete"]:
    """Return whether a log group exists with a retention."""
    answer = await aws.call("logs", "DescribeLogGroups", logGroupNamePrefix=name)
    found = [group for group in answer["logGroups"] if group["logGroupName"] == name]
    if not found:
        return "missing"
    return "there" if "retentionInDays" in found[0] else "incomplete"


async def tail(aws: AWS, group: str, stream: str, lines: int, patience: float = 0.0) -> list[str]:
    """Return the newest lines of a stream, oldest first; empty if it does not exist.

    Parameters
    ----------
    aws : AWS
        Where the stream is.
    group, stream : str
        Its log group, and its name.
    lines : int
        The most lines.
    patience : float
        How long to wait for the first line (seconds): CloudWatch shows the last lines of a process some seconds after
        its end.
    """
    now = asyncio.get_running_loop().time
    deadline = now() + patience
    while True:
        found = await _newest(aws, group, stream, lines)
        if found or now() >= deadline:
            return found
        await asyncio.sleep(_PAUSE)


async def _newest(aws: AWS, group: str, stream: str, lines: int) -> list[str]:
    """Follow the pages back from the newest one.

    Pages are periods of time, and those without events are empty. The oldest one returns the token that it was given
    ("GetLogEvents", CloudWatch Logs API reference; github.com/boto/boto3/issues/3718).
    """
    request: dict[str, Any] = {"logGroupName": group, "logStreamName": stream, "startFromHead": False}
    found: list[str] = []
    for _ in range(_MOST_PAGES):
        answer = await get(aws, "logs", "GetLogEvents", limit=lines - len(found), **request)
        if answer is None:
            break
        found[:0] = [e["message"] for e in answer["events"]]
        token = answer.get("nextBackwardToken")
        if len(found) >= lines or token is None or token == request.get("nextToken"):
            break
        request["nextToken"] = token
    return found


async def stored_bytes(aws: AWS, name: str) -> int:
    """Return the stored bytes of a log group; 0 if it does not exist. CloudWatch updates it with hours of delay."""
    found = await aws.call("logs", "DescribeLogGroups", logGroupNamePrefix=name)
    return sum(group.get("storedBytes", 0) for group in found["logGroups"] if group["logGroupName"] == name)


async def remove_group(aws: AWS, name: str) -> None:
    """Delete a log group with its logs. No-op if it does not exist."""
    await delete(aws, "logs", "DeleteLogGroup", logGroupName=name)
