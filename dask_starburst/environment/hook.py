"""The cluster's own hook: before a launch it finds or builds the worker image."""

from __future__ import annotations

import asyncio
import importlib
from dataclasses import replace
from typing import TYPE_CHECKING

from dask_starburst import extras
from dask_starburst.errors import ImageError
from dask_starburst.events.image import ImageUnchecked
from dask_starburst.hooks import Launch, LifecycleHook

if TYPE_CHECKING:
    from types import ModuleType


class ImageHook(LifecycleHook):
    """Provide the image of a launch, or check the one that the user gave."""

    async def on_before_launch(self, launch: Launch) -> None:
        """Build, find or check the image.

        The check of a user's image runs concurrently with the account's set-up; see :attr:`.Launch.image`.

        Raises
        ------
        ImageError
            The build failed, or the image is incompatible; the message says why and what to do.
        """
        settings = launch.settings
        if settings.image is None:
            image_module = import_image_module("image")
            image = await image_module.find_or_build(launch.aws, settings, launch.emit)
            launch.settings = replace(settings, image=image)
        elif not launch.simulated:
            launch.image = asyncio.ensure_future(_checked(launch, settings.image))


async def _checked(launch: Launch, image: str) -> str:
    """Return the user's image, pinned to the digest of its tag, after the check."""
    try:
        user_image = import_image_module("user_image")
    except ImageError as error:
        launch.emit(ImageUnchecked(image=image, why=str(error), warning=False))
        return image
    checked: str = await user_image.check(launch.aws, image, launch.settings.archs, launch.emit)
    return checked


def import_image_module(name: str) -> ModuleType:
    """Import a module that needs the extra ``image``, which is not required with a user's own image.

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
        raise ImageError(f"{said}; or give image= with an existing image.") from error
