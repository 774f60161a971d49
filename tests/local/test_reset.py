"""``LocalAWS.reset()``: an account as new at the same address."""

from __future__ import annotations

import os

from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS, faults
from tests.support.cluster_asserts import wait_until


def test_a_reset_kills_the_containers_and_forgets_everything(new_aws: LocalAWS) -> None:
    where = new_aws.endpoint_url, new_aws.pid
    cluster = StarburstCluster(cloud="local", endpoint_url=new_aws.endpoint_url, n_workers=1, quiet=True)
    try:
        with Client(cluster) as client:
            client.wait_for_workers(1, timeout=90)
        pids = list(new_aws.status().containers.values())
        assert len(pids) == 2
        new_aws.client("ecr").create_repository(repositoryName="mine")
        new_aws.play([faults.Throttle(action="ecs:*", seconds=1000)])
        new_aws.set_speed(7.0)
        new_aws.reset()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 60, "the processes have ended")
        status = new_aws.status()
        assert (status.containers, status.clusters, status.desired, status.speed) == ({}, (), 0, 1.0)
        assert new_aws.instances() == new_aws.past_faults() == []
        assert new_aws.client("ecr").describe_repositories()["repositories"] == []
        assert new_aws.client("ecs").list_clusters()["clusterArns"] == []  # with the credentials of before, no throttle
        assert (new_aws.endpoint_url, new_aws.pid) == where
    finally:
        cluster.close()
