"""``starburst setup`` lists with prices, asks, creates, and prints the same as a template."""

from __future__ import annotations

import yaml
from click.testing import CliRunner

from dask_starburst.cli import main
from dask_starburst.local import LocalAWS


def test_setup_lists_asks_and_creates(new_aws: LocalAWS) -> None:
    runner = CliRunner(env={**new_aws.environment, "COLUMNS": "200"})
    listed = runner.invoke(main, ["setup", "--dry-run"])
    assert listed.exit_code == 0, listed.output
    for part in ("starburst-scheduler", "AWSServiceRoleForECS", "/starburst", "a GB and month", "free", "missing"):
        assert part in listed.output
    assert runner.invoke(main, ["setup"], input="n\n").exit_code == 1
    assert new_aws.client("logs").describe_log_groups()["logGroups"] == []
    made = runner.invoke(main, ["setup", "--yes"])
    assert made.exit_code == 0, made.output
    assert "there: role starburst-scheduler" in made.output
    assert "Everything is there." in runner.invoke(main, ["setup", "--yes"]).output
    denied = "User: ann is not authorized to perform: logs:DescribeLogGroups"
    new_aws.inject("logs:DescribeLogGroups", "AccessDeniedException", denied, times=3)
    refused = runner.invoke(main, ["setup", "--yes"])
    assert refused.exit_code == 1
    assert denied in refused.output


def test_the_template_needs_no_account() -> None:
    printed = CliRunner(env={"AWS_REGION": "us-east-1"}).invoke(main, ["setup", "--print", "cloudformation"])
    assert printed.exit_code == 0, printed.output
    assert "Resources" in yaml.safe_load(printed.output)
