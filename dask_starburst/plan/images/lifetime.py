"""Images in ECR: how long one holds, which may go, and what keeping them costs.

ECR expires an image by the day on which it was pushed, however often it is used, within 24 hours after its time is
over. An image that an index names stays for as long as the index does (aws-facts §7).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from dask_starburst.errors import ImageError

#: What to do about an image at a launch.
Decision = Literal["use", "warn", "refresh", "rebuild"]
#: Annotation with the time at which an image was pushed again.
REFRESHED = "io.dask-starburst.refreshed"
#: Storage in us-east-1 (aws-facts §7; https://aws.amazon.com/ecr/pricing/).
USD_PER_GB_MONTH = 0.10

DAY = 86_400.0
#: A cluster that starts now should be able to add workers for so long.
REFRESH_BEFORE = 2 * DAY
#: And so long before that, somebody who plans a long run should know.
WARN_BEFORE = 5 * DAY
#: Nobody knows whether an image is still there after so short a time, for our clock and AWS's.
REBUILD_BEFORE = 3_600.0
#: What was pushed within it may be on the way to a launch: neither tag nor task definition names it yet.
YOUNG = 3_600.0

_REFRESH = re.compile(r"-r\d{14}$")
_ANNOTATED = ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image or an index in a repository.

    Parameters
    ----------
    digest : str
        Of its manifest.
    tags : tuple of str
        None for the images of an index's platforms.
    pushed_at : float
        Seconds since the epoch.
    size : int
        Bytes, as ECR counts them: for an index, those of its largest image.
    media_type : str
        Of its manifest.
    platforms : tuple of str
        What an index has, such as ``"linux/arm64"``.
    children : tuple of str
        Digests of the images that an index names.
    blobs : tuple of tuple of str and int
        Digest and size of each layer and of the configuration; an index has none.
    pulled_at : float, optional
        When it was last pulled; ECR may be a day late with it.
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
    """An image that may go, and why."""

    image: StoredImage
    why: str


def lifecycle_policy(ttl_days: int | None) -> dict[str, Any]:
    """Return the lifecycle policy of our repository.

    The images of an index that has expired are left without a tag: they need a rule of their own, and ECR allows one
    for untagged images. The rule for any image has to come last.

    Parameters
    ----------
    ttl_days : int, optional
        How long an image is kept; None for ever. What has no tag and is in no index goes after a day in any case.
    """
    rules = [_rule(1, "what a push left behind, and the parts of expired images", "untagged", 1)]
    if ttl_days is not None:
        rules.append(_rule(2, "images expire", "any", ttl_days))
    return {"rules": rules}


def ttl_of(policy: Mapping[str, Any]) -> int | None:
    """Return how many days a lifecycle policy keeps tagged images; None for ever."""
    selections = [rule["selection"] for rule in policy.get("rules", [])]
    days = [
        int(each["countNumber"])
        for each in selections
        if each["tagStatus"] == "any" and each["countType"] == "sinceImagePushed"
    ]
    return min(days, default=None)


def seconds_left(image: StoredImage, now: float, ttl_days: int | None) -> float | None:
    """Return after how many seconds ECR may delete an image; None when it does not."""
    return None if ttl_days is None else image.pushed_at + ttl_days * DAY - now


def decide(image: StoredImage | None, now: float, ttl_days: int | None) -> Decision:
    """Return what to do about an image before a launch.

    Parameters
    ----------
    image : StoredImage, optional
        The newest of the recipe, if there is one.
    now : float
        AWS's time.
    ttl_days : int, optional
        How long ECR keeps it.

    Returns
    -------
    {"use", "warn", "refresh", "rebuild"}
        ``"warn"``: it is fine now, but a cluster that runs for days would outlive it. ``"refresh"``: push it again.
        ``"rebuild"``: it is not there, or may go at any moment.
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
    # With a short time to live, an image that was just pushed is nothing to warn of.
    return "warn" if left < min(WARN_BEFORE, ttl_days * DAY / 2) else "use"


def recipe_of(tag: str) -> str:
    """Return the hash of the recipe that a tag stands for."""
    return _REFRESH.sub("", tag)


def refresh_tag(tag: str, now: float) -> str:
    """Return the tag for pushing again what has a tag already: tags are immutable."""
    return f"{recipe_of(tag)}-r{datetime.fromtimestamp(now, UTC):%Y%m%d%H%M%S}"


def free_tag(images: Iterable[StoredImage], recipe: str, now: float) -> str:
    """Return the tag for an image of a recipe: its hash, or what a refresh has when that is taken."""
    taken = {tag for image in images for tag in image.tags}
    return refresh_tag(recipe, now) if recipe in taken else recipe


