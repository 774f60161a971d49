"""An image that the user brings: is it there, for which architectures, and what does its tag mean today."""

from __future__ import annotations

import asyncio
import json
import logging

from dask_starburst.aws import ecr
from dask_starburst.aws.session import AWS
from dask_starburst.environment.credentials import stored_credentials
from dask_starburst.environment.oci import Manifest, Reference, manifests_of, platform_of
from dask_starburst.environment.registry import Registry
from dask_starburst.errors import BadArgument, RegistryUnavailable
from dask_starburst.hooks import Tell
from dask_starburst.plan.recipe import PLATFORMS


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
        Hears of what could not be checked: a registry that cannot be reached from here may still be from AWS.

    Raises
    ------
    BadArgument
        There is no such image, or not for the architecture.
    RegistryDenied
        The registry refuses us.
    """
    reference = Reference.parse(image)
    registry = await opened(aws, reference.host)
    try:
        manifest, there = await asyncio.to_thread(_look, registry, reference)
    except RegistryUnavailable as error:
        tell("image-unchecked", image, f"the image {image} is taken as it is: {error}", logging.WARNING)
        return image
    finally:
        registry.close()
    if PLATFORMS[arch] not in there:
        other = next((name for name, platform in PLATFORMS.items() if platform in there), None)
        way = f"give arch={other!r}, or " if other else ""
        raise BadArgument(
            f"image={image!r} is made for {', '.join(there) or 'no platform that is known'}, but arch={arch!r} needs"
            f" {PLATFORMS[arch]}; {way}leave image out, and one is built of your packages."
        )
    return f"{reference.name}@{manifest.digest}"


async def opened(aws: AWS, host: str) -> Registry:
    """Return a registry, with the credentials that there are for it."""
    if ecr.is_ours(host):
        return Registry(host, await ecr.registry_credentials(aws))
    return Registry(host, stored_credentials(host))


def _look(registry: Registry, reference: Reference) -> tuple[Manifest, tuple[str, ...]]:
    wanted = reference.digest or reference.tag or "latest"
    manifest = registry.manifest(reference.repository, wanted)
    if manifest is None:
        raise BadArgument(
            f"image={str(reference)!r} does not exist: {reference.host} has no {reference.repository}:{wanted}."
        )
    if manifest.is_index:
        return manifest, tuple(sorted({each.platform or "" for each in manifests_of(manifest)}))
    config = registry.blob(reference.repository, manifest.document["config"]["digest"])
    return manifest, (platform_of(json.loads(config)),)
