"""Find the image of the settings' environment in ECR, refresh it before it expires, or build it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from packaging.utils import canonicalize_name

from dask_starburst.aws import ecr
from dask_starburst.aws.session import AWS
from dask_starburst.environment.build.base_image import resolve_base
from dask_starburst.environment.build.direct import DirectBuilder
from dask_starburst.environment.build.interface import Builder, Destination, Image, Order
from dask_starburst.environment.build.progress import Progress
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
from dask_starburst.events.event import Event
from dask_starburst.events.image import ImageBuilding, ImageBuilt, ImageFound, ImageNote
from dask_starburst.events.stream import Emit
from dask_starburst.paths import cache_dir
from dask_starburst.plan.images import lifetime as plan
from dask_starburst.plan.images.recipe import PLATFORMS, Recipe, recipe_hash
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE
from dask_starburst.settings import BuildSettings, Settings

#: Values of `environment=` that mean the packages of this Python.
CURRENT = (None, "current")


async def find_or_build(aws: AWS, settings: Settings, listener: Emit, *, rebuild: bool = False) -> str:
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


async def _find_or_build(aws: AWS, settings: Settings, listener: Emit, *, rebuild: bool) -> str:
    loop, builder = asyncio.get_running_loop(), select_builder(settings.build)

    def emit(event: Event) -> None:  # mostly called from threads
        loop.call_soon_threadsafe(listener, event)

    if settings.environment not in CURRENT:  # before the first call to AWS
        files.check(str(settings.environment))
    if settings.build.dockerfile is not None:
        await asyncio.to_thread(getattr, builder, "template")
    repository, days = settings.build.repository, settings.build.image_ttl_days
    base = await open_registry(aws, Reference.parse(settings.build.base.replace("{python}", PYTHON)).host)
    order, _ = await asyncio.gather(
        asyncio.to_thread(plan_order, settings, emit, lambda host: base),
        ecr.ensure_repository(aws, repository, {**settings.tags, MANAGED_TAG: NAMESPACE}, days),
    )
    tag, stored = recipe_hash(order.recipe), await ecr.images(aws, repository)
    found = None if rebuild else plan.newest(stored, tag)
    verdict = plan.decide(found, aws.now(), days)
    login = await ecr.registry_credentials(aws)
    if found is not None and verdict != "rebuild":
        if verdict == "refresh":
            found = await ecr.refresh(aws, repository, found)
        _emit_found(emit, found, aws.now(), days, verdict)
        return f"{login.host}/{repository}@{found.digest}"
    registry = Registry(login.host, login)
    try:
        to = Destination(registry, repository, plan.free_tag(stored, tag, aws.now()))
        return (await asyncio.to_thread(build, order, to, builder, emit)).reference
    finally:
        registry.close()


def plan_order(settings: Settings, emit: Emit, connect: Callable[[str], Registry] | None = None) -> Order:
    """Return the build order for the current environment. This builds wheels of local packages and nothing else.

    `connect` returns the registry of the base image; the default uses the credentials stored by ``docker login``.
    """
    cache = cache_dir()
    template = select_builder(settings.build).template
    environment = capture_environment(settings, cache)
    for note in environment.notes:
        emit(ImageNote(origin=environment.origin, text=f"{environment.origin}: {note}"))
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
    platforms = _platforms(resolved, settings.archs, emit)
    _emit_excluded(emit, settings.build.exclude, resolved)
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


def build(order: Order, to: Destination, builder: Builder, emit: Emit) -> Image:
    """Build and push an image, and report progress."""
    recipe = order.recipe
    building = ImageBuilding(
        tag=to.tag,
        origin=order.environment.origin,
        packages=len(order.locks[recipe.platforms[0]].packages),
        platforms=recipe.platforms,
        base=order.base.name,
        builder=builder.name,
    )
    emit(building)
    image = builder.build(order, to, Progress(to.tag, emit))
    built = ImageBuilt(
        tag=to.tag,
        repository=to.repository,
        digest=image.digest,
        bytes=image.bytes_uploaded,
        seconds=image.seconds,
    )
    emit(built)
    return image


def _platforms(resolved: ResolvedPlatforms, archs: Iterable[str], emit: Emit) -> tuple[str, ...]:
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
        emit(ImageNote(origin=origin, text=text))
    return tuple(sorted(resolved.locks))


def _emit_excluded(emit: Emit, exclude: Iterable[str], resolved: ResolvedPlatforms) -> None:
    """Warn of excluded names that are not in the environment, or that other packages require."""
    names, origin = {canonicalize_name(name) for name in exclude}, resolved.environment.origin
    required = names & {name for lock in resolved.locks.values() for name, _ in lock.packages}
    if required:
        text = f"build.exclude names {', '.join(sorted(required))}; other packages require it, so it is installed"
        emit(ImageNote(origin=origin, text=text, warning=True))
    if unknown := names - required - set(resolved.environment.left_out):
        listed = ", ".join(sorted(unknown))
        text = f"build.exclude names {listed}, and {origin} has no such package: is the name right?"
        emit(ImageNote(origin=origin, text=text, warning=True))


def _emit_found(emit: Emit, found: plan.StoredImage, now: float, days: int | None, verdict: plan.Decision) -> None:
    left = plan.seconds_left(found, now, days)
    event = ImageFound(
        tag=found.tags[0],
        digest=found.digest,
        age_days=(now - found.pushed_at) / plan.DAY,
        refreshed_days=days if verdict == "refresh" else None,
        days_left=left / plan.DAY if verdict == "warn" and left is not None else None,
    )
    emit(event)
