"""S3's requests: method and path, from which the action follows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from dask_starburst.local.backend.account import partition
from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls.inventory import Inventory, Rule
from dask_starburst.local.iam.model import Check

_OF_OBJECTS = {
    "GET": "s3:GetObject",
    "HEAD": "s3:GetObject",
    "PUT": "s3:PutObject",
    "POST": "s3:PutObject",
    "DELETE": "s3:DeleteObject",
}
_OF_BUCKETS = {
    "GET": "s3:ListBucket",
    "HEAD": "s3:ListBucket",
    "PUT": "s3:CreateBucket",
    "POST": "s3:DeleteObject",
    "DELETE": "s3:DeleteBucket",
}


def _rule(method: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        bucket, _, key = str(request.get("path", "")).lstrip("/").partition("/")
        if not bucket:
            yield Check("s3:ListAllMyBuckets")
        elif key:
            yield Check(_OF_OBJECTS[method], f"arn:{partition()}:s3:::{bucket}/{key}")
        elif method == "POST":  # DeleteObjects names its keys in the body
            yield Check(_OF_BUCKETS[method], f"arn:{partition()}:s3:::{bucket}/*")
        else:
            yield Check(_OF_BUCKETS[method], f"arn:{partition()}:s3:::{bucket}")

    return rule


RULES: Mapping[str, Rule] = {f"s3:{method}": _rule(method) for method in _OF_OBJECTS}
