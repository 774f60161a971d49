"""Lifecycle policies of the embedded ECR, as "Lifecycle policy evaluation rules" of the ECR user guide has them.

https://docs.aws.amazon.com/AmazonECR/latest/userguide/LifecyclePolicies.html
"""

from __future__ import annotations

import json
from collections import defaultdict
from fnmatch import fnmatchcase
from typing import Any

_DAY = 24 * 3600


def expired(repository: Any, now: float) -> list[Any]:
    """Return the images of one of moto's repositories that its policy expires at a time.

    An image that a manifest list names stays for as long as the list does: call this again once those are gone that
    it has returned.
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
        # What one rule has selected, none of lower priority may expire.
        decided |= {image.image_digest for image in selected}
    return gone


def references(repository: Any) -> dict[str, list[str]]:
    """Return by the digest of each image that is in a manifest list the digests of those lists."""
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
    # All of a rule's prefixes or patterns must be there, each on some tag.
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
