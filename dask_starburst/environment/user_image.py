"""Check an image that the user provides: whether it exists, its architectures, and the digest of its tag."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from dask_starburst.aws import ecr
from dask_starburst.aws.session import AWS
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.registry.docker_credentials import stored_credentials
from dask_starburst.environment.registry.documents import Manifest, Reference, manifests_of, platform_of, read_document
from dask_starburst.errors import BadArgument, RegistryUnavailable
from dask_starburst.events.image import ImageUnchecked
from dask_starburst.events.stream import Emit
from dask_starburst.plan.images.recipe import PLATFORMS

#: Timeouts in seconds for each response and for the whole check, after which the image is used without a check. There
#: is one attempt: AWS pulls the image, so a launch must not wait for this computer's network.
_TIMEOUT_SECONDS = 5.0
_TOTAL_SECONDS = 10.0


async def check(aws: AWS, image: str, archs: Iterable[str], emit: Emit) -> str:
    """Return the image by digest, if it exists and supports the architectures.

    The digest keeps later workers identical to the first ones, even if the tag moves.

    Parameters
    ----------
    aws : AWS
        The account, whose credentials are used for its own registry. Other registries use those of `docker login`.
    image : str
        An image name, as docker accepts it.
    archs : iterable of {"arm64", "x86_64"}
        The architectures of the instances.
    emit : callable
        Receives a warning when the check was not possible: a registry that is unreachable from here may be reachable
        from AWS.

    Raises
    ------
    BadArgument
        The image does not exist, or does not support an architecture.
    RegistryDenied
        The registry denied access.
    """
    reference = Reference.parse(image)
    try:
        async with asyncio.timeout(_TOTAL_SECONDS):
            manifest, there = await _fetch_manifest(aws, reference)
    except (RegistryUnavailable, TimeoutError) as error:
        why = str(error) or f"{reference.host} did not answer within {_TOTAL_SECONDS:g} s."
        emit(ImageUnchecked(image=image, why=why))
        return image
    lacking = [arch for arch in archs if PLATFORMS[arch] not in there]
    if lacking:
        arch, other = lacking[0], next((name for name, platform in PLATFORMS.items() if platform in there), None)
        hint = f"give arch={other!r}, or " if other else ""
        raise BadArgument(
            f"image={image!r} is built for {', '.join(there) or 'an unknown platform'}, but arch={arch!r} requires"
            f" {PLATFORMS[arch]}; {hint}leave out image= to build one of your packages."
        )
    return f"{reference.name}@{manifest.digest}"


async def open_registry(aws: AWS, host: str, **options: Any) -> Registry:
    """Return a registry client with the credentials for its host; `options` are those of `Registry`."""
    if ecr.is_ours(host):
        return Registry(host, await ecr.registry_credentials(aws), **options)
    return Registry(host, stored_credentials(host), **options)


async def _fetch_manifest(aws: AWS, reference: Reference) -> tuple[Manifest, tuple[str, ...]]:
    registry = await open_registry(aws, reference.host, attempts=1, timeout=_TIMEOUT_SECONDS)
    try:
        return await asyncio.to_thread(_read_manifest, registry, reference)
    finally:
        registry.close()


def _read_manifest(registry: Registry, reference: Reference) -> tuple[Manifest, tuple[str, ...]]:
    reference_name = reference.digest or reference.tag or "latest"
    manifest = registry.manifest(reference.repository, reference_name)
    if manifest is None:
        raise BadArgument(
            f"image={str(reference)!r} does not exist: {reference.host} has no {reference.repository}:{reference_name}."
        )
    if manifest.is_index:
        return manifest, tuple(sorted({each.platform or "" for each in manifests_of(manifest)}))
    config = registry.blob(reference.repository, manifest.config.digest)
    return manifest, (platform_of(read_document(config, "configuration")),)
