"""Events of the worker image."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dask_starburst.events.event import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tagged(Event):
    """The base of events about an image in ECR."""

    tag: str

    @property
    def subject(self) -> str:
        """The tag of the image."""
        return self.tag


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFound(_Tagged):
    """The image exists. `refreshed_days`: it was pushed again, to stay so long; `days_left`: ECR deletes it soon."""

    kind = "image-found"
    digest: str
    age_days: float
    refreshed_days: int | None = None
    days_left: float | None = None

    @property
    def level(self) -> int:
        """WARNING if ECR deletes it soon."""
        return logging.INFO if self.days_left is None else logging.WARNING

    @property
    def message(self) -> str:
        """What happened, and what to do if ECR deletes it soon."""
        if self.refreshed_days is not None:
            days = self.refreshed_days
            return f"nothing has changed: image pushed again before ECR expires it, for {days} more days"
        text = f"nothing has changed: using the existing image, {self.age_days:.0f} days old"
        if self.days_left is None:
            return text
        return (
            f"{text}; ECR deletes it in {self.days_left:.0f} days unless a later launch refreshes it. A cluster that"
            " runs longer could not add workers after that: run `starburst image refresh` to refresh it now"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuilding(_Tagged):
    """An image of the packages of `origin` is being built."""

    kind = "image-building"
    origin: str
    packages: int
    platforms: tuple[str, ...]
    base: str
    builder: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        what = f"{self.packages} packages for {' and '.join(self.platforms)}, on {self.base}"
        return f"building an image of {self.origin}: {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageProgress(_Tagged):
    """A `step` of a build. `pushed` of `total` bytes are in the registry; None before the push begins."""

    kind = "image-progress"
    step: str
    platform: str = ""
    pushed: int | None = None
    total: int | None = None

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        text = f"image: {self.step}"
        if self.pushed is None or self.total is None:
            return text
        return f"{text}; pushed {_megabytes(self.pushed)} of {_megabytes(self.total)} so far"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageBuilt(_Tagged):
    """An image was built and pushed in `seconds`; `bytes` were uploaded."""

    kind = "image-built"
    repository: str
    digest: str
    bytes: int
    seconds: float

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        done = f"built and pushed in {self.seconds:.0f} s; {_megabytes(self.bytes)} uploaded"
        return f"image {self.repository}:{self.tag} {done}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageNote(Event):
    """Something to know about the packages of `origin`. `warning`: it may not be what the user wants."""

    kind = "image-note"
    origin: str
    text: str
    warning: bool = False

    @property
    def level(self) -> int:
        """WARNING if it may not be what the user wants."""
        return logging.WARNING if self.warning else logging.INFO

    @property
    def subject(self) -> str:
        """The environment whose packages they are."""
        return self.origin

    @property
    def message(self) -> str:
        """What to know, as one sentence."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUnchecked(Event):
    """The user's `image` is used without a check. `warning`: its registry did not answer."""

    kind = "image-unchecked"
    image: str
    why: str
    warning: bool = True

    @property
    def level(self) -> int:
        """WARNING if the registry did not answer."""
        return logging.WARNING if self.warning else logging.INFO

    @property
    def subject(self) -> str:
        """The name of the image."""
        return self.image

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"the image {self.image} is used without a check: {self.why}"


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"
