"""``starburst doctor``: a mark for each finding, and an exit code for scripts."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from dask_starburst.cli import main
from dask_starburst.local import LocalAWS, faults


def test_each_finding_has_a_mark_and_a_failed_one_the_fix_and_exit_code_1(aws: LocalAWS) -> None:
    runner = CliRunner(env=aws.environment)
    shown = runner.invoke(main, ["doctor"])
    assert shown.exit_code == 0, shown.output
    assert "✓ credentials" in shown.output
    assert "! roles" in shown.output
    assert "→ " in shown.output
    aws.play([faults.Quota(market="on-demand", vcpus=0)])
    failed = runner.invoke(main, ["doctor", "--json"])
    assert failed.exit_code == 1
    states = {each["name"]: each["state"] for each in json.loads(failed.output)}
    assert states["quotas"] == "failed"
    aws.play([faults.Clear()])


def test_without_credentials_it_says_how_to_get_some(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment.items():
        if "KEY" not in name:
            monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "✗ credentials" in result.output
    assert "aws configure" in result.output