def refreshed(manifest: str, now: float) -> str:
    """Return a manifest of the same content with another digest, for ECR to count its days from now.

    Raises
    ------
    ImageError
        It is of Docker's own format, which has no annotations.
    """
    document = json.loads(manifest)
    if document.get("mediaType") not in _ANNOTATED:
        raise ImageError(
            f"a manifest of the type {document.get('mediaType')} has no annotations, so that it cannot be pushed again"
            " as another one; build the image anew."
        )
    when = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
    document["annotations"] = {**document.get("annotations", {}), REFRESHED: when}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def newest(images: Iterable[StoredImage], recipe: str) -> StoredImage | None:
    """Return the image of a recipe that was pushed last, if there is one."""
    found = [image for image in images if recipe in map(recipe_of, image.tags)]
    return max(found, key=lambda image: image.pushed_at, default=None)


def in_repository(in_use: Mapping[str, tuple[str, ...]], repository: str) -> dict[str, tuple[str, ...]]:
    """Return those references that are of a repository, whatever their host: one registry has several names."""
    return {name: users for name, users in in_use.items() if _repository_of(name) == repository}


def users_of(image: StoredImage, in_use: Mapping[str, Collection[str]]) -> tuple[str, ...]:
    """Return who uses an image, of what they use by reference."""
    return tuple(sorted({user for name, users in in_use.items() if _names(name, image) for user in users}))


def prunable(
    images: Sequence[StoredImage], in_use: Collection[str], now: float, ttl_days: int | None, keep: int = 1
) -> tuple[Prunable, ...]:
    """Return the images that may go, those that name others first, as ECR wants it.

    Never one that is in use, has just been pushed or belongs to an index that stays.

    Parameters
    ----------
    images : sequence of StoredImage
        All of the repository.
    in_use : collection of str
        References: of running tasks and of the pools' task definitions.
    now : float
        AWS's time.
    ttl_days : int, optional
        How long ECR keeps images.
    keep : int
        Of how many recipes, the newest first, to keep the latest image though nothing uses it.
    """
    used = {image.digest for image in images if any(_names(name, image) for name in in_use)}
    kept = used | {image.digest for image in images if now - image.pushed_at < YOUNG}
    kept |= {image.digest for image in _latest(images)[:keep]}
    # The workers to come want the index, though it is a platform's image that runs.
    kept |= {image.digest for image in images if used.intersection(image.children)}
    kept |= {child for image in images if image.digest in kept for child in image.children}
    gone = [image for image in images if image.digest not in kept]
    gone.sort(key=lambda image: (not image.children, image.pushed_at))
    return tuple(Prunable(image, _why(image, images, now, ttl_days)) for image in gone)


def members(image: StoredImage, images: Iterable[StoredImage]) -> tuple[StoredImage, ...]:
    """Return an image with those that it names."""
    return (image, *(each for each in images if each.digest in image.children))


def stored_bytes(images: Iterable[StoredImage]) -> int:
    """Return how much images take together: ECR keeps a layer that several have once in a repository."""
    return sum({digest: size for image in images for digest, size in image.blobs}.values())


def monthly_cost(size: int) -> float:
    """Return what it costs to keep so many bytes for a month (US dollars)."""
    return size / 1e9 * USD_PER_GB_MONTH


def _rule(priority: int, description: str, status: str, days: int) -> dict[str, Any]:
    selection = {"tagStatus": status, "countType": "sinceImagePushed", "countUnit": "days", "countNumber": days}
    action = {"type": "expire"}
    return {"rulePriority": priority, "description": description, "selection": selection, "action": action}


def _repository_of(reference: str) -> str:
    path = reference.partition("@")[0].partition("/")[2]
    return path.partition(":")[0]


def _names(reference: str, image: StoredImage) -> bool:
    """Whether a reference may mean an image; of which repository it is does not matter."""
    return reference.endswith((f"@{image.digest}", *(f":{tag}" for tag in image.tags)))


def _latest(images: Iterable[StoredImage]) -> list[StoredImage]:
    """Return the latest image of each recipe, the newest first."""
    found: dict[str, StoredImage] = {}
    for image in sorted(images, key=lambda image: image.pushed_at):
        found |= {recipe_of(tag): image for tag in image.tags}
    return sorted({image.digest: image for image in found.values()}.values(), key=lambda i: i.pushed_at, reverse=True)


def _why(image: StoredImage, images: Sequence[StoredImage], now: float, ttl_days: int | None) -> str:
    if any(image.digest in each.children for each in images):
        return "part of an image that goes"
    left = seconds_left(image, now, ttl_days)
    if left is not None and left < 0:
        return "its time is over"
    if not image.tags:
        return "has no tag and is part of nothing"
    latest = newest(images, recipe_of(image.tags[-1]))
    if latest is not None and latest.digest != image.digest:
        return "pushed again since"
    return "nothing uses it"
