"""Compare the direct builder with docker buildx on the same recipe: measured, with a real registry and engine.

    python -m benchmarks.image_build

Both install ``dask[complete] distributed numpy pandas pyarrow`` on Debian's Python, for linux/amd64 and linux/arm64,
compile all of it, and push it to a docker-registry on this computer. Buildx emulates the other architecture with
qemu-user. *Cold* is the first build: the caches of uv, docker and dask_starburst are empty, and the base is fetched.
*Unchanged* repeats the same build; *one package* is a build with another toolz. Resolving and fetching uv for the image
are not timed. Packages come from this computer's configured index: a slow one makes the builders more alike.

``unchanged_s`` is the time to find that nothing has changed: capture, resolve and hash this Python's packages, and look
up the tag in the registry. Needs root and mmdebstrap, docker-registry and qemu-user-static, all from Debian; Debian
trixie's docker is extracted for it. The last line is one JSON object.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.arguments import parser
from benchmarks.harness.compare import alternate, median_ratio
from benchmarks.harness.images.engine import Engine, running_engine, why_no_engine
from benchmarks.harness.images.fixtures import ImageFixtures, debian_base, fake_base
from benchmarks.harness.images.registry import serving, why_no_registry
from benchmarks.harness.images.rootfs import PLATFORMS, why_no_rootfs
from benchmarks.harness.report import finish
from benchmarks.harness.unavailable import exits_if_unavailable, require
from dask_starburst.environment.build.base_image import resolve_base
from dask_starburst.environment.build.direct import DirectBuilder
from dask_starburst.environment.build.interface import Builder, Destination, Image, Order
from dask_starburst.environment.buildx.builder import BuildxBuilder
from dask_starburst.environment.buildx.context import uv_for
from dask_starburst.environment.buildx.docker import BUILDER
from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.capture.running import PYTHON
from dask_starburst.environment.image import plan_order
from dask_starburst.environment.registry import documents
from dask_starburst.environment.registry.client import Registry
from dask_starburst.plan.images.recipe import recipe_hash
from dask_starburst.settings import Settings

PACKAGES = ("dask[complete]", "distributed", "numpy", "pandas", "pyarrow")
TOOLZ = ("toolz==1.0.0", "toolz==0.12.1")
Packages = tuple[str, ...]
HERE = "linux/amd64"


@dataclass(frozen=True)
class Run:
    """One build: seconds, bytes added to the registry, and compressed bytes by platform."""

    seconds: float
    pushed: int
    sizes: dict[str, int]

    def __str__(self) -> str:
        sizes = " + ".join(f"{size / 1e6:.1f}" for size in self.sizes.values())
        return f"{self.seconds:8.1f} s {self.pushed / 1e6:9.1f} MB pushed   image {sizes or '–'} MB"


#: The builds of one round, by kind.
Builds = dict[str, Run]


class Bench:
    """A registry with a base, and the builders."""

    def __init__(
        self, folder: Path, image_fixtures: ImageFixtures, data: Path, engine: Engine | None, packages: Packages
    ) -> None:
        self._folder = folder
        self._fixtures = image_fixtures
        self._data = data
        self.engine = engine
        self._direct_rounds, self._buildx_rounds = count(), count()
        self._full, self._changed = (Environment(PYTHON, (*packages, toolz), ()) for toolz in TOOLZ)
        self._orders = {each: image_fixtures.order(each, image_fixtures.shared) for each in (self._full, self._changed)}

    def order(self, environment: Environment, cache: Path, platforms: tuple[str, ...]) -> Order:
        """Return an order whose base is fetched into the builder's cache."""
        order = self._orders[environment]
        recipe = replace(order.recipe, platforms=platforms)
        return replace(order, recipe=recipe, base=resolve_base(self._fixtures.base, cache))

    def run(
        self, builder: Builder, environment: Environment, cache: Path, to: str, *platforms: str, what: str = ""
    ) -> Run:
        """Build, and print the time and bytes."""
        order = self.order(environment, cache, platforms or tuple(PLATFORMS))
        registry = Registry(self._fixtures.registry.host)
        before, begin = _bytes_in(self._data), time.monotonic()
        image = builder.build(order, Destination(registry, to, recipe_hash(order.recipe)), lambda kind, facts: None)
        seconds = time.monotonic() - begin
        done = Run(seconds, _bytes_in(self._data) - before, _sizes(registry, to, image))
        print(f"{builder.name:8}{what:34}{done}", flush=True)
        return done

    def direct(self) -> Builds:
        """Run the direct builder: cold, unchanged, one package changed, and for this computer's platform only."""
        round_ = next(self._direct_rounds)
        with self._fresh("direct") as cache:
            builds = self._whole(DirectBuilder(cache), cache, f"direct/{round_}")
        with self._fresh("direct") as cache:
            return builds | self._alone(DirectBuilder(cache), cache, f"alone/{round_}")

    def buildx(self, engine: Engine) -> Builds:
        """Run the same builds with docker."""
        round_ = next(self._buildx_rounds)
        with self._fresh("buildx") as cache:
            for platform in PLATFORMS:
                uv_for(platform, self._fixtures.shared)
            (cache / "uv").symlink_to(self._fixtures.shared / "uv")
            builder = BuildxBuilder(options=engine.options, cache=cache)
            _empty(engine)
            builds = self._whole(builder, cache, f"buildx/{round_}")
            _empty(engine)
            return builds | self._alone(builder, cache, f"alonex/{round_}")

    def _whole(self, builder: Builder, cache: Path, to: str) -> Builds:
        return {
            "cold": self.run(builder, self._full, cache, to, what="cold"),
            "unchanged": self.run(builder, self._full, cache, to, what="unchanged"),
            "one": self.run(builder, self._changed, cache, to, what="one package changed"),
        }

    def _alone(self, builder: Builder, cache: Path, to: str) -> Builds:
        return {"alone": self.run(builder, self._full, cache, to, HERE, what=f"cold, {HERE} only")}

    def decide(self) -> float:
        """Return the median seconds to find that nothing has changed, with a warm cache."""
        settings = Settings.load(build={"base": self._fixtures.base})
        registry, times = Registry(self._fixtures.registry.host), []
        for _ in range(4):
            begin = time.monotonic()
            order = plan_order(settings, lambda event: None)
            registry.manifest("direct/0", recipe_hash(order.recipe))
            times.append(time.monotonic() - begin)
        print(f"find that nothing has changed: {', '.join(f'{t:.2f}' for t in times[1:])} s with a warm cache,")
        print(f"{times[0]:.1f} s with a cold one", flush=True)
        return median(times[1:])

    @contextmanager
    def _fresh(self, name: str) -> Iterator[Path]:
        """Yield an empty cache for a builder, with another for uv."""
        with (
            tempfile.TemporaryDirectory(dir=self._folder, prefix=name) as cache,
            _variable("UV_CACHE_DIR", f"{cache}/u"),
        ):
            yield Path(cache)


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _empty(engine: Engine) -> None:
    engine.docker("buildx", "prune", "--builder", BUILDER, "--all", "--force")
    engine.docker("image", "prune", "--all", "--force")


