"""The builder that needs no Docker and no emulation: it puts layers together and pushes them, all of it in Python.

Packages come as wheels, which `uv` takes for whichever platform it is told. So nothing of the image is run while it is
built, and both platforms take the same time.
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
from dask_starburst.environment.build.base_image import Ground, Part
from dask_starburst.environment.build.interface import Destination, Image, Order, Report
from dask_starburst.environment.build.bytecode import COMPILER, Bytecode
from dask_starburst.paths import cache_dir
from dask_starburst.environment.build.layer_groups import LAYOUT, Group, grouped
from dask_starburst.environment.build.layers import Layer, Layers
from dask_starburst.environment.build.push import LAYER, RECIPE, TAG, Pushing
from dask_starburst.environment.build.venv_layout import VENV, packages, skeleton
from dask_starburst.errors import BadArgument
from dask_starburst.plan.images.recipe import TEMPLATE, recipe_hash

#: Who the worker is in the container.
USER = 1000
HOME = "home/dask"
#: The same for all: the digest of the configuration is of it, too.
_CREATED = "1970-01-01T00:00:00Z"
#: Layers that are made or sent side by side.
_AT_ONCE = 4


class DirectBuilder:
    """Builds by putting layers together.

    Parameters
    ----------
    cache : Path, optional
        Where what was made and fetched is kept for the next time; the user's cache folder if left out.
    """

    name = "direct"
    template = TEMPLATE

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache or cache_dir()

    def build(self, order: Order, to: Destination, report: Report) -> Image:
        """Build what is ordered, and give it its tag as the last thing, when all of it is there.

        What the registry has is not sent, and what this computer made before is not made again; so a build that was
        interrupted goes on where it was. Reported are ``"base"`` (`platform`, `bytes` to fetch, `text`), ``"layer"``
        (`platform`, `name`, `bytes`, whether it was `kept` from before, which one it is in `of`: so many of so many),
        and ``"sent"`` (`bytes` and `total`, of what is known to be missing so far).

        Raises
        ------
        BadArgument
            It is for another Python than the one that this runs in, which compiles its files.
        ImageError
            It could not be built or pushed. Nothing half-made has the tag.
        """
        _check_python(order.recipe.python)
        begin, before = time.monotonic(), to.registry.uploaded
        build = _Build(order, Pushing(to, report), self._cache)
        build.layers()
        digest = build.publish()
        build.tidy()
        return Image(
            reference=f"{to.registry.host}/{to.repository}@{digest}",
            tag=to.tag,
            digest=digest,
            platforms=tuple(order.recipe.platforms),
            bytes_uploaded=to.registry.uploaded - before,
            seconds=time.monotonic() - begin,
        )


class _Build:
    """One build, and what has come of its layers so far."""

    def __init__(self, order: Order, pushing: Pushing, cache: Path) -> None:
        self._order = order
        self._base = order.base
        self._python = order.recipe.python
        self._platforms = tuple(order.recipe.platforms)
        self._pushing = pushing
        self._layers = Layers(cache / "layers", order.recipe.compression)
        self._bytecode = Bytecode(cache / "bytecode")
        self._groups = {p: grouped(order.locks[p], order.environment) for p in self._platforms}
        # By platform and name: what stands on the base, as soon as it is made.
        self._made: dict[str, dict[str, Layer]] = {platform: {} for platform in self._platforms}

    def layers(self) -> None:
        """Make and push all layers.

        Each kind is made for one platform after the other: most of what was compiled for the first does for the second.
        """
        alike: dict[str, list[Group]] = defaultdict(list)
        for group in (group for groups in self._groups.values() for group in groups):
            alike[group.name].append(group)
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="image") as pool:
            submit = partial(cancellation.submit, pool)
            jobs = [submit(self._foundation), *(submit(self._packages, groups) for groups in alike.values())]
            jobs += [submit(self._bring, platform) for platform in self._platforms]
            _finish(jobs)

    def publish(self) -> str:
        """Push the platforms' manifests, and as the last thing of all the index that names them, by its tag."""
        manifests = [self._manifest(platform) for platform in self._platforms]
        labels, tag = self._labels(), self._pushing.destination.tag
        # ECR counts an image's days from its first push: one that is to live anew must not be the same as the old one.
        new = {} if tag == labels[RECIPE] else {TAG: tag}
        return self._pushing.tag(documents.index(manifests, labels | new))

    def tidy(self) -> None:
        """Drop what no build has used for long."""
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

    def _foundation(self) -> None:
        for platform in self._platforms:
            if size := self._base.to_fetch(platform, self._python):
                text = f"fetching {self._base.name} for {platform}"
                self._pushing.report("base", {"platform": platform, "bytes": size, "text": text})
            ground = self._base.ground(platform, self._python)
            self._take(platform, "system", *self._system(ground))
            library = self._base.standard_library(platform, self._python, self._layers, self._bytecode)
            self._take(platform, "standard library", *library)

    def _bring(self, platform: str) -> None:
        for layer in self._base.part(platform).layers:
            self._pushing.foreign(layer, self._base)

    def _packages(self, groups: Iterable[Group]) -> None:
        for group in groups:
            files = partial(packages, group, self._python, bytecode=self._bytecode)
            layer, kept = self._layers.get(f"packages {COMPILER} {group.key}", files)
            self._take(group.lock.platform, group.name, layer, kept)

    def _system(self, ground: Ground) -> tuple[Layer, bool]:
        entries = tuple(_system(self._python, ground))
        return self._layers.get(f"system {LAYOUT} {entries}", lambda work: entries)

    def _take(self, platform: str, name: str, layer: Layer, kept: bool) -> None:
        self._made[platform][name] = layer
        of = sum(map(len, self._made.values())), sum(len(groups) + 2 for groups in self._groups.values())
        facts = {"platform": platform, "name": name, "bytes": layer.size, "kept": kept, "of": of}
        self._pushing.report("layer", facts)
        self._pushing.layer(layer)

    def _config(self, part: Part, own: list[Layer]) -> dict[str, Any]:
        """Return what a container engine is to know, beginning with what the base says."""
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
            f"the direct builder compiles what it installs with the Python that it runs in, {ours}, and the image is to"
            f" have Python {python}; run it with Python {python}, or give build.builder='buildx'."
        )


