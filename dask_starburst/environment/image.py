"""From settings to an image in ECR: found when nothing has changed, renewed when it is old, else built."""

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
from dask_starburst.environment.resolve.platforms import Settled, explain, from_source, settle
from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.user_image import opened
from dask_starburst.errors import NoWheels, RegistryUnavailable
from dask_starburst.hooks import Tell
from dask_starburst.paths import cache_dir
from dask_starburst.plan.images import lifetime as plan
from dask_starburst.plan.images.recipe import PLATFORMS, Recipe, recipe_hash
from dask_starburst.settings import BuildSettings, Settings

#: What `environment=` says for the packages of this Python.
CURRENT = (None, "current")


async def make(aws: AWS, settings: Settings, listener: Tell, *, again: bool = False) -> str:
    """Return the image of the settings' environment, by digest; build it if there is none.

    Parameters
    ----------
    aws : AWS
        The account in whose ECR it is.
    settings : Settings
        `environment`, `arch`, `build` and `ecr_image_ttl_days`.
    listener : callable
        Hears how it goes on.
    again : bool
        Whether to build it although it is there.

    Raises
    ------
    BadArgument, VersionMismatch, NoWheels
        The environment cannot be made, or would not fit this client.
    ImageError
        Building or pushing failed; nothing half-made has a tag. That is so too for who cancels it: what goes on in
        threads ends within seconds.
    """
    with cancellation.interruptible():
        return await _made(aws, settings, listener, again=again)


async def _made(aws: AWS, settings: Settings, listener: Tell, *, again: bool) -> str:
    loop, builder = asyncio.get_running_loop(), chosen(settings.build)

    def tell(*what: Any, **facts: Any) -> None:  # most of this happens in threads
        loop.call_soon_threadsafe(functools.partial(listener, *what, **facts))

    if settings.environment not in CURRENT:  # before anything is asked of AWS
        files.check(str(settings.environment))
    if settings.build.dockerfile is not None:
        await asyncio.to_thread(getattr, builder, "template")
    repository, days = settings.build.repository, settings.ecr_image_ttl_days
    base = await opened(aws, Reference.parse(settings.build.base.replace("{python}", PYTHON)).host)
    order, _ = await asyncio.gather(
        asyncio.to_thread(plan_order, settings, tell, lambda host: base),
        ecr.ensure_repository(aws, repository, settings.tags, days),
    )
    tag, stored = recipe_hash(order.recipe), await ecr.images(aws, repository)
    found = None if again else plan.newest(stored, tag)
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
    """Return what is to be built of what the environment is now. Only wheels of local packages are made for that.

    `connect` gives the registry of the base image; without it, with what ``docker login`` has left.
    """
    cache = cache_dir()
    template = chosen(settings.build).template
    environment = captured(settings, cache)
    for note in environment.notes:
        tell("image-note", environment.origin, f"{environment.origin}: {note}")
    with ThreadPoolExecutor(1) as other:
        name = settings.build.base.replace("{python}", environment.python)
        base = cancellation.submit(other, resolve_base, name, cache, connect)
        settled = settle(environment, PLATFORMS.values(), cache)
    try:
        ground = base.result()
    except RegistryUnavailable as error:
        way = 'Or name a base image that can be reached from here, with build={"base": "…:{python}-…"}.'
        raise RegistryUnavailable(f"the base image cannot be looked up: {error} {way}") from error
    if settings.build.builder == "buildx":
        settled = from_source(settled, cache)
    platforms = _platforms(settled, settings.arch, tell)
    _tell_excluded(tell, settings.build.exclude, settled)
    recipe = Recipe(
        python=environment.python,
        platforms=platforms,
        packages={platform: settled.locks[platform].packages for platform in platforms},
        wheels=tuple((wheel.name, wheel.version, wheel.digest) for wheel in settled.environment.wheels),
        modules=tuple((module.name, module.digest) for module in settled.environment.modules),
        base=ground.reference,
        compression=settings.build.compression,
        template=template,
    )
    return Order(recipe, settled.environment, {p: settled.locks[p] for p in platforms}, ground)


