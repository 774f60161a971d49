"""Warm pools with real processes: spares, instances that outlive their cluster, their reuse and their end."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.events import InstanceLaunched, PoolKeptWarm
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import leftovers, read_until, script_process, starburst, wait_until

WARM = 600
SCRIPT = """
import time
from dask.distributed import Client
from dask_starburst import StarburstCluster
with StarburstCluster(cloud="local", endpoint_url={url!r}, n_workers=1, keep={keep}, quiet=True) as cluster:
    with Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        assert client.submit(sum, [1, 2]).result() == 3
print("CLOSED", *[e.message for e in cluster.events if e.kind == "pool-kept-warm"], flush=True)
time.sleep(600)
"""


def local_cluster(aws: LocalAWS, **arguments: Any) -> StarburstCluster:
    return StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True, **arguments)


def instances(aws: LocalAWS) -> set[str]:
    groups = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return {i["InstanceId"] for g in groups for i in g["Instances"] if i["LifecycleState"] == "InService"}


def leases(aws: LocalAWS) -> list[float]:
    actions = aws.client("autoscaling").describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    return [a["StartTime"].timestamp() for a in actions]


def left_by_a_killed_client(aws: LocalAWS) -> tuple[set[str], str]:
    """Close a cluster in another process; return the instances that it keeps, and its message about them."""
    with script_process(SCRIPT.format(url=aws.endpoint_url, keep={"warm_timeout": WARM})) as client:
        said = read_until(client, "CLOSED")
    return instances(aws), said


def test_a_cluster_reuses_warm_instances_of_another_process_and_the_lease_terminates_unused_ones(
    clean: LocalAWS,
) -> None:
    kept, said = left_by_a_killed_client(clean)
    assert len(kept) == 2
    assert re.search(r"1 \S+ spot, 1 m7g.medium on-demand, \$0.\d+ an hour", said)
    # The instances stay; the session leaves no process, task, certificate, claim or ingress rule.
    left = leftovers(clean)
    assert {kind for kind, found in left.items() if found} == {"instances", "desired"}
    groups = clean.client("ec2").describe_security_groups()["SecurityGroups"]
    assert not [p for g in groups if g["GroupName"].endswith("-head") for p in g["IpPermissions"]]
    assert len(leases(clean)) == 2
    assert max(leases(clean)) <= math.ceil(clean.status().now + WARM)  # scheduled actions have whole seconds
    assert "Nothing to delete" in starburst(clean, "gc", "--delete")
    listed = starburst(clean, "pool", "list")
    assert "free" in listed
    assert "2/2" in listed
    with local_cluster(clean, n_workers=1, keep={"warm_timeout": WARM}) as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        assert client.submit(sum, [1, 2, 3]).result() == 6
        assert instances(clean) == kept
        assert min(leases(clean)) > clean.status().now + WARM  # renewed for the new cluster
        messages = [e.message for e in cluster.events if isinstance(e, InstanceLaunched)]
        assert len(messages) == 2
        assert all("is warm" in message for message in messages)
    assert instances(clean) == kept
    clean.advance(WARM + 120)
    wait_until(lambda: not any(leftovers(clean).values()), 60, "the lease empties the pool")
    assert "deleted" in starburst(clean, "gc", "--delete")


def test_a_new_worker_starts_on_a_spare_instance_which_is_replaced(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=1, keep={"warm": 1}) as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        wait_until(lambda: len(instances(clean)) == 3, 60, "the worker's, the scheduler's and a spare instance")
        before = instances(clean)
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        worker = cluster._controller.roster.workers[1]
        place = {i.arn: i.id for i in cluster._controller.roster.observed.instances.values()}[worker.instance]
        assert place in before
        wait_until(lambda: len(instances(clean)) == 4, 60, "a new spare instance")
        assert any("is kept ready while the cluster runs: $" in e.message for e in cluster.events)


def test_a_pool_that_cannot_be_kept_warm_is_emptied(clean: LocalAWS, caplog: pytest.LogCaptureFixture) -> None:
    text = "is not authorized to perform: autoscaling:CreateOrUpdateTags"
    cluster = local_cluster(clean, n_workers=0, keep={"warm_timeout": WARM})
    clean.inject("autoscaling:CreateOrUpdateTags", "AccessDenied", text, status=403)
    cluster.close()
    assert "keeping the pool warm failed" in caplog.text
    assert not [e for e in cluster.events if isinstance(e, PoolKeptWarm)]


def test_a_pool_is_prewarmed_and_stopped_from_the_command_line(clean: LocalAWS) -> None:
    said = starburst(clean, "pool", "warm", "2", "--for", "10 minutes", "--yes")
    assert "3 of 3 instances are ready" in said
    assert re.search(r"2 \S+ spot, 1 m7g.medium on-demand, \$0.\d+ an hour", said)
    [name] = set(re.findall(r"starburst-\w{8}-\d+", said))
    assert "2 idle instances for workers are connected" in starburst(clean, "pool", "status", name)
    kept = instances(clean)
    with local_cluster(clean, n_workers=1, keep={"warm_timeout": WARM}) as cluster:
        cluster.wait_for_workers(1, timeout=60)
        assert instances(clean) == kept
        assert cluster._session.pool.name == name
    assert instances(clean) == kept
    starburst(clean, "pool", "stop", name, "--yes")
    wait_until(lambda: not any(leftovers(clean).values()), 60, "everything is gone")
    assert leases(clean) == []
    assert f"{name}: deleted" in starburst(clean, "pool", "delete", name, "--yes")
