"""Asking AWS what is kept in an account and costs something."""

from __future__ import annotations

import asyncio

from dask_starburst.aws import ecr, logs
from dask_starburst.aws.session import AWS
from dask_starburst.plan.idle import Kept
from dask_starburst.plan.images import stored_bytes
from dask_starburst.plan.tasks import LOG_GROUP


async def kept(aws: AWS, repository: str, stopped: int = 0, volume_gb: int = 30) -> Kept:
    """Return what there is of images and logs.

    Parameters
    ----------
    aws : AWS
        The account and region.
    repository : str
        Where the images of workers are.
    stopped, volume_gb : int
        How many instances are stopped, and the size of the volume of each.
    """
    images, log_bytes = await asyncio.gather(ecr.images(aws, repository), logs.stored_bytes(aws, LOG_GROUP))
    tagged = [image for image in images if image.tags]
    return Kept(stored_bytes(images), len(tagged), stopped, volume_gb, log_bytes)
