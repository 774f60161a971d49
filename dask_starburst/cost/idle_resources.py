"""Find the resources of an account that cost money while no cluster runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from dask_starburst.aws import ecr, logs
from dask_starburst.aws.session import AWS
from dask_starburst.errors import PermissionDenied
from dask_starburst.plan.images.lifetime import stored_bytes
from dask_starburst.plan.money.idle import Kept
from dask_starburst.plan.requests.tasks import LOG_GROUP

T = TypeVar("T")


async def idle_resources(aws: AWS, repository: str) -> Kept:
    """Return the stored images and logs; sizes that the user has no permission to read are unknown.

    Parameters
    ----------
    aws : AWS
        The account and region.
    repository : str
        The ECR repository of the workers' images.
    """
    trouble: list[str] = []
    images, log_bytes = await asyncio.gather(
        _allowed(lambda: ecr.images(aws, repository), trouble),
        _allowed(lambda: logs.stored_bytes(aws, LOG_GROUP), trouble),
    )
    tagged = [image for image in images or () if image.tags]
    size = None if images is None else stored_bytes(images)
    return Kept(size, len(tagged), log_bytes, tuple(trouble))


async def _allowed(question: Callable[[], Awaitable[T]], trouble: list[str]) -> T | None:
    """Return the answer; None if permission is denied, with the error appended to `trouble`."""
    try:
        return await question()
    except PermissionDenied as error:
        trouble.append(str(error))
        return None
