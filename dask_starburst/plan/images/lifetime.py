"""Images in ECR: their lifetime, which can be pruned, and storage cost.

ECR expires an image by its push date, regardless of use, within 24 hours after the end of its lifetime. An image that
an index names stays as long as the index (aws-facts §7).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from dask_starburst.errors import ImageError

#: The action for an image at a launch.
Decision = Literal["use", "warn", "refresh", "rebuild"]
#: Annotation with the time at which an image was pushed again.
REFRESHED = "io.dask-starburst.refreshed"
#: Storage in us-east-1 (aws-facts §7; https://aws.amazon.com/ecr/pricing/).
USD_PER_GB_MONTH = 0.10

DAY = 86_400.0
#: Seconds for which a cluster that starts now must be able to add workers.
REFRESH_BEFORE = 2 * DAY
#: Remaining seconds below which the user of a long-running cluster is warned.
WARN_BEFORE = 5 * DAY
#: Remaining seconds below which an image may already be deleted: clocks differ.
REBUILD_BEFORE = 3_600.0
#: Seconds for which a pushed image is kept: a launch may be about to use it, before a task definition names it.
YOUNG = 3_600.0

_REFRESH = re.compile(r"-r\d{14}$")
_ANNOTATED = ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image or an index in a repository.

    Parameters
    ----------
    digest : str
        Digest of its manifest.
    tags : tuple of str
        Empty for an index's platform images.
    pushed_at : float
        Seconds since the epoch.
    size : int
        Bytes, as ECR reports them: for an index, those of its largest image.
    media_type : str
        Media type of its manifest.
    platforms : tuple of str
        Platforms of an index, such as ``"linux/arm64"``.
    children : tuple of str
        Digests of the images that an index names.
    blobs : tuple of tuple of str and int
        Digest and size of each layer and of the configuration; empty for an index.
    pulled_at : float, optional
        Time of the last pull; ECR updates it with up to a day's delay.
    """

    digest: str
    tags: tuple[str, ...]
    pushed_at: float
    size: int
    media_type: str = ""
    platforms: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    blobs: tuple[tuple[str, int], ...] = ()
    pulled_at: float | None = None


@dataclass(frozen=True, slots=True)
class Prunable:
    """An image that can be deleted, and why."""

    image: StoredImage
    why: str


def lifecycle_policy(ttl_days: int | None) -> dict[str, Any]:
    """Return the lifecycle policy of the worker repository.

    The platform images of an expired index remain untagged and need a rule of their own; ECR allows one for untagged
    images. The rule for any image must be last.

    Parameters
    ----------
    ttl_days : int, optional
        Lifetime of an image; None keeps it forever. Untagged images outside of an index expire after a day regardless.
    """
    rules = [_rule(1, "leftovers of failed pushes and parts of expired images", "untagged", 1)]
    if ttl_days is not None:
        rules.append(_rule(2, "images expire", "any", ttl_days))
    return {"rules": rules}


def ttl_of(policy: Mapping[str, Any]) -> int | None:
    """Return the days for which a lifecycle policy keeps tagged images; None if forever."""
    selections = [rule["selection"] for rule in policy.get("rules", [])]
    days = [
        int(each["countNumber"])
        for each in selections
        if each["tagStatus"] == "any" and each["countType"] == "sinceImagePushed"
    ]
    return min(days, default=None)


def seconds_left(image: StoredImage, now: float, ttl_days: int | None) -> float | None:
    """Return the seconds until ECR may delete an image; None if never."""
    return None if ttl_days is None else image.pushed_at + ttl_days * DAY - now


def decide(image: StoredImage | None, now: float, ttl_days: int | None) -> Decision:
    """Return the action for an image before a launch.

    Parameters
    ----------
    image : StoredImage, optional
        The newest image of the recipe, if any.
    now : float
        AWS's time.
    ttl_days : int, optional
        Days for which ECR keeps it.

    Returns
    -------
    {"use", "warn", "refresh", "rebuild"}
        ``"warn"``: use it, but a cluster that runs for days would outlive it. ``"refresh"``: push it again.
        ``"rebuild"``: it does not exist, or may expire at any moment.
    """
    if image is None:
        return "rebuild"
    left = seconds_left(image, now, ttl_days)
    if left is None or ttl_days is None:
        return "use"
    if left <= REBUILD_BEFORE:
        return "rebuild"
    if left < REFRESH_BEFORE:
        return "refresh"
    # With a short lifetime, a newly pushed image needs no warning.
    return "warn" if left < min(WARN_BEFORE, ttl_days * DAY / 2) else "use"


def recipe_of(tag: str) -> str:
    """Return the recipe hash of a tag."""
    return _REFRESH.sub("", tag)


def refresh_tag(tag: str, now: float) -> str:
    """Return the tag of a refreshed image: tags are immutable."""
    return f"{recipe_of(tag)}-r{datetime.fromtimestamp(now, UTC):%Y%m%d%H%M%S}"


