"""``starburst advise`` without an account."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dask_starburst.cli import main


def typed(*words: str, columns: int = 120) -> Result:
    no_account = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "COLUMNS": str(columns)}
    return CliRunner(env={**no_account, "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}).invoke(main, words)


def test_advise_ranks_fitting_types_with_the_reason_and_the_source_of_prices():
    result = typed("advise", "--vcpus", "4", "--memory", "7 GiB", "--top", "5")
    assert result.exit_code == 0, result.output
    assert "is the cheapest type that fits the worker" in result.output
    assert "Prices (Spot)" in result.output


def test_on_demand_and_an_architecture_can_be_asked_for():
    found = json.loads(typed("advise", "--on-demand", "--arch", "x86_64", "--region", "eu-central-1", "--json").output)
    assert {row["arch"] for row in found} == {"x86_64"}
    assert [row["on_demand_usd"] for row in found] == sorted(row["on_demand_usd"] for row in found)


def test_results_of_a_benchmark_count(tmp_path: Path):
    results = tmp_path / "results.json"
    results.write_text('[{"type": "c7g.xlarge", "seconds": 100}, {"type": "m7g.xlarge", "seconds": 50}]')
    text = typed("advise", "--sort", "measured", "--results", str(results)).output
    assert "m7g.xlarge runs the benchmark at the lowest cost" in text
    assert "100.0 s" in text


def test_invalid_input_is_an_error_with_the_next_step(tmp_path: Path):
    wrong = tmp_path / "wrong.json"
    wrong.write_text('{"type": 3}')
    assert "give a JSON list" in typed("advise", "--results", str(wrong)).output
    assert "give one such as '8 GiB'" in typed("advise", "--memory", "much").output
    assert "reduce --vcpus or --memory" in typed("advise", "--vcpus", "9999").output


def test_sorting_by_measured_without_measurements_is_refused(tmp_path: Path):
    assert "no fitting type was measured" in typed("advise", "--sort", "measured").output
    results = tmp_path / "results.json"
    results.write_text('[{"type": "c7g.xlarge", "seconds": 0}]')
    assert "above zero" in typed("advise", "--results", str(results)).output


def test_a_measured_type_that_is_not_listed_is_named(tmp_path: Path):
    results = tmp_path / "results.json"
    results.write_text('[{"type": "c7g.xlarge", "seconds": 9}, {"type": "c7g.xlrage", "seconds": 9}]')
    assert "Measured, but not listed: c7g.xlrage." in typed("advise", "--results", str(results)).output


def test_a_region_without_prices_is_an_error_that_names_those_that_have_some():
    result = typed("advise", "--region", "xx-nowhere-1")
    assert result.exit_code == 1
    assert "has no prices of that region, only of" in result.output


@pytest.mark.parametrize("columns", [80, 100])
def test_the_table_fits_into_the_terminal(tmp_path: Path, columns: int):
    results = tmp_path / "results.json"
    results.write_text('[{"type": "c7i-flex.xlarge", "seconds": 61.25}]')
    for words in ((), ("--results", str(results)), ("--gpu",), ("--vcpus", "2", "--memory", "1 GiB", "--top", "60")):
        text = typed("advise", *words, columns=columns).output
        assert "…" not in text
        assert max(map(len, text.splitlines())) <= columns


def test_a_spot_price_of_which_nothing_was_published_is_not_passed_off_as_known():
    found = json.loads(typed("advise", "--json", "--top", "60").output)
    plain = {row["type"]: row for row in found}
    assert plain["c7g.xlarge"]["spot_published"]
    assert not plain["a1.xlarge"]["spot_published"]
    assert plain["a1.xlarge"]["spot_usd"] == plain["a1.xlarge"]["on_demand_usd"]
