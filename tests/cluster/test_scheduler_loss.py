"""The scheduler is killed, or AWS refuses the client: an event says so, and nothing is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.events import ClusterFailed, CredentialsRefused, Event, PoolLeft, WorkerRetiring, WorkerStartFailed
from dask_starburst.local import LocalAWS, faults
from dask_starburst.local.http.protocols import ServiceError
from tests.support.client_proxy import ClientProxy
from tests.support.cluster_asserts import costs_nothing, emitted, leftovers, nothing_left, wait_until

LEASE = 1800
#: The most seconds by which Auto Scaling delays a scheduled action (aws-facts finding 8).
LATE = 120


def _jobs() -> Any:
    """Return the functions that workers run; they are pickled by value, as workers cannot import tests."""

    def slow(x: int) -> int:
        time.sleep(0.2)
        return x

    return slow


slow = _jobs()


def cluster_of(aws: LocalAWS | ClientProxy, n_workers: int) -> StarburstCluster:
    return StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, n_workers=n_workers, quiet=True)


def schedulers(aws: LocalAWS) -> list[int]:
    return [pid for name, pid in aws.status().containers.items() if "scheduler" in name]


def kill_scheduler(aws: LocalAWS) -> None:
    [pid] = schedulers(aws)
    os.killpg(os.getpgid(pid), signal.SIGKILL)


def messages(cluster: StarburstCluster, kind: type[Event]) -> list[str]:
    return [event.message for event in emitted(cluster, kind)]


def closed(cluster: StarburstCluster) -> bool:
    return cluster.status.name == "closed"


def test_a_scheduler_killed_during_work_is_reported_within_a_minute_and_nothing_is_left(clean: LocalAWS) -> None:
    cluster = cluster_of(clean, 1)
    with Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        futures = client.map(slow, range(1000), pure=False)
        wait_until(lambda: any(f.done() for f in futures), 60, "some work is done")
        kill_scheduler(clean)
        wait_until(lambda: closed(cluster), 60, "the cluster closes")
    [text] = messages(cluster, ClusterFailed)
    assert "the scheduler was lost" in text
    assert "exit code 137" in text
    assert "start a new one" in text
    assert nothing_left(clean), leftovers(clean)


@pytest.mark.slow
def test_a_scheduler_killed_while_a_worker_retires_leaves_nothing(clean: LocalAWS) -> None:
    cluster = cluster_of(clean, 2)

    def kill(event: Event) -> None:
        if isinstance(event, WorkerRetiring):
            threading.Thread(target=kill_scheduler, args=(clean,)).start()

    with Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        held = client.map(slow, range(8), pure=False)
        client.gather(held)
        cluster.events.listen(kill)
        cluster.scale(1)
        wait_until(lambda: closed(cluster), 60, "the cluster closes")
    assert any("the scheduler was lost" in text for text in messages(cluster, ClusterFailed))
    assert nothing_left(clean), leftovers(clean)


def test_a_scheduler_killed_before_it_is_up_is_replaced(clean: LocalAWS) -> None:
    clean.play([faults.TaskStopsAtOnce(exit_code=137)])
    with cluster_of(clean, 0) as cluster:
        wait_until(lambda: messages(cluster, WorkerStartFailed), 60, "its end is told, with its last lines")
        [text] = messages(cluster, WorkerStartFailed)
        assert "exit code 137" in text
        cluster.scale(1)
        with Client(cluster) as client:
            assert client.submit(slow, 3).result(timeout=60) == 3
    assert nothing_left(clean), leftovers(clean)


def test_expired_credentials_are_emitted_and_the_lease_empties_the_pool(new_aws: LocalAWS) -> None:
    with ClientProxy(new_aws) as proxy:
        cluster = cluster_of(proxy, 1)
        cluster.wait_for_workers(1, timeout=60)
        proxy.refusal = ServiceError("ExpiredToken", "The security token included in the request is expired")
        wait_until(lambda: messages(cluster, CredentialsRefused), 60, "the refusal is emitted")
        [text] = messages(cluster, CredentialsRefused)
        assert "The security token included in the request is expired" in text
        assert "Log in again" in text
        with Client(cluster) as client:  # the scheduler renews the lease with its own credentials
            assert client.submit(slow, 3).result(timeout=60) == 3
        cluster.close()
        [left] = messages(cluster, PoolLeft)
        assert "its lease terminates its instances" in left
        assert not costs_nothing(new_aws), "the client could not terminate anything"
        new_aws.advance(LEASE + LATE)
        wait_until(lambda: costs_nothing(new_aws), 60, "the lease alone empties the pool")
