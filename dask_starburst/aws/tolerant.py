"""Idempotent create, get and delete."""

from __future__ import annotations

from typing import Any

from dask_starburst.aws.faults import EXISTS, MISSING, code_of
from dask_starburst.aws.session import AWS
from dask_starburst.errors import StarburstError


async def get(aws: AWS, service: str, operation: str, **request: Any) -> dict[str, Any] | None:
    """Return AWS's answer, or None if the resource does not exist."""
    return await _unless(MISSING, aws, service, operation, request)


async def create(aws: AWS, service: str, operation: str, **request: Any) -> dict[str, Any] | None:
    """Create a resource; return None if it exists."""
    return await _unless(EXISTS, aws, service, operation, request)


async def delete(aws: AWS, service: str, operation: str, **request: Any) -> None:
    """Delete a resource. No-op if it does not exist."""
    await _unless(MISSING, aws, service, operation, request)


async def _unless(
    codes: frozenset[str], aws: AWS, service: str, operation: str, request: dict[str, Any]
) -> dict[str, Any] | None:
    try:
        return await aws.call(service, operation, **request)
    except StarburstError as error:
        if code_of(error) in codes:
            return None
        raise
