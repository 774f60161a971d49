"""``starburst plan`` and ``starburst cost``."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dask_starburst.cli import main
from dask_starburst.cost import Cost
from dask_starburst.cost.record import record_of, save_record
from dask_starburst.local import LocalAWS, endpoints
from dask_starburst.local.backend.keys import TOKEN_HEADER
from dask_starburst.local.faults.events import Quota
from tests.support.cluster_asserts import starburst

NOW = 4_000_000_000.0  # no record is ever older than a month


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path


def typed(*words: str, **environment: str) -> Result:
    no_account = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "COLUMNS": "120"}
    return CliRunner(env={**no_account, "AWS_SHARED_CREDENTIALS_FILE": "/dev/null", **environment}).invoke(main, words)


def test_a_plan_works_without_an_account():
    result = typed("plan", "--workers", "10", "--region", "eu-central-1")
    assert result.exit_code == 0, result.output
    assert "Quote for a launch in eu-central-1" in result.output
    assert "No AWS credentials were found" in " ".join(result.output.split())
    assert "Nothing was launched" in result.output


def test_a_plan_in_an_account_launches_nothing(aws: LocalAWS):
    before = aws.status().calls
    text = starburst(aws, "plan", "--workers", "4", "--endpoint-url", aws.endpoint_url)
    assert "4" in text
    assert not aws.instances()
    called = {name for name, count in aws.status().calls.items() if count > before.get(name, 0)}
    assert not [name for name in called if name.partition(":")[2].startswith(("Create", "Put", "Run", "Set", "Update"))]


def test_a_plan_above_a_quota_shows_how_many_workers_fit(aws: LocalAWS):
    aws.play([Quota(market="spot", vcpus=9)])
    try:
        text = " ".join(starburst(aws, "plan", "--workers", "4", "--endpoint-url", aws.endpoint_url).split())
    finally:
        aws.play([Quota(market="spot", vcpus=None)])
    assert "Only 2 of 4 workers fit" in text
    assert "starburst quota request" in text
    assert "all of it fits" not in text.lower()
    assert "All of it fits" in starburst(aws, "plan", "--workers", "4", "--endpoint-url", aws.endpoint_url)


def test_a_plan_above_its_cap_shows_how_many_workers_fit():
    result = typed("plan", "--workers", "10", "--max-hourly-cost", "0.5")
    assert "REFUSED: 10 workers and the scheduler cost up to" in result.output
    assert "n_workers=" in result.output


def test_a_plan_for_programs_is_json():
    found = json.loads(typed("plan", "--workers", "2", "--json").output)
    assert found["usd_per_hour"] == pytest.approx(sum(line["usd"] for line in found["lines"]))


def test_a_wrong_type_is_refused_in_a_sentence():
    result = typed("plan", "--instance-type", "c7g.xlarg")
    assert result.exit_code == 1
    assert "c7g.xlarge" in result.output


def bill(**more: Any) -> Cost:
    groups, causes = {"head": 0.2, "spot": 1.0}, {"work": 0.9, "idle": 0.3}
    return Cost(instances=1.1, storage=0.1, by_group=groups, by_cause=causes, saved=1.8, **more)


def test_the_report_lists_closed_clusters_and_sums_only_billed_ones(state: Path):
    save_record(record_of("real", "starburst-1-0", NOW - 60, NOW, bill()))
    save_record(record_of("played", "starburst-2-0", NOW - 60, NOW, bill(simulated=True)))
    lines = typed("cost", "report").output.splitlines()
    assert any("real" in line and "$1.20" in line for line in lines)
    assert any("played" in line and "$1.20 simulated" in line for line in lines)
    assert any("paid" in line and "$1.20" in line for line in lines)


def test_the_report_of_one_cluster_has_the_parts_of_its_cost_and_the_cost_explorer_query(state: Path):
    save_record(record_of("real", "starburst-1-0", NOW - 60, NOW, bill()))
    text = " ".join(typed("cost", "report", "real", COLUMNS="400").output.split())
    assert "spot $1.00 (83%), head $0.2000 (17%)" in text
    assert "work $0.9000 (75%), idle $0.3000 (25%)" in text
    assert "$3.00, so 60% less" in text
    assert '"Key": "starburst:pool", "Values": ["starburst-1-0"]' in text
    assert json.loads(typed("cost", "report", "--json").output)[0]["name"] == "real"


def test_an_empty_report_is_a_sentence(state: Path):
    assert "No cluster was closed" in typed("cost", "report").output
    assert "No cluster mine was closed" in typed("cost", "report", "mine").output


def test_billed_costs_come_from_cost_explorer_after_a_confirmation(aws: LocalAWS):
    groups = [
        {"Keys": ["starburst:pool$starburst-1-0"], "Metrics": {"UnblendedCost": {"Amount": "1.25", "Unit": "USD"}}},
        {"Keys": ["starburst:pool$"], "Metrics": {"UnblendedCost": {"Amount": "99", "Unit": "USD"}}},
    ]
    result = {"ResultsByTime": [{"TimePeriod": {}, "Total": {}, "Groups": groups}], "DimensionValueAttributes": []}
    queue = json.dumps({"results": [result], "account_id": "123456789012"}).encode()
    url = f"{aws.endpoint_url}/moto-api/static/ce/cost-and-usage-results"
    headers = {"Content-Type": "application/json", TOKEN_HEADER: endpoints.read(aws.endpoint_url).token}
    urllib.request.urlopen(urllib.request.Request(url, queue, headers)).close()
    text = starburst(aws, "cost", "billed", "--yes")
    assert "starburst-1-0" in text
    assert "$1.25" in text
    assert "99" not in text
    declined = CliRunner(env=aws.environment).invoke(main, ["cost", "billed"], input="n\n")
    assert "AWS charges $0.01" in declined.output


def test_missing_cost_allocation_tags_are_explained(aws: LocalAWS):
    assert "Activate it once as a cost allocation tag" in starburst(aws, "cost", "billed", "--yes", "--days", "3")