def free_tag(images: Iterable[StoredImage], recipe: str, now: float) -> str:
    """Return the tag for a new image of a recipe: its hash, or a refresh tag if the hash is taken."""
    taken = {tag for image in images for tag in image.tags}
    return refresh_tag(recipe, now) if recipe in taken else recipe


def refreshed(manifest: str, now: float) -> str:
    """Return a manifest with the same content but another digest, which restarts its lifetime in ECR.

    Raises
    ------
    ImageError
        It has Docker's format, which does not support annotations.
    """
    document = json.loads(manifest)
    if document.get("mediaType") not in _ANNOTATED:
        raise ImageError(
            f"a manifest of type {document.get('mediaType')} does not support annotations, so the image cannot be"
            " refreshed; rebuild it."
        )
    when = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    document["annotations"] = {**document.get("annotations", {}), REFRESHED: when}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def newest(images: Iterable[StoredImage], recipe: str) -> StoredImage | None:
    """Return the latest image of a recipe, if any."""
    found = [image for image in images if recipe in map(recipe_of, image.tags)]
    return max(found, key=lambda image: image.pushed_at, default=None)


def in_repository(in_use: Mapping[str, tuple[str, ...]], repository: str) -> dict[str, tuple[str, ...]]:
    """Return the references to a repository, on any host: one registry has several names."""
    return {name: users for name, users in in_use.items() if _repository_of(name) == repository}


def users_of(image: StoredImage, in_use: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Return the users of an image, given users by reference."""
    return tuple(sorted({user for name, users in in_use.items() if _names(name, image) for user in users}))


def prunable(
    images: Sequence[StoredImage], in_use: Collection[str], now: float, ttl_days: int | None, keep: int = 1
) -> tuple[Prunable, ...]:
    """Return the images that can be deleted, indexes first, as ECR requires.

    Images that are in use, newly pushed, or part of an index that stays are kept.

    Parameters
    ----------
    images : sequence of StoredImage
        All images of the repository.
    in_use : collection of str
        References of running tasks and of the pools' task definitions.
    now : float
        AWS's time.
    ttl_days : int, optional
        Days for which ECR keeps images.
    keep : int
        Number of newest recipes whose latest image is kept even if unused.
    """
    used = {image.digest for image in images if any(_names(name, image) for name in in_use)}
    kept = used | {image.digest for image in images if now - image.pushed_at < YOUNG}
    kept |= {image.digest for image in _latest(images)[:keep]}
    # Future workers pull by the index, although a platform's image runs.
    kept |= {image.digest for image in images if used.intersection(image.children)}
    kept |= {child for image in images if image.digest in kept for child in image.children}
    gone = [image for image in images if image.digest not in kept]
    gone.sort(key=lambda image: (not image.children, image.pushed_at))
    return tuple(Prunable(image, _why(image, images, now, ttl_days)) for image in gone)


def members(image: StoredImage, images: Iterable[StoredImage]) -> tuple[StoredImage, ...]:
    """Return an image with its children."""
    return (image, *(each for each in images if each.digest in image.children))


def stored_bytes(images: Iterable[StoredImage]) -> int:
    """Return the total size of images: ECR stores shared layers once per repository."""
    return sum({digest: size for image in images for digest, size in image.blobs}.values())


def monthly_cost(size: int) -> float:
    """Return the storage cost of a size in bytes for a month (US dollars)."""
    return size / 1e9 * USD_PER_GB_MONTH


def _rule(priority: int, description: str, status: str, days: int) -> dict[str, Any]:
    selection = {"tagStatus": status, "countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}
    action = {"type": "expire"}
    return {"rulePriority": priority, "description": description, "selection": selection, "action": action}


def _repository_of(reference: str) -> str:
    path = reference.partition("@")[0].partition("/")[2]
    return path.partition(":")[0]


def _names(reference: str, image: StoredImage) -> bool:
    """Whether a reference may name an image, in any repository."""
    return reference.endswith((f"@{image.digest}", *(f":{tag}" for tag in image.tags)))


def _latest(images: Iterable[StoredImage]) -> list[StoredImage]:
    """Return the latest image of each recipe, newest first."""
    found: dict[str, StoredImage] = {}
    for image in sorted(images, key=lambda image: image.pushed_at):
        found |= {recipe_of(tag): image for tag in image.tags}
    return sorted({image.digest: image for image in found.values()}.values(), key=lambda i: i.pushed_at, reverse=True)


def _why(image: StoredImage, images: Sequence[StoredImage], now: float, ttl_days: int | None) -> str:
    if any(image.digest in each.children for each in images):
        return "part of a deleted index"
    left = seconds_left(image, now, ttl_days)
    if left is not None and left < 0:
        return "expired"
    if not image.tags:
        return "untagged, and not part of an index"
    latest = newest(images, recipe_of(image.tags[-1]))
    if latest is not None and latest.digest != image.digest:
        return "refreshed since"
    return "unused"
