"""Lifecycle policies of the embedded ECR, after "Lifecycle policy evaluation rules" in the ECR user guide.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html
"""

from __future__ import annotations

import json
from collections import defaultdict
from fnmatch import fnmatchcase
from typing import Any

_DAY = 24 * 3600


def expired(repository: Any, now: float) -> list[Any]:
    """Return the images of a moto repository that its policy expires at a time.

    An image in a manifest list stays as long as the list: call this again after deleting the returned
    images.
    """
    if not repository.lifecycle_policy:
        return []
    rules = sorted(json.loads(repository.lifecycle_policy)["rules"], key=lambda rule: int(rule["rulePriority"]))
    held = references(repository)
    decided: set[str] = set()
    gone: list[Any] = []
    for rule in rules:
        selection = rule["selection"]
        selected = [image for image in repository.images if _selects(selection, image)]
        over = _over(selection, selected, now)
        gone += [image for image in over if image.image_digest not in decided and image.image_digest not in held]
        # An image selected by one rule cannot be expired by a rule of lower priority.
        decided |= {image.image_digest for image in selected}
    return gone


def references(repository: Any) -> dict[str, list[str]]:
    """Return the digests of the manifest lists of each image, by the image's digest."""
    found: dict[str, list[str]] = defaultdict(list)
    for image in repository.images:
        for part in json.loads(image.image_manifest).get("manifests", []):
            found[part["digest"]].append(image.image_digest)
    return dict(found)


def _selects(selection: dict[str, Any], image: Any) -> bool:
    match selection["tagStatus"]:
        case "any":
            return True
        case "untagged":
            return not image.image_tags
    # Each of a rule's prefixes or patterns must match at least one tag.
    patterns = [*selection.get("tagPatternList", []), *(f"{each}*" for each in selection.get("tagPrefixList", []))]
    return bool(image.image_tags) and all(
        any(fnmatchcase(tag, pattern) for tag in image.image_tags) for pattern in patterns
    )


def _over(selection: dict[str, Any], selected: list[Any], now: float) -> list[Any]:
    number = int(selection["countNumber"])
    if selection["countType"] == "sinceImagePushed":
        return [image for image in selected if now - image.image_pushed_at > number * _DAY]
    newest_first = sorted(selected, key=lambda image: image.image_pushed_at, reverse=True)
    return newest_first[number:]
