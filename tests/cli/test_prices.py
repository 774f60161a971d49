"""``starburst prices``: offline, without credentials, and with the embedded AWS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dask_starburst.cli import main
from dask_starburst.local import LocalAWS


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, and a cache of the test's own."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in (("AWS_SHARED_CREDENTIALS_FILE", "none"), ("AWS_CONFIG_FILE", "config")):
        monkeypatch.setenv(name, str(tmp_path / value))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def account(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)


def prices(*words: str, code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["prices", *words])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def rows(output: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in output.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in cells}


def test_without_credentials_the_bundled_prices_are_shown_and_called_so() -> None:
    output = prices("c7g.xlarge", "g5.xlarge", "--region", "us-east-1", "--spot").output
    assert rows(output) == {
        "c7g.xlarge": ["4", "8", "", "0.145", "2026-07-20 bundled", "0.05655", "2025-06 assumed"],
        "g5.xlarge": ["4", "16", "1×A10G", "1.006", "2026-02-09 bundled", "1.006", "2026-02-09 assumed"],
    }
    assert "bundled: AWS price list\n" in output
    assert "assumed: Spot estimated from on demand by the family's published savings" in output
    assert "No live prices: no AWS credentials were found.\n" in output


def test_a_region_has_its_own_prices() -> None:
    output = prices("m5.xlarge", "--region", "eu-central-1").output
    assert rows(output)["m5.xlarge"][2:] == ["0.23", "2025-03-02 bundled"]
    assert "USD an hour in eu-central-1" in output


def test_without_a_region_it_names_the_region_of_the_prices() -> None:
    assert "no AWS region is configured; these are the prices in us-east-1." in prices("c7g.large").output


def test_with_credentials_aws_is_asked(account: None) -> None:
    output = prices("c7g.xlarge", "--spot").output
    (row,) = rows(output).values()
    assert [cell.split()[-1] for cell in (row[3], row[5])] == ["live", "live"]
    assert "live: simulated AWS price list\n" in output
    assert "live: simulated AWS Spot price history (us-east-1" in output


def test_a_refusal_of_aws_is_shown_with_the_bundled_price(account: None, aws: LocalAWS) -> None:
    aws.inject("pricing:GetProducts", "AccessDeniedException", "not allowed", status=400)
    output = prices("c7g.xlarge").output
    assert rows(output)["c7g.xlarge"][3] == "2026-07-20 bundled"
    assert "bundled: AWS price list (live price denied: pricing:GetProducts)" in output


def test_a_family_is_all_of_its_sizes() -> None:
    assert list(rows(prices("c7g", "--region", "us-east-1").output))[:3] == ["c7g.medium", "c7g.large", "c7g.xlarge"]


def test_without_types_all_are_listed_and_those_without_a_price_counted() -> None:
    output = prices("--region", "eu-west-1").output
    assert len(rows(output)) > 500
    assert "more types have no price" in output


def test_an_unknown_type_is_answered_with_near_names() -> None:
    output = prices("c7gxlarge", code=1).output
    assert (
        "BadArgument: 'c7gxlarge' is not an instance type of the bundled catalogue. Did you mean c7g.xlarge" in output
    )


def test_a_type_without_a_price_is_no_zero_and_the_others_are_shown() -> None:
    result = prices("g7.2xlarge", "c7g.large", "--region", "eu-central-1", code=1)
    assert list(rows(result.output)) == ["c7g.large"]
    assert "the price of g7.2xlarge in eu-central-1 is unknown" in result.output


def test_a_program_gets_numbers_sources_and_dates() -> None:
    found: list[dict[str, Any]] = json.loads(
        prices("c7g.xlarge", "g7.2xlarge", "--region", "us-east-1", "--spot", "--json", code=1).stdout
    )
    one, other = found
    assert (one["name"], one["region"], one["vcpus"], one["arch"]) == ("c7g.xlarge", "us-east-1", 4, "arm64")
    assert one["on_demand"] == {
        "usd_per_hour": 0.145,
        "source": "AWS price list",
        "date": "2026-07-20",
        "kind": "bundled",
        "why": "",
        "since": None,
    }
    assert one["spot"]["kind"] == "assumed"
    assert other["on_demand"] is None
    assert "is unknown" in other["error"]


def test_no_number_is_cut_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    output = prices("g6e.12xlarge", "t3.nano", "m7i-flex.large", "--spot", "--region", "us-east-1").output
    assert "…" not in output
    assert rows(output)["g6e.12xlarge"][2:6:3] == ["4×L40S", "10.49264"]


def test_a_region_of_which_nothing_is_known_is_named_with_those_that_are() -> None:
    output = prices("--region", "mars", code=1).output
    assert "in mars" in output
    assert "eu-central-1" in output
