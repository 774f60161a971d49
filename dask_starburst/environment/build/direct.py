"""The builder without Docker and emulation: it writes and pushes layers, all of it in Python.

Packages are wheels, which `uv` installs for any platform. So nothing of the image runs during the build, and both
platforms take the same time.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from dask_starburst.environment.tools import cancellation
from dask_starburst.environment.registry import documents
from dask_starburst.environment.build.tar import Entry
from dask_starburst.environment.build.base_image import BaseFacts, Part
from dask_starburst.environment.build.interface import Destination, Image, Order, Report
from dask_starburst.environment.build.bytecode import COMPILER, Bytecode
from dask_starburst.paths import cache_dir
from dask_starburst.environment.build.layer_groups import LAYOUT, LayerGroup, group_packages
from dask_starburst.environment.build.layers import Layer, Layers
from dask_starburst.environment.build.push import LAYER, RECIPE, TAG, ImagePush
from dask_starburst.environment.build.venv_layout import VENV, packages, skeleton
from dask_starburst.errors import BadArgument
from dask_starburst.plan.images.recipe import TEMPLATE, recipe_hash

#: The worker's user ID in the container.
USER = 1000
HOME = "home/dask"
#: Constant, because the digest of the configuration covers it.
_CREATED = "1970-01-01T00:00:00Z"
#: Number of layers that are built or pushed concurrently.
_AT_ONCE = 4


class DirectBuilder:
    """Build images by writing their layers.

    Parameters
    ----------
    cache : Path, optional
        Cache folder; default: the user's.
    """

    name = "direct"
    template = TEMPLATE

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache or cache_dir()

    def build(self, order: Order, to: Destination, report: Report) -> Image:
        """Build and push an image; tag it last, when it is complete.

        Blobs that the registry has are not pushed, and cached layers are not rebuilt, so an interrupted build
        continues where it stopped. Reports are ``"base"`` (`platform`, `bytes` to fetch, `text`), ``"layer"``
        (`platform`, `name`, `bytes`, whether it was cached as `kept`, its number and their total as `of`), and
        ``"sent"`` (`bytes` and `total`, of the blobs known to be missing so far).

        Raises
        ------
        BadArgument
            The image is for another Python version than the running one, which compiles its files.
        ImageError
            The build or push failed. An incomplete image has no tag.
        """
        _check_python(order.recipe.python)
        begin, before = time.monotonic(), to.registry.uploaded
        build = _Build(order, ImagePush(to, report), self._cache)
        build.layers()
        digest = build.publish()
        build.prune()
        return Image(
            reference=f"{to.registry.host}/{to.repository}@{digest}",
            tag=to.tag,
            digest=digest,
            platforms=tuple(order.recipe.platforms),
            bytes_uploaded=to.registry.uploaded - before,
            seconds=time.monotonic() - begin,
        )


class _Build:
    """One build and its layers so far."""

    def __init__(self, order: Order, pushing: ImagePush, cache: Path) -> None:
        self._order = order
        self._base = order.base
        self._python = order.recipe.python
        self._platforms = tuple(order.recipe.platforms)
        self._pushing = pushing
        self._layers = Layers(cache / "layers", order.recipe.compression)
        self._bytecode = Bytecode(cache / "bytecode")
        self._groups = {p: group_packages(order.locks[p], order.environment) for p in self._platforms}
        # Finished layers above the base, by platform and name.
        self._made: dict[str, dict[str, Layer]] = {platform: {} for platform in self._platforms}

    def layers(self) -> None:
        """Build and push all layers.

        Each group is built for one platform after the other: most bytecode of the first is reused for the second.
        """
        by_name: dict[str, list[LayerGroup]] = defaultdict(list)
        for group in (group for groups in self._groups.values() for group in groups):
            by_name[group.name].append(group)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="image") as pool:
            submit = partial(cancellation.submit, pool)
            jobs = [submit(self._base_layers), *(submit(self._packages, groups) for groups in by_name.values())]
            jobs += [submit(self._push_base, platform) for platform in self._platforms]
            _finish(jobs)

    def publish(self) -> str:
        """Push the platforms' manifests, and last the index, by its tag."""
        manifests = [self._manifest(platform) for platform in self._platforms]
        labels, tag = self._labels(), self._pushing.destination.tag
        # ECR counts an image's age from its first push: a rebuilt image needs another digest than the old one.
        new = {} if tag == labels[RECIPE] else {TAG: tag}
        return self._pushing.tag(documents.index(manifests, labels | new))

    def prune(self) -> None:
        """Delete unused files from the cache."""
        self._layers.prune()
        self._bytecode.prune()
        self._base.prune()

    def _manifest(self, platform: str) -> documents.Descriptor:
        part, made = self._base.part(platform), self._made[platform]
        names = ("system", "standard library", *(group.name for group in self._groups[platform]))
        config = self._pushing.config(documents.canonical(self._config(part, [made[name] for name in names])))
        own = [replace(made[name].descriptor, annotations={LAYER: name}) for name in names]
        manifest = documents.manifest(config, [*map(documents.as_oci, part.layers), *own], self._labels())
        return self._pushing.manifest(manifest, platform)

    def _base_layers(self) -> None:
        for platform in self._platforms:
            if size := self._base.to_fetch(platform, self._python):
                text = f"fetching {self._base.name} for {platform}"
                self._pushing.report("base", {"platform": platform, "bytes": size, "text": text})
            facts = self._base.facts(platform, self._python)
            self._add(platform, "system", *self._system(facts))
            library = self._base.standard_library(platform, self._python, self._layers, self._bytecode)
            self._add(platform, "standard library", *library)

    def _push_base(self, platform: str) -> None:
        for layer in self._base.part(platform).layers:
            self._pushing.base_layer(layer, self._base)

    def _packages(self, groups: Iterable[LayerGroup]) -> None:
        for group in groups:
            files = partial(packages, group, self._python, bytecode=self._bytecode)
            layer, kept = self._layers.get(f"packages {COMPILER} {group.key}", files)
            self._add(group.lock.platform, group.name, layer, kept)

    def _system(self, facts: BaseFacts) -> tuple[Layer, bool]:
        entries = tuple(_system(self._python, facts))
        return self._layers.get(f"system {LAYOUT} {entries}", lambda work: entries)

    def _add(self, platform: str, name: str, layer: Layer, kept: bool) -> None:
        self._made[platform][name] = layer
        of = sum(map(len, self._made.values())), sum(len(groups) + 2 for groups in self._groups.values())
        facts = {"platform": platform, "name": name, "bytes": layer.size, "kept": kept, "of": of}
        self._pushing.report("layer", facts)
        self._pushing.layer(layer)

    def _config(self, part: Part, own: list[Layer]) -> dict[str, Any]:
        """Return the image's configuration, which extends that of the base."""
        base = part.config.get("config") or {}
        inherited = dict(pair.split("=", 1) for pair in base.get("Env") or ())
        return {
            "architecture": part.config["architecture"],
            "os": part.config["os"],
            **({"variant": part.config["variant"]} if "variant" in part.config else {}),
            "created": _CREATED,
            "config": {
                "Env": [f"{name}={value}" for name, value in _environment(inherited).items()],
                "Cmd": ["python"],
                "User": f"{USER}:{USER}",
                "WorkingDir": f"/{HOME}",
                "StopSignal": "SIGTERM",
                "Labels": {**(base.get("Labels") or {}), **self._labels()},
            },
            "rootfs": {"type": "layers", "diff_ids": [*part.diff_ids, *(layer.diff_id for layer in own)]},
        }

    def _labels(self) -> dict[str, str]:
        return {
            "org.opencontainers.image.title": "dask_starburst worker",
            "org.opencontainers.image.base.name": self._base.name,
            "org.opencontainers.image.base.digest": self._base.digest,
            RECIPE: recipe_hash(self._order.recipe),
        }