def _bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in (folder / "docker/registry/v2/blobs").rglob("data"))


def _sizes(registry: Registry, repository: str, image: Image) -> dict[str, int]:
    found = registry.manifest(repository, image.digest)
    assert found is not None
    if not found.is_index:
        return {image.platforms[0]: sum(layer.size for layer in documents.layers_of(found))}
    parts = {each.platform or "": registry.manifest(repository, each.digest) for each in documents.manifests_of(found)}
    return {
        platform: sum(layer.size for layer in documents.layers_of(part)) for platform, part in parts.items() if part
    }


def _ratio(these: list[Run], those: list[Run], of: Callable[[Run], float]) -> float | None:
    """Return the median of the rounds' ratios; None without builds, or if those have pushed nothing."""
    pairs = [(of(this), of(that)) for this, that in zip(these, those, strict=False) if of(that)]
    return round(median_ratio(*zip(*pairs, strict=True)), 3) if pairs else None


def measure(bench: Bench, repeat: int, decide: bool) -> dict[str, Any]:
    """Run all builds in turns, and return the JSON line's content."""
    programs: dict[str, Callable[[], Builds]] = {"direct": bench.direct}
    if bench.engine:
        programs["buildx"] = partial(bench.buildx, bench.engine)
    rounds = alternate(programs, repeat)
    direct = _by_kind(rounds["direct"])
    buildx = _by_kind(rounds.get("buildx", []))

    def seconds(run: Run) -> float:
        return run.seconds

    def pushed(run: Run) -> float:
        return run.pushed

    return {
        "repeat": repeat,
        # Speed of the direct builder relative to buildx.
        "direct_over_buildx_cold": _ratio(buildx["cold"], direct["cold"], seconds),
        "direct_over_buildx_cold_without_emulation": _ratio(buildx["alone"], direct["alone"], seconds),
        "unchanged_s": round(bench.decide(), 2) if decide else None,
        "one_package_over_full": _ratio(direct["one"], direct["cold"], seconds),
        "one_package_over_full_bytes": _ratio(direct["one"], direct["cold"], pushed),
        "buildx_one_package_over_full": _ratio(buildx["one"], buildx["cold"], seconds),
        "direct": {kind: _summary(found) for kind, found in direct.items()},
        "buildx": {kind: _summary(found) for kind, found in buildx.items() if found},
    }


def _by_kind(rounds: list[Builds]) -> dict[str, list[Run]]:
    return {kind: [builds[kind] for builds in rounds] for kind in ("cold", "unchanged", "one", "alone")}


def _summary(found: list[Run]) -> dict[str, object]:
    return {
        "seconds": round(median(run.seconds for run in found), 2),
        "pushed_mb": round(median(run.pushed for run in found) / 1e6, 1),
        "image_mb": {platform: round(size / 1e6, 1) for platform, size in found[-1].sizes.items()},
    }


def main() -> None:
    """Print each build, then the JSON line."""
    chosen = parser(__doc__, repeat=1).parse_args()
    with exits_if_unavailable(), ExitStack() as stack:
        require("" if chosen.smallest else why_no_rootfs(), why_no_registry())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="image-build-")))
        stack.enter_context(_variable("XDG_CACHE_HOME", str(folder / "cache")))
        (folder / "registry").mkdir()
        host = stack.enter_context(serving(folder / "registry"))
        (folder / "image_fixtures").mkdir()
        make_base = fake_base if chosen.smallest else debian_base  # builds run nothing of the base
        image_fixtures = make_base(Registry(host), folder / "image_fixtures")
        engine = None
        if missing := "omitted at the smallest size" if chosen.smallest else why_no_engine():
            print(f"buildx skipped: {missing}")
        else:
            engine = stack.enter_context(running_engine(folder / "engine"))
            for name, value in engine.environment.items():
                stack.enter_context(_variable(name, value))
        packages = () if chosen.smallest else PACKAGES
        bench = Bench(folder, image_fixtures, folder / "registry/data", engine, packages)
        finish("image_build", simulated=False, **measure(bench, chosen.repeat, decide=not chosen.smallest))


if __name__ == "__main__":
    main()
