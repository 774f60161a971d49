"""The footprint benchmark at its smallest size; `tests/test_imports.py` tests what keeps the footprint small."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


@pytest.mark.timeout(300)  # a dozen processes, on a computer that may be busy
def test_it_runs_and_prints_its_ratios():
    command = [sys.executable, "benchmarks/footprint.py", "--smallest"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    ratios = {"import_ratio", "dask_cli_ratio", "scheduler_rss_ratio", "worker_rss_ratio"}
    assert {name for name in ratios if result[name] > 0} == ratios
    # Memory does not depend on other processes, so a single measurement shows what boto3 would add.
    assert result["scheduler_rss_ratio"] < 1.15
    assert result["worker_rss_ratio"] < 1.15
