"""AWS cannot be asked for a while: the cluster waits, tells it once, and goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.events import Event
from dask_starburst.local import LocalAWS, weather
from tests.evidence import leftovers, wait_until

#: botocore repeats a call six times by itself, for half a minute, where the status is 5xx. This is what it then raises.
FAILURE = {"code": "ServerException", "message": "Service Unavailable. Please try again later.", "status": 400}
EXPIRED = {
    "code": "ExpiredTokenException",
    "message": "The security token included in the request is expired",
    "status": 400,
}


def outage(aws: LocalAWS, seconds: float, *actions: str) -> None:
    aws.weather([weather.Error(action=action, seconds=seconds, **FAILURE) for action in actions])  # type: ignore[arg-type]  # by name


def slowly(x: int) -> int:
    time.sleep(0.5)
    return x


def told(cluster: StarburstCluster, kind: str) -> list[Event]:
    return [event for event in cluster.events if event.kind == kind]


@pytest.fixture(scope="module")
def cluster(aws: LocalAWS) -> Iterator[StarburstCluster]:
    """Start an adaptive cluster while AWS neither gives instances nor starts tasks, for 100 s of its time."""
    aws.set_speed(10.0)
    outage(aws, 60, "autoscaling:SetDesiredCapacity")
    outage(aws, 100, "ecs:RunTask")
    with StarburstCluster(
        cloud="local",
        endpoint_url=aws.endpoint_url,
        quiet=True,
        worker={"nthreads": 1},
        adaptive={"minimum": 0, "maximum": 2},
        timeouts={"connect": "30 minutes"},
        lease="2 hours",
    ) as running:
        yield running
        aws.weather([weather.Calm()])
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}


@pytest.fixture(autouse=True)
def fair_again(aws: LocalAWS) -> Iterator[None]:
    yield
    aws.weather([weather.Calm()])


def test_a_scheduler_starts_once_aws_answers_again(cluster: StarburstCluster) -> None:
    assert cluster.status.name == "running"
    assert told(cluster, "worker-failed") == []
    assert told(cluster, "aws-error")
    wait_until(lambda: told(cluster, "aws-answers"), 30, "the end of it is told")


def test_an_adaptive_cluster_goes_on_after_an_outage_of_a_hundred_seconds(
    aws: LocalAWS, cluster: StarburstCluster
) -> None:
    before = len(told(cluster, "aws-error"))
    with Client(cluster) as client:
        outage(aws, 100, "*")
        tasks = client.map(slowly, range(10), pure=False)
        assert client.gather(tasks) == list(range(10))
    assert told(cluster, "worker-failed") == []
    assert len(told(cluster, "aws-error")) - before == 1, "it is told once, and not for each call"


def test_a_token_that_expires_is_told_once_and_hurts_nobody(aws: LocalAWS, cluster: StarburstCluster) -> None:
    refused = len(told(cluster, "credentials-refused"))
    with Client(cluster) as client:
        held = client.submit(sum, [1], pure=False)
        assert held.result(timeout=90) == 1
        aws.weather([weather.Error(action="*", count=5, **EXPIRED)])  # type: ignore[arg-type]  # by name
        wait_until(lambda: len(told(cluster, "credentials-refused")) > refused, 30, "it is told")
        assert client.submit(sum, [1, 2], pure=False).result(timeout=90) == 3
        assert not held.cancelled()
    assert cluster.status.name == "running"
    wait_until(lambda: told(cluster, "credentials-accepted"), 30, "and its end too")
    assert "is expired" in told(cluster, "credentials-refused")[-1].message
    assert "lease ends at" in told(cluster, "credentials-refused")[-1].message
