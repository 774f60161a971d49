"""The interface of builders: they turn an order into an image in a registry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dask_starburst.environment.build.base_image import BaseImage
from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.resolve.lock import Lock
from dask_starburst.plan.images.recipe import Recipe

#: Receives progress: a kind and its facts. Builders call it from one thread at a time.
Report = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """A build order: the recipe and its inputs.

    Parameters
    ----------
    recipe : Recipe
        The recipe of the image.
    environment : Environment
        The packages, with local wheels and modules.
    locks : mapping of str to Lock
        The packages to install, for each platform of the recipe.
    base : BaseImage
        The base image.
    """

    recipe: Recipe
    environment: Environment
    locks: Mapping[str, Lock]
    base: BaseImage


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to push the image: an existing repository, and the tag."""

    registry: Registry
    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a registry.

    Parameters
    ----------
    reference : str
        The pinned name: ``"host/repository@sha256:…"``.
    tag : str
        Its tag.
    digest : str
        Digest of its index.
    platforms : tuple of str
        In OCI's notation, such as ``"linux/arm64"``.
    bytes_uploaded : int
        Bytes that the registry did not have before.
    seconds : float
        Duration of build and push.
    """

    reference: str
    tag: str
    digest: str
    platforms: tuple[str, ...]
    bytes_uploaded: int
    seconds: float


class Builder(Protocol):
    """Build an image and push it.

    Calls block and may take minutes: run them in a thread.
    """

    @property
    def name(self) -> str:
        """The builder's name in settings."""
        ...

    @property
    def template(self) -> str:
        """The builder's part of a recipe; see `Recipe`."""
        ...

    def build(self, order: Order, to: Destination, report: Report) -> Image:
        """Build and push an image; tag it last, when it is complete.

        Parameters
        ----------
        order : Order
            The build order.
        to : Destination
            Where to push the image.
        report : callable
            Receives progress.

        Raises
        ------
        ImageError
            The build or push failed. An incomplete image has no tag.
        """
        ...
