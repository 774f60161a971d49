"""Start of a worker out of its image, with and without byte-compiled files: measured, with a real container runtime.

    python -m benchmarks.image_start

The direct builder makes an image of Debian's Python, distributed and dask_starburst; runc runs it from a folder, so
that no pull is in the figures. Three copies of the image take turns: as it was built; without the compiled files of the
standard library, as official images come; and without any, which is an official image with packages installed by
``--no-compile``. Timed are ``dask worker --version``, and the way from the start of the container to the worker's
registration at a scheduler on this computer, with and without its nanny. Files are in the page cache. Needs root, runc,
mmdebstrap and docker-registry, all from Debian. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from distributed import Client, LocalCluster

from dask_starburst.environment.capture.model import Environment
from dask_starburst.environment.registry.client import Registry
from tests.support.base_rootfs import PLATFORMS, why_no_rootfs
from tests.support.containers import run, started, unpack, why_not
from tests.support.docker_registry import serving, why_no_registry
from tests.support.image_fixtures import new_kitchen, worker_image
from tests.support.packages import PYTHON

VERSION = ("python", "-m", "distributed.cli.dask_worker", "--version")
WORKER = ("python", "-m", "distributed.cli.dask_worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard")
#: By the name of a copy of the image: which compiled files it lacks.
LACKING = {"all compiled": (), "no library": ("usr/lib", "usr/local/lib"), "none compiled": ("usr", "opt")}

Measures = dict[str, Callable[[Path, dict[str, Any]], float]]


def copies(folder: Path, keep: Path, registry: Registry, small: bool) -> tuple[dict[str, Path], dict[str, Any]]:
    """Build the image and unpack it once for each of the variants; return their folders and the configuration."""
    kitchen = new_kitchen(registry, keep)
    platform = next(name for name, architecture in PLATFORMS.items() if not why_not(architecture))
    if small:
        order = kitchen.order(Environment(PYTHON, ("toolz",), ()), kitchen.cache)
        order = replace(order, recipe=replace(order.recipe, platforms=(platform,)))
        built = kitchen.build(order, kitchen.cache)
    else:
        built = worker_image(kitchen)
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
    """Return the seconds that ``dask worker --version`` takes."""
    return ran(folder, config, VERSION)


def small(folder: Path, config: dict[str, Any]) -> float:
    """Return the seconds that importing something takes."""
    return ran(folder, config, ["python", "-c", "import toolz"])


def ran(folder: Path, config: dict[str, Any], command: Sequence[str]) -> float:
    """Return the seconds that a command takes in a container."""
    begin = time.monotonic()
    status, said = run(folder, config, command)
    if status:
        sys.exit(f"the image does not run:\n{said}")
    return time.monotonic() - begin


def join(client: Client, *more: str) -> Callable[[Path, dict[str, Any]], float]:
    """Return what measures the seconds until a worker has joined."""

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


def table(measures: Measures, repeat: int, keep: Path | None, small: bool) -> dict[str, dict[str, float]]:
    """Measure everything with every copy in turn, print medians, and return them."""
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as host:
        found, config = copies(Path(name), keep or Path(name), Registry(host), small)
        print(f"{'median seconds of ' + str(repeat):24}" + "".join(f"{copy:>15}" for copy in found) + f"{'ratio':>8}")
        medians = {}
        for what, measure in measures.items():
            times: dict[str, list[float]] = {copy: [] for copy in found}
            for turn in range(repeat + 1):
                for copy, folder in found.items():
                    seconds = measure(folder, config)
                    if turn:  # the first fills the page cache
                        times[copy].append(seconds)
            medians[what] = {copy: median(seconds) for copy, seconds in times.items()}
            row = medians[what]
            ratio = row["none compiled"] / row["all compiled"]
            print(f"{what:24}" + "".join(f"{row[copy]:15.2f}" for copy in found) + f"{ratio:8.1f}", flush=True)
        return medians


def main() -> None:
    """Print the medians by copy of the image, then the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="folder with what the image is made of, kept for the next time")
    parser.add_argument("--smallest", action="store_true", help="a size that only shows that it runs")
    arguments = parser.parse_args()
    missing = why_no_rootfs() or why_no_registry()
    machine = next((a for a in PLATFORMS.values() if not why_not(a)), None)
    if missing or machine is None:
        sys.exit(f"nothing is measured: {missing or why_not('amd64')}")
    with scheduler() as client:
        measures: Measures = {
            "dask worker --version": version,
            "joined, without nanny": join(client, "--no-nanny"),
            "joined, with nanny": join(client, "--nanny"),
        }
        if arguments.smallest:
            arguments.repeat, measures = 1, {"import toolz": small}
        medians = table(measures, arguments.repeat, arguments.keep, arguments.smallest)
    ratios = {what: round(row["none compiled"] / row["all compiled"], 2) for what, row in medians.items()}
    result = {
        "benchmark": "image_start",
        "simulated": False,
        "repeat": arguments.repeat,
        "seconds": {what: {copy: round(s, 3) for copy, s in row.items()} for what, row in medians.items()},
        "none_over_all": ratios,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
