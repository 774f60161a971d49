"""The whole verification, asked of the embedded AWS."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from dask_starburst.cli import main
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import objects


@pytest.mark.slow
def test_the_embedded_aws_answers_every_question_as_assumed_and_nothing_is_left(
    aws: LocalAWS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "report.json"
    done = CliRunner().invoke(main, ["verify", "--max-cost", "1", "--yes", "--report", str(path)])
    assert done.exit_code == 0, done.output
    report = json.loads(path.read_text())
    assert {answer["name"]: answer["as_assumed"] for answer in report["answers"]} == dict.fromkeys(
        (
            *("start", "tags", "memory", "reuse", "placement", "placement-refused"),
            *("terminate-pending", "scheduler-zeroes", "scheduled-action"),
        ),
        True,
    )
    assert 0 < report["cost_usd"] < 1
    assert not any(objects(aws).values())
