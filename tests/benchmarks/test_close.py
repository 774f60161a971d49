"""The benchmark of closing, at its smallest size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_close_is_measured_from_the_last_billed_moment() -> None:
    command = [sys.executable, "benchmarks/close.py", "--smallest"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["still_billed"] == 0
    assert result["seconds_over_billed"] >= 0
    # The calls of a close do not grow with the workers: otherwise 21 workers would have one call for each task.
    assert result["calls_per_worker"] < 1
