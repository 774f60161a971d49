"""An image that the user brings: is it there, for which architectures, and what does its tag mean today."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from dask_starburst.aws import ecr
from dask_starburst.aws.session import AWS
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.registry.docker_credentials import stored_credentials
from dask_starburst.environment.registry.documents import Manifest, Reference, manifests_of, platform_of, read_document
from dask_starburst.errors import BadArgument, RegistryUnavailable
from dask_starburst.hooks import Tell
from dask_starburst.plan.images.recipe import PLATFORMS

#: Seconds that a registry has for each answer, and for all of them, before an image is taken as it is. There is one
#: attempt: whether AWS can pull the image is for AWS to say, and a start must not wait for this computer's network.
_PATIENCE = 5.0
_LONGEST = 10.0


async def check(aws: AWS, image: str, arch: str, tell: Tell) -> str:
    """Return the image by digest, if it is there and made for the architecture.

    By digest, because workers that come later are to be the same as the first ones, whatever is pushed meanwhile.

    Parameters
    ----------
    aws : AWS
        The account; its credentials open its own registry. Other registries are opened with what `docker login` left.
    image : str
        As docker takes it.
    arch : {"arm64", "x86_64"}
        What the instances are.
    tell : callable
        Is told what could not be checked: a registry that cannot be reached from here may still be from AWS.

    Raises
    ------
    BadArgument
        There is no such image, or not for the architecture.
    RegistryDenied
        The registry refuses us.
    """
    reference = Reference.parse(image)
    try:
        async with asyncio.timeout(_LONGEST):
            manifest, there = await _ask(aws, reference)
    except (RegistryUnavailable, TimeoutError) as error:
        why = str(error) or f"{reference.host} did not answer within {_LONGEST:g} s."
        tell("image-unchecked", image, f"the image {image} is used without a check: {why}", logging.WARNING)
        return image
    if PLATFORMS[arch] not in there:
        other = next((name for name, platform in PLATFORMS.items() if platform in there), None)
        way = f"give arch={other!r}, or " if other else ""
        raise BadArgument(
            f"image={image!r} is made for {', '.join(there) or 'no platform that is known'}, but arch={arch!r} needs"
            f" {PLATFORMS[arch]}; {way}leave image out, and one is built of your packages."
        )
    return f"{reference.name}@{manifest.digest}"


async def opened(aws: AWS, host: str, **options: Any) -> Registry:
    """Return a registry, with the credentials that there are for it; `options` as `Registry` takes them."""
    if ecr.is_ours(host):
        return Registry(host, await ecr.registry_credentials(aws), **options)
    return Registry(host, stored_credentials(host), **options)


async def _ask(aws: AWS, reference: Reference) -> tuple[Manifest, tuple[str, ...]]:
    registry = await opened(aws, reference.host, attempts=1, patience=_PATIENCE)
    try:
        return await asyncio.to_thread(_look, registry, reference)
    finally:
        registry.close()


def _look(registry: Registry, reference: Reference) -> tuple[Manifest, tuple[str, ...]]:
    wanted = reference.digest or reference.tag or "latest"
    manifest = registry.manifest(reference.repository, wanted)
    if manifest is None:
        raise BadArgument(
            f"image={str(reference)!r} does not exist: {reference.host} has no {reference.repository}:{wanted}."
        )
    if manifest.is_index:
        return manifest, tuple(sorted({each.platform or "" for each in manifests_of(manifest)}))
    config = registry.blob(reference.repository, manifest.config.digest)
    return manifest, (platform_of(read_document(config, "configuration")),)
