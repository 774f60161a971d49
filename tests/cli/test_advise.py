"""``starburst advise`` as a user types it, without an account."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from dask_starburst.cli import main


def typed(*words: str) -> Result:
    nobody = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "COLUMNS": "120"}
    return CliRunner(env={**nobody, "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}).invoke(main, words)


def test_it_ranks_what_holds_the_worker_and_says_why_and_whose_prices():
    result = typed("advise", "--vcpus", "4", "--memory", "7 GiB", "--top", "5")
    assert result.exit_code == 0, result.output
    assert "is the cheapest that holds the worker" in result.output
    assert "Prices (Spot)" in result.output


def test_on_demand_and_an_architecture_can_be_asked_for():
    found = json.loads(typed("advise", "--on-demand", "--arch", "x86_64", "--region", "eu-central-1", "--json").output)
    assert {row["arch"] for row in found} == {"x86_64"}
    assert [row["on_demand_usd"] for row in found] == sorted(row["on_demand_usd"] for row in found)


def test_results_of_a_benchmark_count(tmp_path: Path):
    results = tmp_path / "results.json"
    results.write_text('[{"type": "c7g.xlarge", "seconds": 100}, {"type": "m7g.xlarge", "seconds": 50}]')
    text = typed("advise", "--sort", "measured", "--results", str(results)).output
    assert "m7g.xlarge does the measured work for the least money" in text
    assert "100 s" in text


def test_bad_input_is_answered_with_what_to_type(tmp_path: Path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"type": 3}')
    assert "give a JSON list" in typed("advise", "--results", str(wrong)).output
    assert "give one such as '8 GiB'" in typed("advise", "--memory", "much").output
    assert "ask for less" in typed("advise", "--vcpus", "9999").output
