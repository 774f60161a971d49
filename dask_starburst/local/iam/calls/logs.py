"""CloudWatch Logs' calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls.inventory import Inventory, Rule, tag_context
from dask_starburst.local.iam.model import Check


def group_arn(inventory: Inventory, name: str) -> str:
    """Return the ARN of a log group as policies write it, with the ``:*`` at its end."""
    return inventory.arn("logs", f"log-group:{name}:*")


def stream_arn(inventory: Inventory, group: str, stream: str) -> str:
    """Return the ARN of a log stream."""
    return inventory.arn("logs", f"log-group:{group}:log-stream:{stream}")


def _create(inventory: Inventory, request: Request) -> Iterator[Check]:
    arn, tags = group_arn(inventory, request["logGroupName"]), tag_context(request.get("tags") or {})
    yield Check("logs:CreateLogGroup", arn, tags)
    if tags:
        yield Check("logs:TagResource", arn, tags)


def _on_group(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        yield Check(f"logs:{action}", group_arn(inventory, request["logGroupName"]))

    return rule


def _on_stream(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        yield Check(f"logs:{action}", stream_arn(inventory, request["logGroupName"], request["logStreamName"]))

    return rule


RULES: Mapping[str, Rule] = {
    "logs:CreateLogGroup": _create,
    **{
        f"logs:{action}": _on_group(action)
        for action in ("PutRetentionPolicy", "DeleteLogGroup", "DescribeLogStreams", "FilterLogEvents")
    },
    **{f"logs:{action}": _on_stream(action) for action in ("GetLogEvents", "CreateLogStream", "PutLogEvents")},
}
