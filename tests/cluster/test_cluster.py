"""Scaling, results and losses, with real processes on the embedded AWS."""

from __future__ import annotations

import os
import signal
import statistics
import time
from typing import Any

import pytest
from dask.distributed import Client, get_worker

from dask_starburst import StarburstCluster
from dask_starburst.cluster.adaptive import CloudAdaptive
from dask_starburst.events import InstanceLaunched, WorkerLeaving, WorkerLost, WorkerReady, WorkerRetiring
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import wait_until


def local_cluster(aws: LocalAWS, **arguments: Any) -> StarburstCluster:
    return StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True, **arguments)


def _jobs() -> tuple[Any, Any]:
    """Return the functions that workers run; local functions are pickled by value, as workers cannot import tests."""

    def slow_square(x: int) -> int:
        time.sleep(0.2)
        return x * x

    def worker_name() -> Any:
        return get_worker().name

    return slow_square, worker_name


slow_square, worker_name = _jobs()


def running_instances(aws: LocalAWS) -> int:
    return aws.status().instances_running


def test_a_cluster_scales_from_none_to_two_to_one_and_leaves_nothing(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=0) as cluster, Client(cluster) as client:
        assert client.nthreads() == {}
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        assert sum(client.gather(client.map(slow_square, range(30)))) == sum(x * x for x in range(30))
        assert running_instances(clean) == 3  # one more for the scheduler
        cluster.scale(1)
        wait_until(lambda: len(client.nthreads()) == 1, 60, "one worker")
        wait_until(lambda: running_instances(clean) == 2, 60, "one worker's instance and the scheduler's")
        assert client.submit(sum, [1, 2, 3]).result() == 6


def test_results_move_to_the_workers_that_stay(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=3) as cluster, Client(cluster) as client:
        client.wait_for_workers(3, timeout=60)
        held = client.map(slow_square, range(30), pure=False)
        client.gather(held)
        holders = {w for workers in client.who_has(held).values() for w in workers}
        assert len(holders) == 3
        cluster.scale(1)
        wait_until(lambda: len(client.nthreads()) == 1, 60, "one worker")
        [survivor] = client.nthreads()
        assert {w for workers in client.who_has(held).values() for w in workers} == {survivor}


def test_adaptive_scaling_follows_the_work_up_and_down(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=0) as cluster, Client(cluster) as client:
        cluster.adapt(minimum=0, maximum=2, interval="200 ms")
        futures = client.map(slow_square, range(100))
        assert client.gather(futures) == [x * x for x in range(100)]
        assert len(client.nthreads()) == 2
        del futures
        wait_until(lambda: not client.nthreads(), 60, "no worker")
        wait_until(lambda: running_instances(clean) == 1, 60, "the scheduler's instance only")


class FailingTarget(CloudAdaptive):
    """Fails at its second and third query of the scheduler."""

    calls = 0

    async def target(self) -> int:
        self.calls += 1
        if self.calls in (2, 3):
            raise OSError("no answer")
        return await super().target()


def test_adaptive_scaling_continues_after_an_error_and_keeps_new_workers(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=0) as cluster, Client(cluster) as client:
        adaptive = cluster.adapt(Adaptive=FailingTarget, minimum=0, maximum=2)
        client.submit(slow_square, 1).result(timeout=60)
        futures = client.map(slow_square, range(60), pure=False)
        assert client.gather(futures) == [x * x for x in range(60)]
        assert adaptive.calls > 3
        kinds = [type(e) for e in cluster.events]
        assert WorkerRetiring not in kinds[: kinds.index(WorkerReady) + 1]
        # It has measured its startup times; its patience is one of them, or ten seconds.
        startups = cluster._controller.startups.snapshot(0.0).measured
        assert adaptive.scale_down_after == min(max(2.0, statistics.median(startups)), 10.0)


@pytest.mark.slow
def test_a_cluster_without_n_workers_adapts(clean: LocalAWS) -> None:
    with local_cluster(clean) as cluster, Client(cluster) as client:
        assert client.submit(slow_square, 7).result(timeout=60) == 49


