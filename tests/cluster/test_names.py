"""Workers have Dask's names, 0, 1, …, in the cluster, in the scheduler, and in events."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import Client, get_worker

from dask_starburst import StarburstCluster
from dask_starburst.events import (
    AdaptiveStopped,
    CapacityRequested,
    WaitExceedsMaximum,
    WorkerLost,
    WorkerReady,
    WorkerRetired,
    WorkerRetiring,
)
from dask_starburst.local import LocalAWS
from tests.cluster.test_cluster import local_cluster
from tests.support.cluster_asserts import wait_until


def _jobs() -> tuple[Any, Any]:
    """Return the functions that workers run; they are pickled by value, as workers cannot import tests."""

    def where() -> Any:
        return get_worker().name

    def hold(starts: Path, until: Path) -> Any:
        """Record the start, and run until a file exists."""
        with starts.open("a") as file:
            file.write("x")
        while not until.exists():
            time.sleep(0.05)
        return get_worker().name

    return where, hold


where, hold = _jobs()


def ups(cluster: StarburstCluster) -> list[Any]:
    """Return the names of the workers that have come up, each as often as it did."""
    return [e.subject for e in cluster.events if isinstance(e, WorkerReady) and e.subject != "scheduler"]


def gone(cluster: StarburstCluster) -> list[Any]:
    """Return the workers that were retired or lost."""
    return [e.subject for e in cluster.events if isinstance(e, WorkerRetiring | WorkerLost)]


def test_the_cluster_and_the_scheduler_use_the_same_worker_names(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=2) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        wait_until(lambda: set(cluster.plan) == cluster.observed, 60, "both have registered")
        assert set(cluster.plan) == cluster.requested == cluster.observed == set(cluster.workers) == {0, 1}
        assert {w["name"] for w in client.scheduler_info(n_workers=-1)["workers"].values()} == {0, 1}
        first = next(iter(cluster.workers))
        assert client.submit(where, workers=first).result(timeout=90) == first
        assert {e.subject for e in cluster.events if isinstance(e, WorkerReady)} == {"scheduler", 0, 1}
        assert set(cluster.get_logs(cluster=False, scheduler=False, workers=[1])) == {1}

        cluster.sync(cluster.scale_down, [0])
        wait_until(lambda: cluster.observed == {1}, 60, "the named worker is retired")
        assert set(cluster.plan) == {1}
        assert gone(cluster) == [0]

        client.retire_workers(list(client.scheduler_info()["workers"]))
        wait_until(
            lambda: not cluster.plan and not cluster.workers, 60, "a worker that the user retires is not replaced"
        )
        wait_until(lambda: clean.status().instances_running == 1, 60, "its instance is terminated")
        assert not [e for e in cluster.events if isinstance(e, WorkerLost)]
        assert [e.subject for e in cluster.events if isinstance(e, WorkerRetired)] == [1]
        assert len(ups(cluster)) == 2
        cluster.scale(1)
        client.wait_for_workers(1, timeout=60)


def test_adaptive_scaling_retires_idle_workers_and_runs_the_task_of_a_busy_one_once(
    clean: LocalAWS, tmp_path: Path
) -> None:
    starts, until = tmp_path / "starts", tmp_path / "until"
    with local_cluster(clean, n_workers=3) as cluster, Client(cluster) as client:
        client.wait_for_workers(3, timeout=60)
        busy = client.submit(hold, starts, until, workers=0, allow_other_workers=True)
        held = client.submit(bytes, 1000, workers=2, allow_other_workers=True)
        wait_until(lambda: starts.exists() and held.done(), 60, "worker 0 is busy and worker 2 holds a result")
        cluster.adapt(minimum=2, maximum=3, interval="200ms", scale_down_after=0)
        wait_until(lambda: cluster.observed == {0, 2}, 60, "the idle worker without data is retired")
        cluster.adapt(minimum=1, maximum=3, interval="200ms", scale_down_after=0)
        wait_until(lambda: cluster.observed == {0}, 60, "the busy one is left")
        assert set(cluster.plan) == {0}
        until.touch()
        assert busy.result(timeout=90) == 0
        assert starts.read_text() == "x"
        assert gone(cluster) == [1, 2]
        assert held.result(timeout=90) == bytes(1000)


def test_scale_cancels_requests_before_it_retires_workers_and_stops_adapting(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=2) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        cluster.scale(6)
        cluster.scale(2)
        assert set(cluster.plan) == {0, 1}
        cluster.scale(5)
        wait_until(lambda: any(isinstance(e, CapacityRequested) and e.desired > 2 for e in cluster.events), 60, "")
        cluster.scale(2)
        wait_until(lambda: clean.status().instances_running == 3, 60, "surplus instances are terminated")
        assert cluster.observed == {0, 1}
        assert gone(cluster) == []

        adaptive = cluster.adapt(minimum=0, maximum=4, interval="100ms", scale_down_after=0)
        cluster.scale(cores=3 * cluster.shape_of("default").nthreads)
        assert (len(cluster.plan), adaptive.state) == (3, "stopped")
        [said] = [e.message for e in cluster.events if isinstance(e, AdaptiveStopped)]
        assert "scale(3) stops adaptive scaling (0 to 4 workers)" in said
        client.wait_for_workers(3, timeout=60)
        assert len(cluster.plan) == 3, "no request is cancelled"
        cluster.adapt(minimum=0, maximum=4, interval="100ms", scale_down_after=0)
        wait_until(lambda: not cluster.observed, 60, "adaptive scaling has taken over again")


def test_scale_on_an_asynchronous_adaptive_cluster_sets_the_number_of_workers(clean: LocalAWS) -> None:
    async def work() -> None:
        adaptive = {"maximum": 4, "interval": "1 hour", "scale_down_after": 0}
        async with (
            local_cluster(clean, asynchronous=True, adaptive=adaptive) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            adapts = cluster._adaptive
            await cluster.scale(2)
            assert (set(cluster.plan), adapts.state) == ({0, 1}, "stopped")
            [said] = [e.message for e in cluster.events if isinstance(e, AdaptiveStopped)]
            assert said == "scale(2) stops adaptive scaling (0 to 4 workers); adapt() starts it again"
            await client.wait_for_workers(2, timeout=60)
            await adapts.adapt()  # a call that was under way; there is no work for two workers
            assert set(cluster.plan) == {0, 1}, "no request is cancelled"
            await cluster.scale(3)
            assert set(cluster.plan) == {0, 1, 2}
            assert gone(cluster) == []

    asyncio.run(work())


def test_from_zero_wait_for_workers_and_scatter_bring_workers(clean: LocalAWS) -> None:
    with local_cluster(clean, adaptive={"maximum": 3}) as cluster, Client(cluster) as client:
        assert client.run(where) == {}, "as on a LocalCluster without workers: `run` uses the existing workers"
        client.wait_for_workers(2, timeout=60)
        assert len(cluster.observed) >= 2
        cluster.adapt(minimum=0, maximum=3, interval="100ms", scale_down_after=0)
        wait_until(lambda: not cluster.observed, 60, "no worker is needed any more")
        assert client.gather(client.scatter([1, 2, 3])) == [1, 2, 3]
        assert len(ups(cluster)) == 3, "one worker started for the data"
        with pytest.raises(TimeoutError):
            cluster.wait_for_workers(4, timeout=0.5)
        [said] = [e.message for e in cluster.events if isinstance(e, WaitExceedsMaximum)]
        assert "wait_for_workers(4) waits for more workers than adaptive scaling allows: maximum=3" in said
        assert cluster.awaited == 0


def test_wait_for_workers_of_a_client_by_address_starts_none_but_its_data_and_work_do(
    clean: LocalAWS,
) -> None:
    with (
        local_cluster(clean, adaptive={"maximum": 3}) as cluster,
        Client(cluster.scheduler_address, security=cluster.security) as client,
    ):
        with pytest.raises(TimeoutError):
            client.wait_for_workers(1, timeout=3)
        assert (client.run(where), cluster.awaited, set(cluster.plan)) == ({}, 0, set())
        assert client.gather(client.scatter([1, 2])) == [1, 2]
        assert len(ups(cluster)) == 1
