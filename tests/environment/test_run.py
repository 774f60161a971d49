"""Run the image as a Dask worker in a real container runtime, for both architectures."""

from __future__ import annotations

import getpass
import os
import platform
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import Client, LocalCluster

from benchmarks.harness.images import containers
from benchmarks.harness.images.containers import run, started
from benchmarks.harness.images.fixtures import Built
from benchmarks.harness.images.rootfs import PLATFORMS
from dask_starburst.environment.build.push import LAYER
from dask_starburst.plan.requests.tasks import TLS_VARIABLE
from tests.support.cluster_asserts import wait_until

# The first test includes building the image.
pytestmark = pytest.mark.timeout(300)

WORKER = ("python", "-m", "distributed.cli.dask_worker", "--host", "127.0.0.1", "--nthreads", "1", "--no-dashboard")


@pytest.fixture(scope="module")
def unpacked(built: Built, tmp_path_factory) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The image for both platforms, unpacked as an engine does."""
    folders = {name: tmp_path_factory.mktemp(architecture) for name, architecture in PLATFORMS.items()}

    def unpack(name: str) -> dict[str, Any]:
        return containers.unpack(built.registry, built.repository, built.manifest(name).digest, folders[name])

    with ThreadPoolExecutor() as pool:
        return dict(zip(folders, zip(folders.values(), pool.map(unpack, folders), strict=True), strict=True))


@pytest.fixture(scope="module")
def scheduler() -> Iterator[LocalCluster]:
    with LocalCluster(n_workers=0, protocol="tcp", host="127.0.0.1", dashboard_address=None) as cluster:
        yield cluster


@pytest.mark.parametrize(("name", "machine"), [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")])
def test_a_worker_of_the_image_joins_computes_and_shuts_down_cleanly(unpacked, scheduler, name, machine):
    def where() -> tuple[str, int, str, str]:  # local, so that it is pickled by value: workers do not have the tests
        return platform.machine(), os.getuid(), getpass.getuser(), sys.prefix

    nanny = ("--nanny",) if platform.machine() == machine else ("--no-nanny",)  # the emulator supports one process
    folder, config = unpacked[name]
    with Client(scheduler) as client, started(folder, config, [*WORKER, *nanny, scheduler.scheduler_address]) as worker:
        wait_until(lambda: client.scheduler_info()["workers"] or worker.process.poll() is not None, 60, "the worker")
        assert client.submit(where).result(timeout=60) == (machine, 1000, "dask", "/opt/venv"), worker.log
        assert client.gather(client.map(lambda x: x**2, range(10))) == [x**2 for x in range(10)]
        worker.signal(signal.SIGTERM)
        status = worker.wait(20 if machine == platform.machine() else 90)  # emulation on a busy computer is slow
        log = worker.log
        assert client.scheduler_info()["workers"] == {}
    assert "SIGTERM" in log or "signal 15" in log, log
    assert status in (0, 143), log


def test_the_image_has_the_worker_command(unpacked):
    folder, config = unpacked["linux/amd64"]
    status, said = run(folder, config, ["python", "-m", "dask_starburst.runtime", "worker", "--help"])
    # Its first error is about missing certificates: so the command exists and runs.
    assert (status, f"{TLS_VARIABLE} is missing" in said) == (1, True), said


def test_commands_use_the_images_python(unpacked):
    folder, config = unpacked["linux/amd64"]
    assert run(folder, config, ["dask", "--version"])[0] == 0
    status, said = run(folder, config, ["starburst", "--help"])
    assert (status, "starburst" in said) == (0, True), said


# Prints the modules that Python compiled at import: those without a compiled file.
UNCOMPILED = """
import os, sys
import dask_starburst.runtime.worker.notices, distributed.cli.dask_worker
cached = {name: getattr(module, "__cached__", None) for name, module in sys.modules.items()}
print(len(cached), sorted(name for name, path in cached.items() if path and not os.path.exists(path)))
"""


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_worker_starts_without_compiling(unpacked, name):
    folder, config = unpacked[name]
    status, said = run(folder, config, ["python", "-c", UNCOMPILED])
    number, _, uncompiled = said.partition(" ")
    assert (status, uncompiled.strip()) == (0, "[]"), said
    assert int(number) > 300


@pytest.mark.slow
def test_a_build_in_another_folder_has_equal_layers(image_fixtures, built, tmp_path):
    again = image_fixtures.build(built.order, tmp_path, "again")
    for name in PLATFORMS:
        one, two = ({x.annotations.get(LAYER, ""): x.digest for x in image.layers(name)} for image in (built, again))
        assert one == two
    assert again.image.digest == built.image.digest
