"""Stopped instances with real processes: a worker comes from one, and none is left, whoever dies."""

from __future__ import annotations

from typing import Any

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS
from dask_starburst.plan.cleanup import STARTING
from dask_starburst.plan.state import Name
from tests.evidence import costs_nothing, leftovers, pools, read_until, script_process, starburst, wait_until
from tests.test_guardian import LATE, LEASE, kill_scheduler

SCRIPT = """
import time
from dask_starburst import StarburstCluster
cluster = StarburstCluster(
    cloud="local", endpoint_url={url!r}, n_workers=0, spot_policy="on-demand", stopped=2, quiet=True, {more}
)
print("UP", flush=True)
time.sleep(600)
"""


def stopped(aws: LocalAWS) -> list[str]:
    client = aws.client("autoscaling")
    groups = client.describe_auto_scaling_groups()["AutoScalingGroups"]
    found = [client.describe_warm_pool(AutoScalingGroupName=g["AutoScalingGroupName"])["Instances"] for g in groups]
    return [i["InstanceId"] for some in found for i in some if i["LifecycleState"] == "Warmed:Stopped"]


def kill_client(aws: LocalAWS, more: str = "") -> None:
    """Let a client have two stopped instances, and die."""
    with script_process(SCRIPT.format(url=aws.endpoint_url, more=more)) as process:
        read_until(process, "UP")
        wait_until(lambda: len(stopped(aws)) == 2, 60, "two are stopped")
        process.kill()
        process.wait()


def place(cluster: Any, name: Name) -> str:
    """Return the EC2 instance of a worker."""
    fleet = cluster._fleet
    found: str = {i.arn: i.id for i in fleet.observed.instances.values()}[fleet.workers[name].instance]
    return found


def test_a_worker_comes_from_a_stopped_instance_which_is_made_up_for_and_none_outlives_the_cluster(
    clean: LocalAWS,
) -> None:
    with StarburstCluster(
        cloud="local", endpoint_url=clean.endpoint_url, quiet=True, n_workers=0, spot_policy="on-demand", stopped=1
    ) as cluster:
        wait_until(lambda: len(stopped(clean)) == 1, 60, "one is stopped")
        (ready,) = stopped(clean)
        assert ready not in cluster._fleet.observed.instances
        assert not [e for e in cluster.events if e.subject == ready]  # and so the books do not have it
        assert "0 + 1 stopped" in starburst(clean, "pool", "list")
        cluster.scale(1)
        with Client(cluster) as client:
            client.wait_for_workers(1, timeout=60)
            assert client.submit(sum, [1, 2, 3]).result() == 6
        assert place(cluster, 0) == ready
        wait_until(lambda: len(stopped(clean)) == 1, 60, "another is stopped")
        assert any("$2.40 a month" in e.message for e in cluster.events if e.kind == "stopped-wished")
        assert cluster.report().stopped == "1 stopped, $2.40 a month for 30 GB"
        cluster.scale(0)
        group = f"{pools(clean)[0]}-on-demand"
        describe = clean.client("autoscaling").describe_auto_scaling_groups
        wait_until(
            lambda: describe(AutoScalingGroupNames=[group])["AutoScalingGroups"][0]["MaxSize"] == 1, 30, "one at most"
        )
        wait_until(lambda: len(stopped(clean)) == 1, 60, "one is stopped, not two")
    assert not any(leftovers(clean).values())


def test_the_lease_ends_what_is_stopped_when_client_and_scheduler_are_dead(aws: LocalAWS) -> None:
    kill_client(aws, f"lease={LEASE}")
    kill_scheduler(aws)
    assert len(stopped(aws)) == 2
    aws.advance(LEASE + LATE)
    wait_until(lambda: costs_nothing(aws), 60, "zero by the lease alone")
    aws.advance(STARTING)
    assert "deleted" in starburst(aws, "gc", "--delete")


@pytest.mark.slow
def test_the_scheduler_ends_what_is_stopped_when_the_client_is_dead(aws: LocalAWS) -> None:
    kill_client(aws, f"lease={LEASE}, no_client_timeout=5")
    wait_until(lambda: costs_nothing(aws), 60, "zero by the scheduler")
    log = aws.client("logs").filter_log_events(logGroupName="/starburst")["events"]
    assert not [e for e in log if "was not deleted" in e["message"]]
    aws.advance(LEASE + STARTING)
    assert "deleted" in starburst(aws, "gc", "--delete")
