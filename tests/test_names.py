"""Workers have Dask's own names, 0, 1, …, on both sides: in the cluster, in the scheduler, and in what is told."""

from __future__ import annotations

from typing import Any

from dask.distributed import Client, get_worker

from dask_starburst.local import LocalAWS
from tests.evidence import wait_until
from tests.test_cluster import local_cluster


def _job() -> Any:
    """Make what workers run: it travels by value, since workers have no tests."""

    def where() -> Any:
        return get_worker().name

    return where


where = _job()


def test_the_cluster_and_the_scheduler_call_workers_the_same(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=2) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        wait_until(lambda: set(cluster.plan) == cluster.observed, 10, "the cluster has heard of both")
        assert set(cluster.plan) == cluster.requested == cluster.observed == set(cluster.workers) == {0, 1}
        assert {w["name"] for w in client.scheduler_info(n_workers=-1)["workers"].values()} == {0, 1}
        first = next(iter(cluster.workers))
        assert client.submit(where, workers=first).result(timeout=30) == first
        assert {e.subject for e in cluster.events if e.kind == "worker-ready"} == {"scheduler", 0, 1}
        assert set(cluster.get_logs(cluster=False, scheduler=False, workers=[1])) == {1}

        cluster.sync(cluster.scale_down, [0])
        wait_until(lambda: cluster.observed == {1}, 60, "the worker that was named has gone")
        assert set(cluster.plan) == {1}
        assert [e.subject for e in cluster.events if e.kind == "worker-retiring"] == [0]
        assert not [e for e in cluster.events if e.kind == "worker-lost"]