def test_a_worker_killed_during_work_is_replaced_and_every_result_is_right(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=2) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        futures = client.map(slow_square, range(60), pure=False)
        wait_until(lambda: any(f.done() for f in futures), 60, "some work done")
        victim = next(iter(client.run(os.getppid).values()))  # the nanny, which is the container
        os.killpg(os.getpgid(victim), signal.SIGKILL)
        assert client.gather(futures) == [x * x for x in range(60)]
        wait_until(lambda: any(isinstance(e, WorkerLost) for e in cluster.events), 60, "the loss is emitted")
        wait_until(lambda: len(client.nthreads()) == 2, 60, "two workers again")
        [lost] = [e for e in cluster.events if isinstance(e, WorkerLost)]
        assert "exit code 137" in lost.message


def test_a_worker_whose_instance_is_terminated_is_replaced_on_another(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=2) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=60)
        launched = [e for e in cluster.events if isinstance(e, InstanceLaunched) and e.group == "default"]
        clean.client("ec2").terminate_instances(InstanceIds=[launched[0].subject])
        # Its container gets SIGTERM and transfers its data; if there is no time for that, the worker is lost.
        leaving = WorkerLeaving | WorkerLost
        wait_until(lambda: any(isinstance(e, leaving) for e in cluster.events), 60, "its leaving is emitted")
        wait_until(lambda: len(client.nthreads()) == 2, 60, "two workers again")
        assert client.gather(client.map(slow_square, range(8))) == [x * x for x in range(8)]
        # The group replaces the terminated instance, so the desired capacity must not stay higher.
        wait_until(lambda: running_instances(clean) == 3, 60, "two workers' instances and the scheduler's")


async def _asynchronous(aws: LocalAWS) -> int:
    cluster = local_cluster(aws, n_workers=1, asynchronous=True)
    async with cluster, Client(cluster, asynchronous=True) as client:
        return await client.submit(slow_square, 9)


def test_it_works_with_async_and_await(clean: LocalAWS) -> None:
    import asyncio

    assert asyncio.run(_asynchronous(clean)) == 81


@pytest.mark.slow
def test_it_works_where_all_instances_share_one_address() -> None:
    """As on macOS, which has only one loopback address."""
    with (
        LocalAWS(aliases=False) as aws,
        local_cluster(aws, n_workers=2) as one,
        local_cluster(aws, n_workers=0) as two,
        Client(one) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        assert client.gather(client.map(slow_square, range(4))) == [0, 1, 4, 9]
        assert {a.split(":")[1] for a in (one.scheduler_address, two.scheduler_address)} == {"//127.0.0.1"}


def test_logs_include_those_of_ended_workers(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=1) as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        client.run(lambda: print("said by a worker", flush=True))
        wait_until(lambda: "said by a worker" in str(cluster.get_logs()[0]), 60, "the line is in the log")
        cluster.scale(0)
        wait_until(lambda: not client.nthreads(), 60, "no worker")
        logs = cluster.get_logs()
        assert "said by a worker" in logs[0]
        assert "Scheduler at" in logs["Scheduler"]
        assert "is up" in logs["Cluster"]
        assert set(cluster.get_logs(cluster=False, scheduler=False, workers=[0])) == {0}


def test_a_worker_that_fails_to_start_is_explained_and_does_not_block_others(clean: LocalAWS) -> None:
    with local_cluster(clean, n_workers=1) as cluster, Client(cluster) as client:
        client.wait_for_workers(1, timeout=60)
        clean.inject("ecs:RunTask", "ClientException", "the moon is in the way", times=3)
        clean.set_speed(5)  # between its attempts
        cluster.scale(2)
        with pytest.raises(Exception, match="the moon is in the way"):
            client.cluster.wait_for_workers(2, timeout=60)
        clean.set_speed(1)
        assert client.submit(worker_name).result() == 0
        assert "1 failed" in repr(cluster)
        cluster.scale(2)  # a new request is a new attempt
        client.wait_for_workers(2, timeout=60)
