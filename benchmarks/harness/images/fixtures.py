"""A base in a registry, an environment, and an image built from them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from benchmarks.harness.images.rootfs import PLATFORMS, locked, rootfs
from dask_starburst.environment.build.base_image import resolve_base
from dask_starburst.environment.build.direct import DirectBuilder
from dask_starburst.environment.build.interface import Destination, Image, Order
from dask_starburst.environment.build.layers import Layer, Layers
from dask_starburst.environment.build.tar import Entry
from dask_starburst.environment.capture import wheels
from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.capture.running import PYTHON
from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.client import Registry
from dask_starburst.environment.resolve.lock import resolve
from dask_starburst.plan.images.recipe import Recipe, recipe_hash

ROOT = Path(__file__).parents[3]
REPOSITORY = "starburst/worker"


@dataclass(frozen=True)
class ImageFixtures:
    """A registry with a base image, and a cache folder."""

    registry: Registry
    base: str
    shared: Path

    @property
    def cache(self) -> Path:
        """The cache that the processes of a test run share."""
        return self.shared / "dask-starburst"  # its name in a user's cache folder

    def order(self, environment: Environment, cache: Path, compression: str = "zstd") -> Order:
        """Resolve an environment for both platforms."""
        base = resolve_base(self.base, cache)
        locks = {platform: resolve(environment, platform, self.shared) for platform in PLATFORMS}
        recipe = Recipe(
            python=environment.python,
            platforms=tuple(PLATFORMS),
            packages={platform: lock.packages for platform, lock in locks.items()},
            wheels=tuple((wheel.name, wheel.version, wheel.digest) for wheel in environment.wheels),
            modules=tuple((module.name, module.digest) for module in environment.modules),
            base=base.reference,
            compression=compression,
        )
        return Order(recipe, environment, locks, base)

    def build(self, order: Order, cache: Path, repository: str = REPOSITORY, tag: str | None = None) -> Built:
        """Build with a separate registry client, as another user's computer would."""
        said: list[tuple[str, Mapping[str, Any]]] = []
        registry = Registry(self.registry.host)
        to = Destination(registry, repository, tag or recipe_hash(order.recipe))
        image = DirectBuilder(cache).build(order, to, lambda kind, facts: said.append((kind, facts)))
        return Built(image, order, registry, repository, said)


@dataclass(frozen=True)
class Built:
    """An image, with the reports of its build."""

    image: Image
    order: Order
    registry: Registry
    repository: str
    said: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)

    def manifest(self, platform: str) -> documents.Manifest:
        """Return the manifest of a platform."""
        index = self.registry.manifest(self.repository, self.image.digest)
        assert index is not None
        found = self.registry.manifest(self.repository, documents.choose(index, platform).digest)
        assert found is not None
        return found

    def layers(self, platform: str) -> tuple[documents.Descriptor, ...]:
        """Return the layers of a platform, the lowest first."""
        return documents.layers_of(self.manifest(platform))

    def made(self, platform: str) -> list[str]:
        """The names of layers that were not cached."""
        return [f["name"] for kind, f in self.said if kind == "layer" and f["platform"] == platform and not f["kept"]]


def layer_of(folder: Path, files: Mapping[str, bytes]) -> Layer:
    """A gzip layer with these files, as base images have."""
    entries = [Entry(name, data) for name, data in files.items()]
    return Layers(folder / "made", "gzip").get(str(sorted(files.items())), lambda work: entries)[0]


def push_image(registry: Registry, repository: str, layers: Mapping[str, Sequence[Layer]], tag: str = "latest") -> str:
    """Push a base image with the layers of each platform; return its name.

    It has an entry point, which builders must drop. With a single platform there is no index.
    """
    manifests = []
    for platform, made in layers.items():
        system, architecture = platform.split("/")
        config = documents.canonical(
            {
                "architecture": architecture,
                "os": system,
                "config": {"Env": ["PATH=/usr/bin:/bin", "LANG=C.UTF-8"], "Entrypoint": ["/bin/false"], "User": "root"},
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in made]},
            }
        )
        described = documents.Descriptor(documents.CONFIG, documents.digest_of(config), len(config))
        registry.push_blob(repository, described.digest, config)
        for layer in made:
            registry.push_blob(repository, layer.digest, layer.path)
        manifest = documents.manifest(described, [layer.descriptor for layer in made])
        registry.put_manifest(repository, manifest.digest if len(layers) > 1 else tag, manifest)
        manifests.append(documents.Descriptor(manifest.media_type, manifest.digest, len(manifest.body), platform))
    if len(layers) > 1:
        registry.put_manifest(repository, tag, documents.index(manifests))
    return f"{registry.host}/{repository}:{tag}"


def pins(*but: str) -> tuple[str, ...]:
    """Pins of the test environment's packages, except some."""
    names = ((d.metadata["Name"].lower(), d.version) for d in distributions())
    return tuple(sorted(f"{name}=={version}" for name, version in names if name not in but))


def worker_environment(cache: Path) -> Environment:
    """A worker's environment: this repository's dask_starburst and its dependencies."""
    wheel = wheels.of_folder(ROOT, cache, "editable")
    return Environment(PYTHON, ("distributed",), pins("dask-starburst"), wheels=(wheel,))


def debian_base(registry: Registry, shared: Path) -> ImageFixtures:
    """Push Debian's Python as the base image, and return the fixtures."""
    layers = {platform: [made.as_layer] for platform, made in rootfs(shared / "base").items()}
    return ImageFixtures(registry, push_image(registry, "base/python", layers, PYTHON), shared)


def fake_base(registry: Registry, shared: Path) -> ImageFixtures:
    """Push a base that looks like one with a Python, but cannot be run."""
    library = f"usr/local/lib/python{PYTHON}"
    program = f"usr/local/bin/python{PYTHON}"
    files = {"etc/passwd": b"root:x:0:0::/root:/bin/sh\n", f"{library}/json/decoder.py": b"a = 1\n"}
    layers = {
        platform: [layer_of(shared, {**files, program: random.Random(platform).randbytes(3 << 20)})]
        for platform in PLATFORMS
    }
    return ImageFixtures(registry, push_image(registry, "base/fake", layers, PYTHON), shared)


def worker_image(image_fixtures: ImageFixtures) -> Built:
    """Build a worker image; the processes of a test run share its layers."""
    cache = image_fixtures.cache
    with locked(image_fixtures.shared / "building"):
        order = image_fixtures.order(worker_environment(cache), cache)
        return image_fixtures.build(order, cache)
