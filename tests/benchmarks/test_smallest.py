"""Every benchmark runs at its smallest size, and its last line is one JSON object."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.unavailable import NOTHING
from tests.support.shared_folder import shared_folder

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / "benchmarks"
#: Benchmarks whose smallest size has a separate test, which also checks the output.
TESTED = {"close", "footprint"}
#: Benchmarks with several clusters or images, beside `start` with one and `image_build`, which use the same harness.
SLOW = {"image_start", "peers"}
#: A benchmark is one file, or a folder that Python can run.
EVERY = {path.stem for path in FOLDER.glob("*.py")} | {path.parent.name for path in FOLDER.glob("*/__main__.py")}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in sorted(EVERY - TESTED)]
)
def test_a_benchmark_runs_at_its_smallest_size_and_prints_json_last(name, tmp_path, tmp_path_factory, worker_id):
    command = [sys.executable, "-m", f"benchmarks.{name}", "--smallest"]
    if name == "image_start":  # half a minute faster if another test has built the base
        command += ["--keep", str(shared_folder(tmp_path_factory, worker_id))]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if NOTHING in done.stderr:  # it needs something that this computer lacks
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    assert isinstance(json.loads(done.stdout.splitlines()[-1]), dict)


def test_the_benchmarks_are_found():
    assert {"adaptive", "peers", "scale", "spot", "start", "step", "storm"} <= EVERY
    assert not [name for name in TESTED if not (Path(__file__).parent / f"test_{name}.py").exists()]
