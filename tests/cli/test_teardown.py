"""``starburst teardown``: lists everything with its cost, asks, removes, and says what it kept."""

from __future__ import annotations

import json

from click.testing import CliRunner, Result

from dask_starburst.cli import main
from dask_starburst.local import LocalAWS
from tests.support.furnished import furnish


def run(account: LocalAWS, *words: str, code: int = 0, answer: str | None = None) -> Result:
    environment = {**account.environment, "COLUMNS": "200"}
    result = CliRunner(env=environment).invoke(main, ["teardown", *words], input=answer)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_teardown_lists_asks_and_removes(aws: LocalAWS) -> None:
    pool = furnish(aws)
    listed = run(aws, "--dry-run").output
    for part in ("us-east-1", pool, "Auto Scaling group", "image repository", "free", "--roles"):
        assert part in listed
    assert "Aborted" in run(aws, code=1, answer="n\n").output
    said = json.loads(run(aws, "--json").output)
    assert {each["pool"] for each in said["resources"]} == {pool, "starburst"}
    assert {each["kind"] for each in said["kept"]} == {"role", "instance profile"}
    assert said["removed"] == [], "JSON removes only with --yes"
    denied = "User: ann is not authorized to perform: logs:DeleteLogGroup"
    aws.inject("logs:DeleteLogGroup", "AccessDeniedException", denied)
    failed = run(aws, "--yes", "--roles", code=1).output
    assert f"removed: ECS cluster {pool}" in failed
    assert "not removed: log group /starburst:" in failed
    assert denied in failed
    assert "1 not." in failed
    assert "1 removed, nothing failed." in run(aws, "--yes").output
    assert "Nothing to remove" in run(aws).output
