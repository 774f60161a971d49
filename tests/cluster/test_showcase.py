"""The displays, secrets and access control of a cluster with one worker, which the tests do not change."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.events import CapacityRequested, WorkerReady
from dask_starburst.local import LocalAWS
from dask_starburst.local.faults.events import Quota
from tests.support.cluster_asserts import wait_until


def local_cluster(aws: LocalAWS, **arguments: Any) -> StarburstCluster:
    return StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True, **arguments)


@pytest.fixture(scope="module")
def showcase(aws: LocalAWS) -> Iterator[tuple[StarburstCluster, Client]]:
    """Yield a cluster with one worker, which the tests do not change."""
    with (
        local_cluster(aws, n_workers=1, name="showcase", scheduler={"dashboard": True}) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        yield cluster, client


def test_secrets_are_not_visible_to_user_code_or_in_aws(
    aws: LocalAWS, showcase: tuple[StarburstCluster, Client]
) -> None:
    cluster, client = showcase
    [shown] = client.run(lambda: dict(os.environ)).values()
    [child] = client.run(lambda: __import__("subprocess").check_output(["env"], text=True)).values()
    secret = cluster._certificates.secret
    key = secret.split("PRIVATE KEY-----")[1][:40]
    assert key.strip("\\n")
    ecs = aws.client("ecs")
    arns = [t for c in ecs.list_clusters()["clusterArns"] for t in ecs.list_tasks(cluster=c)["taskArns"]]
    pools = ecs.list_clusters()["clusterArns"]
    tasks = [
        t
        for c in pools
        if (a := ecs.list_tasks(cluster=c)["taskArns"])
        for t in ecs.describe_tasks(cluster=c, tasks=a, include=["TAGS"])["tasks"]
    ]
    definitions = [ecs.describe_task_definition(taskDefinition=t["taskDefinitionArn"]) for t in tasks]
    assert arns
    for place in (shown, child, tasks, definitions, repr(cluster), cluster.get_logs(), list(cluster.events)):
        assert key not in str(place)
        assert "STARBURST_TLS=" not in str(place)


def test_workers_start_concurrently_with_the_scheduler(showcase: tuple[StarburstCluster, Client]) -> None:
    cluster, _ = showcase
    kinds = [(type(e), e.subject) for e in cluster.events]
    assert kinds.index((CapacityRequested, "spot")) < kinds.index((WorkerReady, "scheduler"))


def test_the_repr_of_a_cluster_shows_its_state_and_cost(showcase: tuple[StarburstCluster, Client]) -> None:
    cluster, _ = showcase
    wait_until(lambda: "workers=1," in repr(cluster), 60, "the repr shows the worker")
    assert "showcase" in repr(cluster)
    assert " so far, $" in repr(cluster)
    html = cluster._repr_html_()
    assert "simulated run" in html
    assert "Cost now" in html
    assert cluster.dashboard_link in html
    assert cluster.cost.usd > 0
    assert cluster.dashboard_link.endswith(":8787/status")
    with urlopen(cluster.dashboard_link, timeout=90) as page:
        assert "Dask" in page.read().decode()
    assert "showcase" in cluster._widget().children[0].value  # what a notebook shows


def test_a_scheduler_without_a_dashboard_still_has_its_metrics(aws: LocalAWS) -> None:
    with local_cluster(aws, scheduler={"dashboard": False}) as cluster:
        host = cluster.scheduler_address.rpartition(":")[0].removeprefix("tls://")
        with urlopen(f"http://{host}:8787/health", timeout=90) as page:
            assert page.read() == b"ok"
        with pytest.raises(HTTPError, match="404"):
            urlopen(f"http://{host}:8787/status", timeout=90)
        assert "8787" not in cluster._repr_html_()


def test_plan_returns_the_cost_of_more_workers_and_launches_none(
    aws: LocalAWS, showcase: tuple[StarburstCluster, Client]
) -> None:
    cluster, _ = showcase
    before = len(aws.instances())
    one, twenty = cluster.quote(), cluster.quote(20)
    assert twenty.usd_per_hour - one.usd_per_hour == pytest.approx(19 * (one.usd_per_hour - one.least), rel=0.001)
    assert len(aws.instances()) == before


def test_running_instances_do_not_count_twice_against_a_quota(
    aws: LocalAWS, showcase: tuple[StarburstCluster, Client]
) -> None:
    aws.play([Quota(market="spot", vcpus=8)])  # two workers of four, and one of them runs
    try:
        assert "All of it fits" in repr(showcase[0].quote(2))
        assert "Only 2 of 3 workers fit" in repr(showcase[0].quote(3))
    finally:
        aws.play([Quota(market="spot", vcpus=None)])


def test_a_client_of_another_cluster_is_refused_and_a_closed_pool_is_reused_by_one_cluster(
    aws: LocalAWS,
) -> None:
    with local_cluster(aws, n_workers=0) as one, local_cluster(aws, n_workers=0) as two:
        first, second = one._session.pool.name, two._session.pool.name
        assert first != second
        assert one.scheduler_address != two.scheduler_address
        with pytest.raises(OSError, match=r"(?i)tls|ssl|certificate|timed out|closed"):
            Client(one.scheduler_address, security=two.security, timeout=2)
    with local_cluster(aws, n_workers=0) as again:
        assert again._session.pool.name in (first, second)
    bill = one.cost
    aws.advance(3600)
    assert one.cost == bill, "the cost does not grow any more"
    assert f"it cost {bill}" in one.events[-1].message
