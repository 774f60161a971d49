"""What builders have in common: an order comes in, an image in a registry comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from dask_starburst.environment.build.base_image import BaseImage
from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.resolve.lock import Lock
from dask_starburst.plan.images.recipe import Recipe

#: Told what happens: a word for it, and the facts. Builders call it from one thread at a time.
Report = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Order:
    """What to build: the recipe, and where its ingredients are.

    Parameters
    ----------
    recipe : Recipe
        What is to come out.
    environment : Environment
        The packages, with the wheels and modules that only this computer has.
    locks : mapping of str to Lock
        What to install, by platform: one for each of the recipe's.
    base : BaseImage
        What it is built on.
    """

    recipe: Recipe
    environment: Environment
    locks: Mapping[str, Lock]
    base: BaseImage


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the image goes: a repository, which is there already, and the tag to give it."""

    registry: Registry
    repository: str
    tag: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a registry.

    Parameters
    ----------
    reference : str
        What to run: ``"host/repository@sha256:…"``.
    tag : str
        What it can be found by.
    digest : str
        Of its index.
    platforms : tuple of str
        As OCI writes them, such as ``"linux/arm64"``.
    bytes_uploaded : int
        What the registry did not have before.
    seconds : float
        How long it took to build and push.
    """

    reference: str
    tag: str
    digest: str
    platforms: tuple[str, ...]
    bytes_uploaded: int
    seconds: float


class Builder(Protocol):
    """Makes an image and pushes it.

    Calls block and may take minutes: a thread is the place for them.
    """

    @property
    def name(self) -> str:
        """The word that settings use for it."""
        ...

    @property
    def template(self) -> str:
        """What of a recipe is the builder's own; see `Recipe`."""
        ...

    def build(self, order: Order, to: Destination, report: Report) -> Image:
        """Build what is ordered, and give it its tag as the last thing, when all of it is there.

        Parameters
        ----------
        order : Order
            What to build.
        to : Destination
            Where to push it.
        report : callable
            Hears what happens.

        Raises
        ------
        ImageError
            It could not be built or pushed. Nothing half-made has the tag.
        """
        ...
