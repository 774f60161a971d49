"""A task that no worker can run is emitted, and keeps neither a worker nor the scheduler alive."""

from __future__ import annotations

from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.events import ClusterFailed, Event, InstanceLaunched, TaskUnrunnable, WorkerRetiring, WorkerStopped
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import costs_nothing, wait_until


def test_a_task_that_no_worker_can_run_is_emitted_and_does_not_keep_the_cluster_alive(clean: LocalAWS) -> None:
    with (
        StarburstCluster(
            cloud="local",
            endpoint_url=clean.endpoint_url,
            quiet=True,
            adaptive={"minimum": 0, "maximum": 2, "interval": "0.5 s", "scale_down_after": "1 s"},
            keep={"idle_timeout": "6 s"},
        ) as cluster,
        Client(cluster) as client,
    ):
        gpu = client.submit(sum, [1], resources={"GPU": 1}, pure=False)
        nowhere = client.submit(sum, [1], workers=["nowhere"], pure=False)
        # From zero a task without restrictions starts a worker.
        assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3
        wait_until(lambda: len(emitted(cluster)) == 2, 60, "both restrictions are emitted")
        by_restriction = {event.subject: event.message for event in emitted(cluster)}
        assert gpu.key in by_restriction["resources={'GPU': 1}"]
        assert nowhere.key in by_restriction["workers=['nowhere']"]
        wait_until(lambda: cluster.status.name == "closed", 60, "the idle timeout ends the cluster")
        stages = {type(event) for event in cluster.events}
        assert stages & {WorkerRetiring, WorkerStopped}, "adaptive scaling retired its worker before"
    [failure] = [event for event in cluster.events if isinstance(event, ClusterFailed)]
    assert "there was no work for 6 s (idle_timeout)" in failure.message
    assert costs_nothing(clean)


def test_from_zero_an_unrunnable_task_requests_no_worker(clean: LocalAWS) -> None:
    with (
        StarburstCluster(
            cloud="local",
            endpoint_url=clean.endpoint_url,
            quiet=True,
            adaptive={"minimum": 0, "maximum": 2, "interval": "0.5 s"},
            keep={"idle_timeout": "8 s"},
        ) as cluster,
        Client(cluster) as client,
    ):
        gpu = client.submit(sum, [1], resources={"GPU": 1}, pure=False)
        wait_until(lambda: emitted(cluster), 60, "the restriction is emitted")
        wait_until(lambda: cluster.status.name == "closed", 60, "the idle timeout ends the cluster")
        assert gpu.key in emitted(cluster)[0].message
        launched = [event.placement for event in cluster.events if isinstance(event, InstanceLaunched)]
        assert launched == ["head"]
    assert costs_nothing(clean)


def emitted(cluster: StarburstCluster) -> list[Event]:
    return [event for event in cluster.events if isinstance(event, TaskUnrunnable)]
