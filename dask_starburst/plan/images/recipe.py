"""What an image is made of, and the hash by which an equal one is found again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

#: The platforms of images, as OCI writes them, by the words that settings use.
PLATFORMS = {"arm64": "linux/arm64", "x86_64": "linux/amd64"}
#: Raised by hand whenever the builders put something else into an image than before.
TEMPLATE = "1"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what comes out.

    Parameters
    ----------
    python : str
        The minor version.
    platforms : tuple of str
        Such as ``"linux/arm64"``.
    packages : mapping of str to tuple of tuple of str
        By platform the name and version of each. Not the hashes of their files: an index may add files to a release.
    wheels : tuple of tuple of str
        Name, version and content of packages that no index has.
    modules : tuple of tuple of str
        Name and content of the user's own modules.
    base : str
        The image that it stands on, by digest.
    compression : str
        Of the layers.
    template : str
        What our builders do beside.
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
    """Return 32 hex digits: equal for equal recipes, on any machine and in any order of their parts."""
    facts = asdict(recipe)
    facts["packages"] = {platform: sorted(map(list, found)) for platform, found in recipe.packages.items()}
    facts["platforms"] = sorted(recipe.platforms)
    for unordered in ("wheels", "modules"):
        facts[unordered] = sorted(map(list, facts[unordered]))
    # Of its name only the digest counts: the same image may be had from several registries.
    facts["base"] = recipe.base.partition("@")[2] or recipe.base
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]