def _environment(inherited: Mapping[str, str]) -> dict[str, str]:
    path = inherited.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    own = {
        "PATH": f"/{VENV}/bin:{path}",
        "HOME": f"/{HOME}",
        "VIRTUAL_ENV": f"/{VENV}",
        # Everything is compiled, and what is not was left out on purpose.
        "PYTHONDONTWRITEBYTECODE": "1",
        # The last lines of a worker that is killed are in its log.
        "PYTHONUNBUFFERED": "1",
    }
    return {**inherited, **own}


def _system(python: str, ground: Ground) -> Iterator[Entry]:
    """Give the user whom the worker runs as, and the virtual environment without packages."""
    for name, text, line in (
        ("passwd", ground.passwd, f"dask:x:{USER}:{USER}::/{HOME}:/bin/sh"),
        ("group", ground.group, f"dask:x:{USER}:"),
    ):
        lines = text.splitlines()
        taken = any(known.split(":")[0] == "dask" or known.split(":")[2:3] == [str(USER)] for known in lines)
        yield Entry(f"etc/{name}", "".join(f"{each}\n" for each in (lines if taken else [*lines, line])).encode())
    yield Entry(HOME, owner=USER)
    yield from skeleton(python, ground.python)


def _finish(jobs: list[Future[None]]) -> None:
    """Wait for all; on the first failure those that have not begun are dropped, and it is raised."""
    try:
        for job in as_completed(jobs):
            job.result()
    except BaseException:  # also an impatient Ctrl-C
        for job in jobs:
            job.cancel()
        raise