def _check_python(python: str) -> None:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if python != ours:
        raise BadArgument(
            f"the direct builder compiles packages with the running Python, {ours}, but the image needs Python"
            f" {python}; run it with Python {python}, or give build.builder='buildx'."
        )


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    path = inherited.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    own = {
        "PATH": f"/{VENV}/bin:{path}",
        "HOME": f"/{HOME}",
        "VIRTUAL_ENV": f"/{VENV}",
        # All modules are compiled, except those left out on purpose.
        "PYTHONDONTWRITEBYTECODE": "1",
        # Keeps the last lines in the log of a worker that is killed.
        "PYTHONUNBUFFERED": "1",
    }
    return {**inherited, **own}


def _system(python: str, facts: BaseFacts) -> Iterator[Entry]:
    """Yield the worker's user, and the virtual environment without packages."""
    for name, text, line in (
        ("passwd", facts.passwd, f"dask:x:{USER}:{USER}::/{HOME}:/bin/sh"),
        ("group", facts.group, f"dask:x:{USER}:"),
    ):
        lines = text.splitlines()
        taken = any(known.split(":")[0] == "dask" or known.split(":")[2:3] == [str(USER)] for known in lines)
        yield Entry(f"etc/{name}", "".join(f"{each}\n" for each in (lines if taken else [*lines, line])).encode())
    yield Entry(HOME, owner=USER)
    yield from skeleton(python, facts.python)


def _finish(jobs: list[Future[None]]) -> None:
    """Wait for all jobs; on the first failure, cancel the pending ones and raise it."""
    try:
        for job in as_completed(jobs):
            job.result()
    except BaseException:  # including KeyboardInterrupt
        for job in jobs:
            job.cancel()
        raise
