"""Time the start of a worker from its image, with and without compiled files: measured, with a real container runtime.

    python -m benchmarks.image_start

The direct builder builds an image of Debian's Python, distributed and dask_starburst; runc runs it from a folder, so
the times exclude a pull. Three copies of the image are compared: as built; without the compiled files of the standard
library, like official images; and without any compiled files, like an official image with packages installed by
``--no-compile``. Timed are ``dask worker --version``, and the time from the start of the container until the worker
registers with a scheduler on this computer, with and without its nanny. Files are in the page cache. Needs root, runc,
mmdebstrap and docker-registry, all from Debian. The last line is one JSON object.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from distributed import Client, LocalCluster

from benchmarks.harness.arguments import parser
from benchmarks.harness.compare import alternate
from benchmarks.harness.images.containers import run, started, unpack, why_not
from benchmarks.harness.images.fixtures import debian_base, worker_image
from benchmarks.harness.images.registry import serving, why_no_registry
from benchmarks.harness.images.rootfs import PLATFORMS, why_no_rootfs
from benchmarks.harness.report import Table, finish
from benchmarks.harness.unavailable import exits_if_unavailable, require
from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.capture.running import PYTHON
from dask_starburst.environment.registry.client import Registry

VERSION = ("python", "-m", "distributed.cli.dask_worker", "--version")
WORKER = ("python", "-m", "distributed.cli.dask_worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard")
#: Copies of the image, and the folders whose compiled files are removed.
LACKING = {"all compiled": (), "no library": ("usr/lib", "usr/local/lib"), "none compiled": ("usr", "opt")}

Measures = dict[str, Callable[[Path, dict[str, Any]], float]]


def copies(folder: Path, keep: Path, registry: Registry, small: bool) -> tuple[dict[str, Path], dict[str, Any]]:
    """Build the image and extract it once for each variant; return their folders and the configuration."""
    image_fixtures = debian_base(registry, keep)
    platform = next(name for name, architecture in PLATFORMS.items() if not why_not(architecture))
    if small:
        order = image_fixtures.order(Environment(PYTHON, ("toolz",), ()), image_fixtures.cache)
        order = replace(order, recipe=replace(order.recipe, platforms=(platform,)))
        built = image_fixtures.build(order, image_fixtures.cache)
    else:
        built = worker_image(image_fixtures)
    found, config = {}, {}
    for name, lacking in LACKING.items():
        if small and name == "no library":
            continue
        found[name] = folder / name.replace(" ", "-")
        config = unpack(built.registry, built.repository, built.manifest(platform).digest, found[name])
        for part in lacking:
            for compiled in (found[name] / "rootfs" / part).rglob("*.pyc"):
                compiled.unlink()
    return found, config


def version(folder: Path, config: dict[str, Any]) -> float:
    """Return the seconds of ``dask worker --version``."""
    return ran(folder, config, VERSION)


def small(folder: Path, config: dict[str, Any]) -> float:
    """Return the seconds of a small import."""
    return ran(folder, config, ["python", "-c", "import toolz"])


def ran(folder: Path, config: dict[str, Any], command: Sequence[str]) -> float:
    """Return the seconds of a command in a container."""
    begin = time.monotonic()
    status, said = run(folder, config, command)
    if status:
        sys.exit(f"the image does not run:\n{said}")
    return time.monotonic() - begin


def join(client: Client, *more: str) -> Callable[[Path, dict[str, Any]], float]:
    """Return a function that measures the seconds until a worker joins."""

    def measure(folder: Path, config: dict[str, Any]) -> float:
        begin = time.monotonic()
        with started(folder, config, [*WORKER, *more, client.scheduler.address]) as container:
            client.wait_for_workers(1, timeout=120)
            seconds = time.monotonic() - begin
            container.signal(signal.SIGTERM)
            container.wait(30)
        while client.scheduler_info()["workers"]:
            time.sleep(0.05)
        return seconds

    return measure


@contextmanager
def scheduler() -> Iterator[Client]:
    """Run a scheduler without workers."""
    with (
        LocalCluster(n_workers=0, protocol="tcp", host="127.0.0.1", dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def seconds(
    measures: Measures, found: Mapping[str, Path], config: dict[str, Any], repeat: int
) -> dict[str, dict[str, float]]:
    """Run all measurements with each copy in turn, print medians, and return them."""
    title = f"median seconds of {repeat}"
    table = Table({title: "<24"} | dict.fromkeys(found, ">15.2f") | {"ratio": ">8.1f"})
    medians = {}
    for what, measure in measures.items():
        programs = {copy: partial(measure, folder, config) for copy, folder in found.items()}
        medians[what] = {copy: median(times) for copy, times in alternate(programs, repeat, warm_up=True).items()}
        table.row(what, *medians[what].values(), ratio(medians[what]))
    return medians


def ratio(medians: Mapping[str, float]) -> float:
    """Return the effect of compiled files."""
    return medians["none compiled"] / medians["all compiled"]


def main() -> None:
    """Print the medians for each copy of the image, then the JSON line."""
    options = parser(__doc__, repeat=5)
    options.add_argument("--keep", type=Path, help="folder with the image's inputs, reused by later runs")
    chosen = options.parse_args()
    smallest: bool = chosen.smallest
    repeat = 1 if smallest else chosen.repeat
    with exits_if_unavailable(), scheduler() as client:
        machine = "" if any(not why_not(each) for each in PLATFORMS.values()) else why_not("amd64")
        require(why_no_rootfs(), why_no_registry(), machine)
        measures: Measures = {
            "dask worker --version": version,
            "joined, without nanny": join(client, "--no-nanny"),
            "joined, with nanny": join(client, "--nanny"),
        }
        if smallest:
            measures = {"import toolz": small}
        with tempfile.TemporaryDirectory() as name, serving(Path(name)) as host:
            found, config = copies(Path(name), chosen.keep or Path(name), Registry(host), smallest)
            medians = seconds(measures, found, config, repeat)
    finish(
        "image_start",
        simulated=False,
        repeat=repeat,
        seconds={what: {copy: round(s, 3) for copy, s in row.items()} for what, row in medians.items()},
        none_over_all={what: round(ratio(row), 2) for what, row in medians.items()},
    )


if __name__ == "__main__":
    main()
