"""Find the image of the settings' environment in ECR, refresh it before it expires, or build it."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from dask_starburst.aws import ecr
from dask_starburst.aws.session import AWS
from dask_starburst.environment.build.base_image import resolve_base
from dask_starburst.environment.build.direct import DirectBuilder
from dask_starburst.environment.build.interface import Builder, Destination, Image, Order
from dask_starburst.environment.build.progress import Progress, megabytes
from dask_starburst.environment.buildx.builder import BuildxBuilder
from dask_starburst.environment.capture import files, running
from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.capture.running import PYTHON
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.registry.documents import Reference
from dask_starburst.environment.resolve.platforms import ResolvedPlatforms, explain, from_source, resolve_platforms
from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.user_image import open_registry
from dask_starburst.errors import NoWheels, RegistryUnavailable
from dask_starburst.hooks import Tell
from dask_starburst.paths import cache_dir
from dask_starburst.plan.images import lifetime as plan
from dask_starburst.plan.images.recipe import PLATFORMS, Recipe, recipe_hash
from dask_starburst.settings import BuildSettings, Settings

#: Values of `environment=` that mean the packages of this Python.
CURRENT = (None, "current")


async def find_or_build(aws: AWS, settings: Settings, listener: Tell, *, rebuild: bool = False) -> str:
    """Return the image of the settings' environment, by digest; build it if it does not exist.

    Parameters
    ----------
    aws : AWS
        The account whose ECR holds the image.
    settings : Settings
        `environment`, `arch` and `build`.
    listener : callable
        Receives progress events.
    rebuild : bool
        Whether to build the image even if it exists.

    Raises
    ------
    BadArgument, VersionMismatch, NoWheels
        The environment cannot be built, or is incompatible with this client.
    ImageError
        Building or pushing failed. An incomplete image has no tag. The same holds after a cancellation: work in
        threads ends within seconds.
    """
    with cancellation.cancellable():
        return await _find_or_build(aws, settings, listener, rebuild=rebuild)


async def _find_or_build(aws: AWS, settings: Settings, listener: Tell, *, rebuild: bool) -> str:
    loop, builder = asyncio.get_running_loop(), select_builder(settings.build)

    def tell(*what: Any, **facts: Any) -> None:  # mostly called from threads
        loop.call_soon_threadsafe(functools.partial(listener, *what, **facts))

    if settings.environment not in CURRENT:  # before the first call to AWS
        files.check(str(settings.environment))
    if settings.build.dockerfile is not None:
        await asyncio.to_thread(getattr, builder, "template")
    repository, days = settings.build.repository, settings.build.image_ttl_days
    base = await open_registry(aws, Reference.parse(settings.build.base.replace("{python}", PYTHON)).host)
    order, _ = await asyncio.gather(
        asyncio.to_thread(plan_order, settings, tell, lambda host: base),
        ecr.ensure_repository(aws, repository, settings.tags, days),
    )
    tag, stored = recipe_hash(order.recipe), await ecr.images(aws, repository)
    found = None if rebuild else plan.newest(stored, tag)
    verdict = plan.decide(found, aws.now(), days)
    login = await ecr.registry_credentials(aws)
    if found is not None and verdict != "rebuild":
        if verdict == "refresh":
            found = await ecr.refresh(aws, repository, found)
        _tell_found(tell, found, aws.now(), days, verdict)
        return f"{login.host}/{repository}@{found.digest}"
    registry = Registry(login.host, login)
    try:
        to = Destination(registry, repository, plan.free_tag(stored, tag, aws.now()))
        return (await asyncio.to_thread(build, order, to, builder, tell)).reference
    finally:
        registry.close()


def plan_order(settings: Settings, tell: Tell, connect: Callable[[str], Registry] | None = None) -> Order:
    """Return the build order for the current environment. This builds wheels of local packages and nothing else.

    `connect` returns the registry of the base image; the default uses the credentials stored by ``docker login``.
    """
    cache = cache_dir()
    template = select_builder(settings.build).template
    environment = capture_environment(settings, cache)
    for note in environment.notes:
        tell("image-note", environment.origin, f"{environment.origin}: {note}")
    with ThreadPoolExecutor(1) as pool:
        name = settings.build.base.replace("{python}", environment.python)
        base = cancellation.submit(pool, resolve_base, name, cache, connect)
        resolved = resolve_platforms(environment, PLATFORMS.values(), cache)
    try:
        base_image = base.result()
    except RegistryUnavailable as error:
        hint = 'Or name a base image that can be reached from here, with build={"base": "…:{python}-…"}.'
        raise RegistryUnavailable(f"the base image cannot be looked up: {error} {hint}") from error
    if settings.build.builder == "buildx":
        resolved = from_source(resolved, cache)
    platforms = _platforms(resolved, settings.archs, tell)
    _tell_excluded(tell, settings.build.exclude, resolved)
    recipe = Recipe(
        python=environment.python,
        platforms=platforms,
        packages={platform: resolved.locks[platform].packages for platform in platforms},
        wheels=tuple((wheel.name, wheel.version, wheel.digest) for wheel in resolved.environment.wheels),
        modules=tuple((module.name, module.digest) for module in resolved.environment.modules),
        base=base_image.reference,
        compression=settings.build.compression,
        template=template,
    )
    return Order(recipe, resolved.environment, {p: resolved.locks[p] for p in platforms}, base_image)


def select_builder(what: BuildSettings) -> Builder:
    """Return the builder that the settings select."""
    return BuildxBuilder(what.dockerfile, what.apt) if what.builder == "buildx" else DirectBuilder()


def capture_environment(settings: Settings, cache: Path) -> Environment:
    """Return the packages that workers need.

    With ``build.modules="by-value"``, functions that use the user's own modules are from now on pickled with them.
    """
    what = settings.build
    if what.modules == "by-value":
        running.register_by_value()
    if settings.environment in CURRENT:
        return running.capture(what.exclude, what.add, what.modules, cache)
    return files.read(str(settings.environment), what.exclude, what.add, what.modules, cache)


def build(order: Order, to: Destination, builder: Builder, tell: Tell) -> Image:
    """Build and push an image, and report progress."""
    recipe = order.recipe
    count = len(order.locks[recipe.platforms[0]].packages)
    names = " and ".join(recipe.platforms)
    text = f"building an image of {order.environment.origin}: {count} packages for {names}, on {order.base.name}"
    tell("image-building", to.tag, text, packages=count, platforms=recipe.platforms, builder=builder.name)
    progress = Progress(to.tag, tell)
    image = builder.build(order, to, progress)
    new = megabytes(image.bytes_uploaded)
    text = f"image {to.repository}:{to.tag} built and pushed in {image.seconds:.0f} s; {new} uploaded"
    tell("image-built", to.tag, text, bytes=image.bytes_uploaded, seconds=image.seconds, digest=image.digest)
    return image


def _platforms(resolved: ResolvedPlatforms, archs: Iterable[str], tell: Tell) -> tuple[str, ...]:
    """Return the image's platforms: both, so that `arch` can change without a build, or only those required.

    Raises
    ------
    NoWheels
        Packages have no wheel for a required platform.
    """
    origin, required = resolved.environment.origin, [PLATFORMS[arch] for arch in archs]
    for needed in required:
        if lacking := resolved.missing.get(needed):
            raise NoWheels(explain(lacking, needed, origin))
    for platform, lacking in resolved.missing.items():
        names = ", ".join(map(str, lacking))
        text = f"the image is for {required[0]} only: {origin} has packages without wheels for {platform}: {names}"
        tell("image-note", origin, text, logging.INFO)
    return tuple(sorted(resolved.locks))


def _tell_excluded(tell: Tell, exclude: Iterable[str], resolved: ResolvedPlatforms) -> None:
    """Warn of excluded names that are not in the environment, or that other packages require."""
    names, origin = {canonicalize_name(name) for name in exclude}, resolved.environment.origin
    required = names & {name for lock in resolved.locks.values() for name, _ in lock.packages}
    if required:
        text = f"build.exclude names {', '.join(sorted(required))}; other packages require it, so it is installed"
        tell("image-note", origin, text, logging.WARNING)
    if unknown := names - required - set(resolved.environment.left_out):
        listed = ", ".join(sorted(unknown))
        text = f"build.exclude names {listed}, and {origin} has no such package: is the name right?"
        tell("image-note", origin, text, logging.WARNING)


def _tell_found(tell: Tell, found: plan.StoredImage, now: float, days: int | None, verdict: plan.Decision) -> None:
    age, left = (now - found.pushed_at) / plan.DAY, plan.seconds_left(found, now, days)
    text = f"nothing has changed: using the existing image, {age:.0f} days old"
    if verdict == "refresh":
        text = f"nothing has changed: image pushed again before ECR expires it, for {days} more days"
    elif verdict == "warn" and left is not None:
        text += f"; ECR deletes it in {left / plan.DAY:.0f} days unless a later launch refreshes it. A cluster that"
        text += " runs longer could not add workers after that: run `starburst image refresh` to refresh it now"
    level = logging.WARNING if verdict == "warn" else logging.INFO
    tell("image-found", found.tags[0], text, level, digest=found.digest, age_days=age)