def chosen(what: BuildSettings) -> Builder:
    """Return the builder that the settings ask for."""
    return BuildxBuilder(what.dockerfile, what.apt) if what.builder == "buildx" else DirectBuilder()


def captured(settings: Settings, cache: Path) -> Environment:
    """Return the packages that the workers are to have.

    With ``build.modules="by-value"`` the user's own modules travel with the functions that use them from now on.
    """
    what = settings.build
    if what.modules == "by-value":
        running.register_by_value()
    if settings.environment in CURRENT:
        return running.capture(what.exclude, what.add, what.modules, cache)
    return files.read(str(settings.environment), what.exclude, what.add, what.modules, cache)


def build(order: Order, to: Destination, builder: Builder, tell: Tell) -> Image:
    """Build and push, and say how it goes."""
    recipe = order.recipe
    count = len(order.locks[recipe.platforms[0]].packages)
    names = " and ".join(recipe.platforms)
    text = f"building an image of {order.environment.origin}: {count} packages for {names}, on {order.base.name}"
    tell("image-building", to.tag, text, packages=count, platforms=recipe.platforms, builder=builder.name)
    progress = Progress(to.tag, tell)
    image = builder.build(order, to, progress)
    new = megabytes(image.bytes_uploaded)
    text = f"image {to.repository}:{to.tag} is there after {image.seconds:.0f} s; {new} were new"
    tell("image-built", to.tag, text, bytes=image.bytes_uploaded, seconds=image.seconds, digest=image.digest)
    return image


def _platforms(settled: Settled, arch: str, tell: Tell) -> tuple[str, ...]:
    """Return what the image is built for: both, so that the other one is a word away, or the one that is needed.

    Raises
    ------
    NoWheels
        Packages have nothing for the one that is needed.
    """
    needed, origin = PLATFORMS[arch], settled.environment.origin
    if lacking := settled.missing.get(needed):
        raise NoWheels(explain(lacking, needed, origin))
    for platform, lacking in settled.missing.items():
        names = ", ".join(map(str, lacking))
        text = f"the image is for {needed} only: on {platform} {origin} lacks {names}"
        tell("image-note", origin, text, logging.INFO)
    return tuple(sorted(settled.locks))


def _tell_excluded(tell: Tell, exclude: Iterable[str], settled: Settled) -> None:
    """Warn of names that were to be left out, and that nothing has, or that come all the same."""
    names, origin = {canonicalize_name(name) for name in exclude}, settled.environment.origin
    come = names & {name for lock in settled.locks.values() for name, _ in lock.packages}
    if come:
        text = f"build.exclude names {', '.join(sorted(come))}; other packages need that, so it comes all the same"
        tell("image-note", origin, text, logging.WARNING)
    if nowhere := names - come - set(settled.environment.left_out):
        listed = ", ".join(sorted(nowhere))
        text = f"build.exclude names {listed}, and {origin} has no such package: is the name right?"
        tell("image-note", origin, text, logging.WARNING)


def _tell_found(tell: Tell, found: plan.StoredImage, now: float, days: int | None, verdict: plan.Decision) -> None:
    age, left = (now - found.pushed_at) / plan.DAY, plan.seconds_left(found, now, days)
    text = f"nothing has changed: the image that is there is used, {age:.0f} days old"
    if verdict == "refresh":
        text = f"nothing has changed, and ECR would soon delete the image: it was pushed again, for {days} more days"
    elif verdict == "warn" and left is not None:
        text += f"; ECR deletes it in {left / plan.DAY:.0f} days, before which a launch renews it. A cluster that runs"
        text += " longer cannot add workers then: `starburst image refresh` does it now"
    level = logging.WARNING if verdict == "warn" else logging.INFO
    tell("image-found", found.tags[0], text, level, digest=found.digest, age_days=age)
