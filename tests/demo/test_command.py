"""``starburst demo`` from end to end, and its errors."""

import os
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from dask_starburst.cli import main


@pytest.fixture(autouse=True)
def as_users_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASK_STARBURST__SCHEDULER__DASHBOARD")


def test_a_path_without_data_is_refused_before_anything_starts(tmp_path):
    result = CliRunner().invoke(main, ["demo", "--data", str(tmp_path / "nowhere.parquet")])
    assert result.exit_code == 1
    assert "BadArgument: There are no files at" in result.output
    assert "embedded AWS" not in result.output


def test_an_endpoint_that_does_not_answer_is_named(tmp_path):
    pd.DataFrame({"x": [1, 2]}).to_csv(tmp_path / "x.csv", index=False)
    arguments = ["demo", "--data", str(tmp_path), "--endpoint-url", "http://127.0.0.1:9"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert "No embedded AWS answers at http://127.0.0.1:9" in result.output


def test_help_names_every_option():
    shown = CliRunner().invoke(main, ["demo", "--help"]).output
    assert all(option in shown for option in ("--data", "--workers", "--arch", "--timing", "--endpoint-url"))


def test_dask_has_the_same_commands_under_our_name():
    (entry,) = entry_points(group="dask_cli", name="starburst")
    assert entry.load() is main
    assert main.name == "starburst"  # Dask goes by this one


def finished(command: list[str], seconds: float = 600.0) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; if it does not come, fail with what it has said and where it stands."""
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            said, complained = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            said, complained = process.communicate()
            pytest.fail(f"it did not end within {seconds:g} s:\n{said}\n{complained}")
    return subprocess.CompletedProcess(command, process.returncode, said, complained)


def test_the_demo_on_ones_own_csv_is_right_and_leaves_nothing(tmp_path):
    table = pd.DataFrame({"shop": ["north", "south"] * 5_000, "price": range(10_000)})
    table.to_csv(tmp_path / "sales.csv", index=False)
    command = [str(Path(sys.executable).with_name("starburst")), "demo", "--workers", "1"]
    result = finished([*command, "--data", str(tmp_path / "sales.csv")])
    assert result.returncode == 0, result.stdout + result.stderr
    assert "all 4 results agree with pandas" in result.stdout
    assert "On AWS this would have cost $0.00" in result.stdout
    assert "distributed" not in result.stderr, "Dask has nothing to say that is news"
    assert "instances 0, tasks 0, desired capacity 0, processes 0" in result.stdout
