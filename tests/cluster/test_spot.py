"""Spot notices on the embedded AWS: real workers leave in time, and no result is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from dask.distributed import Client, wait

from dask_starburst import StarburstCluster
from dask_starburst.events import SpotInterruption, SpotRebalance
from dask_starburst.local import LocalAWS, faults
from tests.support.cluster_asserts import emitted, wait_until

COMES_AND_GOES = ("add-worker", "remove-worker")


def _job() -> Any:
    def traced(folder: str, x: int) -> int:  # local, so that it is pickled by value: workers cannot import tests
        with open(os.path.join(folder, str(x)), "a") as file:
            file.write("x")
        time.sleep(0.01)
        return x * x

    return traced


def runs(folder: Path) -> int:
    return sum(len(path.read_text()) for path in folder.iterdir())


def counts(client: Client) -> dict[str, Any]:
    return dict(client.sync(client.scheduler.starburst_spot_counts))


def worker_task(aws: LocalAWS, address: str) -> tuple[str, str]:
    """Return the ECS cluster and the task that runs at a worker's address."""
    ecs, ec2 = aws.client("ecs"), aws.client("ec2")
    host = address.split("//")[1].rpartition(":")[0]
    reservations = ec2.describe_instances(Filters=[{"Name": "private-ip-address", "Values": [host]}])["Reservations"]
    instances = {i["InstanceId"] for r in reservations for i in r["Instances"]}
    for cluster in ecs.list_clusters()["clusterArns"]:
        arns = ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
        for found in ecs.describe_container_instances(cluster=cluster, containerInstances=arns)["containerInstances"]:
            if found["ec2InstanceId"] in instances:
                [task] = ecs.list_tasks(cluster=cluster, containerInstance=found["containerInstanceArn"])["taskArns"]
                return cluster, task
    raise AssertionError(f"nothing runs at {address}")


def test_a_spot_notice_and_a_stopped_task_lose_no_result_and_rerun_no_task(clean: LocalAWS, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"cloud": "local", "endpoint_url": clean.endpoint_url, "quiet": True}
    with StarburstCluster(n_workers=2, **arguments) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        before = set(client.nthreads())
        futures = client.map(_job(), [str(tmp_path)] * 40, range(40), pure=False)
        client.gather(futures)
        wait_until(lambda: counts(client)["watched"] == 2, 60, "both workers watch for notices")
        clean.play([faults.Interrupt(group="*-spot")])
        wait_until(lambda: counts(client)["retired"] == 1, 60, "the worker has left in time")
        wait_until(lambda: len(set(client.nthreads()) - before) == 1, 60, "the replacement has started")

        [stays] = before & set(client.nthreads())
        task_cluster, task = worker_task(clean, stays)
        clean.client("ecs").stop_task(cluster=task_cluster, task=task)
        wait_until(lambda: counts(client)["retired"] == 2, 60, "SIGTERM retires the worker too")
        assert client.gather(futures) == [x * x for x in range(40)]
        assert runs(tmp_path) == 40
        said = counts(client)
        assert (said["interruptions"], said["stops"], said["results_lost"], said["recomputed"]) == (1, 1, 0, 0)
        assert said["keys_moved"] >= 40
        # ECS drains the interrupted instance too: in either order, it is one interruption.
        wait_until(
            lambda: len(emitted(cluster, SpotInterruption)) == 1,
            60,
            "the interruption is emitted once",
        )


def _large() -> Any:
    """Return a task, pickled by value, whose result counts as 4 GiB."""

    class Large:
        def __sizeof__(self) -> int:
            return 4 << 30

    return lambda: Large()


def test_after_a_rebalance_recommendation_the_replacement_starts_first(clean: LocalAWS, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"cloud": "local", "endpoint_url": clean.endpoint_url, "quiet": True}
    with StarburstCluster(n_workers=1, **arguments) as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        [before] = client.nthreads()
        futures = client.map(_job(), [str(tmp_path)] * 10, range(10), pure=False)
        client.gather(futures)
        large = client.submit(_large())
        wait(large)
        wait_until(lambda: counts(client)["watched"] == 1, 60, "the worker watches for notices")
        clean.play([faults.Rebalance(group="*-spot")])
        wait_until(lambda: before not in client.nthreads(), 60, "the old worker is retired")
        actions = [event["action"] for _, event in client.get_events("all") if event["action"] in COMES_AND_GOES]
        assert actions == ["add-worker", "add-worker", "remove-worker"]
        assert client.gather(futures) == [x * x for x in range(10)]
        assert runs(tmp_path) == 10
        said = counts(client)
        assert (said["rebalances"], said["interruptions"], said["results_lost"], said["recomputed"]) == (1, 0, 0, 0)
        [event] = [e for e in cluster.events if isinstance(e, SpotRebalance)]
        assert "replacing it before it is retired" in event.message
