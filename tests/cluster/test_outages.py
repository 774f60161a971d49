"""Outages of AWS: the cluster emits them once, waits, and continues."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.aws.session import AWS
from dask_starburst.events import (
    CallFailed,
    ClusterFailed,
    CredentialsAccepted,
    CredentialsRefused,
    OutageEnded,
    WorkerStartFailed,
)
from dask_starburst.local import LocalAWS, faults
from tests.support.cluster_asserts import costs_nothing, emitted, leftovers, wait_until

#: botocore retries a call with a 5xx status six times, for half a minute. This is the error that it raises then.
FAILURE = {"code": "ServerException", "message": "Service Unavailable. Please try again later.", "status": 400}
EXPIRED = {
    "code": "ExpiredTokenException",
    "message": "The security token included in the request is expired",
    "status": 400,
}


def refuse(aws: LocalAWS, *actions: str, count: int | None = None) -> None:
    """Make AWS fail in these actions, `count` times or until the faults are cleared."""
    seconds = None if count else 1e9
    for action in actions:
        aws.play([faults.Error(action=action, count=count, seconds=seconds, **FAILURE)])  # type: ignore[arg-type]  # by name


def slowly(x: int) -> int:
    time.sleep(0.5)
    return x


@pytest.fixture(scope="module")
def cluster(aws: LocalAWS) -> Iterator[StarburstCluster]:
    """Start an adaptive cluster while AWS refuses its instance, and then its task as often as there are attempts."""
    aws.set_speed(10.0)
    refuse(aws, "autoscaling:SetDesiredCapacity", count=1)
    refuse(aws, "ecs:RunTask", count=3)
    with StarburstCluster(
        cloud="local",
        endpoint_url=aws.endpoint_url,
        quiet=True,
        worker={"nthreads": 1},
        adaptive={"minimum": 0, "maximum": 2},
        timeouts={"connect": "30 minutes", "poll": "0.5 s"},
        keep={"lease": "2 hours"},
    ) as running:
        yield running
        aws.play([faults.Clear()])
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}


@pytest.fixture(autouse=True)
def fair_again(aws: LocalAWS) -> Iterator[None]:
    yield
    aws.play([faults.Clear()])


def test_a_scheduler_starts_after_an_outage(cluster: StarburstCluster) -> None:
    assert cluster.status.name == "running"
    assert emitted(cluster, WorkerStartFailed) == []
    assert emitted(cluster, CallFailed)
    wait_until(lambda: emitted(cluster, OutageEnded), 60, "the end of the outage is emitted")


def test_an_adaptive_cluster_continues_after_an_outage_of_a_hundred_seconds(
    aws: LocalAWS, cluster: StarburstCluster
) -> None:
    before = len(emitted(cluster, CallFailed))
    with Client(cluster) as client:
        refuse(aws, "*")
        tasks = client.map(slowly, range(10), pure=False)
        wait_until(
            lambda: len(emitted(cluster, CallFailed)) > before and cluster.plan,
            60,
            "the outage is emitted, and a worker requested",
        )
        aws.advance(100)
        aws.play([faults.Clear()])
        assert client.gather(tasks) == list(range(10))
    assert emitted(cluster, WorkerStartFailed) == []
    assert len(emitted(cluster, CallFailed)) - before == 1, "the outage is emitted once, not for each call"


def test_an_expired_token_is_emitted_once_and_the_cluster_continues(aws: LocalAWS, cluster: StarburstCluster) -> None:
    refused = len(emitted(cluster, CredentialsRefused))
    with Client(cluster) as client:
        held = client.submit(sum, [1], pure=False)
        assert held.result(timeout=90) == 1
        aws.play([faults.Error(action="*", count=5, **EXPIRED)])  # type: ignore[arg-type]  # by name
        wait_until(lambda: len(emitted(cluster, CredentialsRefused)) > refused, 60, "the refusal is emitted")
        assert client.submit(sum, [1, 2], pure=False).result(timeout=90) == 3
        assert not held.cancelled()
    assert cluster.status.name == "running"
    wait_until(lambda: emitted(cluster, CredentialsAccepted), 60, "the accepted credentials are emitted")
    assert "is expired" in emitted(cluster, CredentialsRefused)[-1].message
    assert "lease ends at" in emitted(cluster, CredentialsRefused)[-1].message


def test_without_credentials_the_cluster_closes_before_its_lease_ends_and_futures_have_the_reason() -> None:
    with LocalAWS() as aws:
        cluster = StarburstCluster(
            cloud="local",
            endpoint_url=aws.endpoint_url,
            n_workers=1,
            quiet=True,
            keep={"lease": 300},
            timeouts={"close": "3 s", "poll": "0.2 s"},
        )
        # The other client knows the scheduler only, like one of another process.
        other = Client(cluster.scheduler_address, security=cluster.security, set_as_default=False)
        with ThreadPoolExecutor(1) as thread, other, Client(cluster) as client:
            client.wait_for_workers(1, timeout=60)
            waiting = client.submit(time.sleep, 1000, pure=False)
            other_waiting = thread.submit(other.submit(time.sleep, 1000, pure=False).result)
            # The scheduler's credentials too: otherwise it renews the lease, and the cluster continues.
            aws.play([faults.Error(action="*", seconds=100_000, **EXPIRED)])  # type: ignore[arg-type]  # by name
            aws.advance(120)
            wait_until(lambda: emitted(cluster, CredentialsRefused), 60, "the refusal is emitted")
            assert cluster.status.name == "running", "its lease has not expired"
            assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3
            aws.advance(150)
            with pytest.raises(CancelledError, match="cannot be renewed"):
                waiting.result(timeout=60)
            with pytest.raises(CancelledError, match="cannot be renewed"):
                other_waiting.result(timeout=60)
            wait_until(lambda: cluster.status.name == "closed", 60, "the cluster closes")
        [failure] = emitted(cluster, ClusterFailed)
        assert "The security token included in the request is expired" in failure.message
        aws.play([faults.Clear()])
        aws.advance(300)
        wait_until(lambda: costs_nothing(aws), 60, "the lease has emptied the pool")


def test_a_profile_with_rotated_keys_is_reloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "credentials"
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(keys))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))

    def write(key: str) -> None:
        keys.write_text(f"[work]\naws_access_key_id = {key}\naws_secret_access_key = s\n", encoding="utf-8")

    def used() -> str:
        return str(aws._client("ecs")._request_signer._credentials.access_key)

    write("old")
    aws = AWS(region="us-east-1", profile="work")
    aws.credentials_pause = 0.0
    try:
        assert used() == "old"
        write("new")
        assert used() == "old"
        keys.unlink()
        aws.renew_credentials()  # the file is being written: the old session is kept
        write("new")
        aws.renew_credentials()
        assert used() == "new"
    finally:
        aws.close()
