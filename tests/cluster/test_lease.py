"""The lease of a running cluster, and a lease that could not be renewed."""

from __future__ import annotations

from datetime import datetime

from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.events import ClusterFailed
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import nothing_left, wait_until

LEASE = 120


def until(aws: LocalAWS) -> list[datetime]:
    actions = aws.client("autoscaling").describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    assert all(a["MaxSize"] == a["DesiredCapacity"] == 0 for a in actions)
    return sorted(a["StartTime"] for a in actions)


def test_every_group_has_a_lease_that_client_or_scheduler_renews(clean: LocalAWS) -> None:
    with StarburstCluster(
        cloud="local", endpoint_url=clean.endpoint_url, n_workers=1, keep={"lease": LEASE}, quiet=True
    ) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        first = until(clean)
        assert len(first) == 2
        for _ in range(3):  # longer, altogether, than one lease
            before = until(clean)
            clean.advance(LEASE / 2)
            wait_until(lambda before=before: until(clean)[0] > before[-1], 60, "both are renewed")  # type: ignore[misc]  # mypy infers no default
        with Client(cluster) as client:
            assert client.submit(sum, [1, 2]).result() == 3
    assert until(clean) == []


def test_an_expired_lease_closes_the_cluster_with_an_event(new_aws: LocalAWS) -> None:
    cluster = StarburstCluster(
        cloud="local", endpoint_url=new_aws.endpoint_url, n_workers=1, keep={"lease": LEASE}, quiet=True
    )
    cluster.wait_for_workers(1, timeout=60)
    text = "is not authorized to perform: autoscaling:PutScheduledUpdateGroupAction"
    new_aws.inject("autoscaling:PutScheduledUpdateGroupAction", "AccessDenied", text, status=403, times=1000)
    new_aws.advance(LEASE + 60)
    wait_until(lambda: cluster.status.name == "closed", 60, "the cluster closes")
    [failure] = [e for e in cluster.events if isinstance(e, ClusterFailed)]
    assert "lease" in failure.message
    assert "start a new cluster" in failure.message.lower()
    wait_until(lambda: nothing_left(new_aws), 60, "nothing is left")
