"""``starburst pool`` and ``starburst gc`` on running, closed and killed clusters."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from click.testing import CliRunner, Result

from dask_starburst import StarburstCluster
from dask_starburst.cli import main
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import objects, pools, wait_until

LEASE = 120
SCRIPT = """
import time
from dask_starburst import StarburstCluster
cluster = StarburstCluster(cloud="local", endpoint_url={url!r}, n_workers=1, keep={{"lease": {lease}}}, quiet=True)
cluster.wait_for_workers(1, timeout=60)
print("WORKING", flush=True)
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _environment(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")


def starburst(*words: str, code: int = 0, answer: str | None = None) -> Result:
    result = CliRunner().invoke(main, words, input=answer)
    assert result.exit_code == code, (result.output, result.exception)
    return result


@contextmanager
def client_process(aws: LocalAWS, user: str) -> Iterator[subprocess.Popen[str]]:
    script = SCRIPT.format(url=aws.endpoint_url, lease=LEASE)
    environment = {**os.environ, "LOGNAME": user}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stdout is not None
        assert "WORKING" in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def assert_no_objects(aws: LocalAWS) -> None:
    assert objects(aws) == {kind: [] for kind in objects(aws)}


def test_a_killed_client_leaves_an_expired_pool_that_gc_removes(aws: LocalAWS) -> None:
    with client_process(aws, "ann") as process:
        [name] = pools(aws)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert "Nothing to delete" in starburst("gc", "--delete").output, "its lease still runs"
    aws.advance(LEASE + 600)
    wait_until(lambda: aws.status().desired == 0, 60, "zero by the lease")
    before = objects(aws)
    listed = starburst("gc").output
    assert name in listed
    assert "expired" in listed
    assert objects(aws) == before, "a dry run changes nothing"
    assert "expired" in starburst("pool", "list").output
    assert f"{name}: deleted" in starburst("gc", "--delete").output
    assert_no_objects(aws)
    assert "does not exist" in starburst("pool", "delete", name, "--yes").output
    with StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, n_workers=0, quiet=True):
        assert pools(aws) == [name], "the same pool can be checked out again"
    assert "free" in starburst("pool", "status", name).output
    assert "free and unused" in starburst("gc").output
    starburst("pool", "delete", name, code=1, answer="n\n")
    assert pools(aws) == [name]
    starburst("pool", "delete", name, "--yes")
    assert_no_objects(aws)


def test_a_running_cluster_of_another_user_is_never_touched(aws: LocalAWS, monkeypatch: pytest.MonkeyPatch) -> None:
    with client_process(aws, "bob") as process:
        [name] = pools(aws)
        shown = starburst("pool", "list").output
        assert "bob" in shown
        assert "in use" in shown
        assert "2/2" in shown
        assert "Only its owner" in starburst("pool", "stop", name, "--yes", code=1).output
        assert "is in use by bob" in starburst("pool", "delete", name, "--yes", code=1).output
        assert "Nothing to delete" in starburst("gc", "--delete").output
        assert aws.status().desired == 2
        assert process.poll() is None
        monkeypatch.setenv("LOGNAME", "bob")
        starburst("pool", "stop", name, "--yes")
        assert aws.status().desired == 0
    aws.advance(LEASE + 600)
    starburst("gc", "--delete")
    assert_no_objects(aws)


def test_a_removal_that_aws_refuses_midway_goes_on_with_the_next(aws: LocalAWS) -> None:
    with StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, n_workers=0, quiet=True):
        [name] = pools(aws)
    aws.inject("ecs:DeleteCluster", "UpdateInProgressException", "busy", times=1)
    aws.inject("ec2:DeleteSecurityGroup", "UnauthorizedOperation", "You are not authorized", status=403)
    assert "PermissionDenied" in starburst("pool", "delete", name, "--yes", code=1).output
    assert "deletion was interrupted" in starburst("gc").output
    starburst("gc", "--delete")
    assert_no_objects(aws)


def test_a_parameter_without_a_pool_is_removed(aws: LocalAWS) -> None:
    orphan = "/starburst/tls/starburst-00000000-7"
    aws.client("ssm").put_parameter(Name=orphan, Value="x", Type="SecureString")
    aws.client("ssm").put_parameter(Name="/another/owner", Value="x", Type="String")
    assert "parameter without a pool" in starburst("gc").output
    starburst("gc", "--delete")
    assert_no_objects(aws)
    assert aws.client("ssm").get_parameter(Name="/another/owner")["Parameter"]["Value"] == "x"


def test_an_unknown_pool_is_an_error() -> None:
    assert "pool list" in starburst("pool", "status", "starburst-none-0", code=1).output
