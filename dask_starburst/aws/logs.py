"""CloudWatch Logs."""

from __future__ import annotations

from typing import Any, Literal

from dask_starburst.aws.patience import unseen
from dask_starburst.aws.session import AWS
from dask_starburst.aws.tolerant import create, delete, get


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


async def tail(aws: AWS, group: str, stream: str, lines: int) -> list[str]:
    """Return the newest lines of a stream, oldest first; empty if it does not exist."""
    request: dict[str, Any] = {"logGroupName": group, "logStreamName": stream}
    answer = await get(aws, "logs", "GetLogEvents", limit=lines, startFromHead=False, **request)
    return [] if answer is None else [e["message"] for e in answer["events"]]


async def stored_bytes(aws: AWS, name: str) -> int:
    """Return the stored bytes of a log group; 0 if it does not exist. CloudWatch updates it with hours of delay."""
    found = await aws.call("logs", "DescribeLogGroups", logGroupNamePrefix=name)
    return sum(group.get("storedBytes", 0) for group in found["logGroups"] if group["logGroupName"] == name)


async def remove_group(aws: AWS, name: str) -> None:
    """Delete a log group with its logs. No-op if it does not exist."""
    await delete(aws, "logs", "DeleteLogGroup", logGroupName=name)
