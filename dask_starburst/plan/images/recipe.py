"""The recipe of an image, and its hash, by which an equal image is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

#: Platforms in OCI's notation, by the architecture names of settings.
PLATFORMS = {"arm64": "linux/arm64", "x86_64": "linux/amd64"}
#: Increment when the builders change the content of images.
TEMPLATE = "1"


@dataclass(frozen=True, slots=True)
class Recipe:
    """All inputs of an image.

    Parameters
    ----------
    python : str
        The minor version.
    platforms : tuple of str
        Such as ``"linux/arm64"``.
    packages : mapping of str to tuple of tuple of str
        Name and version of each package, by platform. Not the hashes of files: an index may add files to a release.
    wheels : tuple of tuple of str
        Name, version and content hash of local wheels.
    modules : tuple of tuple of str
        Name and content hash of the user's own modules.
    base : str
        The base image, by digest.
    compression : str
        Compression of the layers.
    template : str
        Version of the builder's own steps.
    """

    python: str
    platforms: tuple[str, ...]
    packages: Mapping[str, tuple[tuple[str, str], ...]]
    wheels: tuple[tuple[str, str, str], ...]
    modules: tuple[tuple[str, str], ...]
    base: str
    compression: str = "zstd"
    template: str = TEMPLATE


def recipe_hash(recipe: Recipe) -> str:
    """Return 32 hex digits, equal for equal recipes on any computer and in any order of their parts."""
    facts = asdict(recipe)
    facts["packages"] = {platform: sorted(map(list, found)) for platform, found in recipe.packages.items()}
    facts["platforms"] = sorted(recipe.platforms)
    for unordered in ("wheels", "modules"):
        facts[unordered] = sorted(map(list, facts[unordered]))
    # Only the digest of the base: several registries may have the same image.
    facts["base"] = recipe.base.partition("@")[2] or recipe.base
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]
