"""The cluster's own hook: before a launch it finds or makes the image that the workers run."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace
from typing import TYPE_CHECKING

from dask_starburst import extras
from dask_starburst.errors import ImageError
from dask_starburst.hooks import Launch, LifecycleHook

if TYPE_CHECKING:
    from types import ModuleType


class ImageHook(LifecycleHook):
    """Gives a launch the image that it lacks, or checks the one that the user has."""

    async def on_before_launch(self, launch: Launch) -> None:
        """Build, find or check the image.

        The check of an image that the user has runs beside the account's set-up; see :attr:`.Launch.image`.

        Raises
        ------
        ImageError
            It could not be built, or does not fit; the message says why and what to do.
        """
        settings = launch.settings
        if settings.image is None:
            making = part("image")
            image = await making.make(launch.aws, settings, launch.tell)
            launch.settings = replace(settings, image=image)
        elif not launch.simulated:
            launch.image = asyncio.ensure_future(_checked(launch, settings.image))


async def _checked(launch: Launch, image: str) -> str:
    """Return the user's own image, pinned to what its tag means now, once it is known to fit."""
    try:
        own = part("user_image")
    except ImageError as error:
        launch.tell("image-unchecked", image, f"the image {image} is used without a check: {error}")
        return image
    checked: str = await own.check(launch.aws, image, launch.settings.arch, launch.tell)
    return checked


def part(name: str) -> ModuleType:
    """Import what needs the extra ``image``, which a user with an image of their own can do without.

    Parameters
    ----------
    name : str
        A module of `dask_starburst.environment`.

    Raises
    ------
    ImageError
        The extra is not installed.
    """
    try:
        return importlib.import_module(f"dask_starburst.environment.{name}")
    except ImportError as error:
        if error.name and error.name.startswith("dask_starburst"):
            raise
        said = extras.explain("building an image", error, "image")
        raise ImageError(f"{said}; or give image= with an image that you have.") from error
