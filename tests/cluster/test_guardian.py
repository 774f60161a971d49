"""The scheduler keeps the lease of its pool, and empties the pool when it is idle."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.events import ClusterFailed
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import costs_nothing, read_until, script_process, wait_until

LEASE = 60
#: The most seconds by which Auto Scaling delays a scheduled action (aws-facts finding 8).
LATE = 120
#: More than a third of the lease by the scheduler's clock, with a margin for a busy computer.
RENEWAL = LEASE / 3 + 20

SCRIPT = """
import os, time
from dask.distributed import Client, fire_and_forget
from dask_starburst import StarburstCluster

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.1)

if __name__ == "__main__":
    cluster = StarburstCluster(cloud="local", endpoint_url={url!r}, n_workers=1, keep={keep})
    client = Client(cluster)
    client.wait_for_workers(1)
    {work}
    print("WORKING", flush=True)
    try:
        while cluster.status.name == "running":
            print("ANSWER", client.submit(sum, [1, 2], pure=False).result(), flush=True)
            time.sleep(0.5)
    finally:  # the client may lose the scheduler before the cluster has emitted the reason
        deadline = time.monotonic() + 30
        while cluster.status.name == "running" and time.monotonic() < deadline:
            time.sleep(0.1)
        print("ENDED", *[e.message for e in cluster.events if e.kind == "cluster-failed"], flush=True)
"""


def client_process(aws: LocalAWS, work: str = "pass") -> AbstractContextManager[subprocess.Popen[str]]:
    """Run a script that launches one worker, does `work`, and keeps calling it."""
    return script_process(SCRIPT.format(url=aws.endpoint_url, keep={"lease": LEASE, "no_client_timeout": 3}, work=work))


def first_due(aws: LocalAWS) -> datetime | None:
    actions = aws.client("autoscaling").describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    return min((a["StartTime"] for a in actions), default=None)


def live_through_more_than_a_lease(aws: LocalAWS) -> None:
    before = first_due(aws)
    assert before is not None
    aws.advance(LEASE * 0.55)
    wait_until(lambda: (first_due(aws) or before) > before, RENEWAL, "the scheduler renews the lease")
    aws.advance(LEASE * 0.55)
    time.sleep(1)  # an action that is due now would be executed by then


def scheduler_log(aws: LocalAWS) -> str:
    logs = aws.client("logs")
    events = logs.filter_log_events(logGroupName="/starburst")["events"]
    return "\n".join(e["message"] for e in events)


def kill_scheduler(aws: LocalAWS) -> None:
    [pid] = [pid for name, pid in aws.status().containers.items() if "scheduler" in name]
    os.killpg(os.getpgid(pid), signal.SIGKILL)


def test_the_scheduler_renews_the_lease_for_a_dead_client_during_work_and_then_empties_its_pool(
    tmp_path: Any, new_aws: LocalAWS
) -> None:
    done = tmp_path / "done"
    with client_process(new_aws, f"fire_and_forget(client.submit(wait_for, {str(done)!r}))") as process:
        read_until(process, "ANSWER")
        process.kill()
        process.wait()
        live_through_more_than_a_lease(new_aws)
        assert new_aws.status().tasks_running == 2
        done.touch()
        before = new_aws.now()
        wait_until(lambda: costs_nothing(new_aws), 60, "the scheduler empties its pool")
        assert new_aws.now() - before < LEASE / 2, "long before the lease"
        assert "no client was connected for 3 s" in scheduler_log(new_aws)


@pytest.mark.parametrize("first", ["scheduler", pytest.param("client", marks=pytest.mark.slow)])
def test_without_client_and_scheduler_the_lease_alone_empties_the_pool(first: str, new_aws: LocalAWS) -> None:
    with client_process(new_aws) as process:
        read_until(process, "ANSWER")
        process.send_signal(signal.SIGSTOP)  # otherwise it would notice the scheduler's end, and clean up
        if first == "scheduler":
            kill_scheduler(new_aws)
        process.kill()
        process.wait()
        if first == "client":
            kill_scheduler(new_aws)
        assert not costs_nothing(new_aws)
        new_aws.advance(LEASE + LATE)
        wait_until(lambda: costs_nothing(new_aws), 60, "zero by the lease alone")


@pytest.mark.slow
def test_a_client_that_slept_longer_than_its_lease_continues_if_the_scheduler_has_renewed(new_aws: LocalAWS) -> None:
    with client_process(new_aws) as process:
        read_until(process, "ANSWER")
        process.send_signal(signal.SIGSTOP)
        live_through_more_than_a_lease(new_aws)
        process.send_signal(signal.SIGCONT)
        # Unlike on a sleeping computer, the client's clock did not jump with AWS's: AWS may refuse its first renewal,
        # which is in the past, until the client has read AWS's clock.
        for _ in range(20):  # more than the pipe's buffer, and some seconds of the client's loop
            read_until(process, "ANSWER 3")


@pytest.mark.slow
def test_a_refused_renewal_is_logged_and_a_client_that_slept_detects_its_expired_lease(new_aws: LocalAWS) -> None:
    with client_process(new_aws) as process:
        read_until(process, "ANSWER")
        process.send_signal(signal.SIGSTOP)
        text = "User: starburst-scheduler is not authorized to perform: autoscaling:PutScheduledUpdateGroupAction"
        new_aws.inject("autoscaling:PutScheduledUpdateGroupAction", "AccessDenied", text, status=403, times=1000)
        wait_until(lambda: text in scheduler_log(new_aws), RENEWAL, "the refusal is logged")
        assert new_aws.status().tasks_running == 2, "the scheduler continues"
        new_aws.advance(LEASE + LATE)
        process.send_signal(signal.SIGCONT)
        said = read_until(process, "ENDED")
        assert "lease" in said
        assert "tart a new cluster" in said
        wait_until(lambda: costs_nothing(new_aws), 60, "the lease empties the pool")


def test_an_idle_cluster_closes_and_the_client_emits_the_reason(clean: LocalAWS) -> None:
    cluster = StarburstCluster(
        cloud="local", endpoint_url=clean.endpoint_url, n_workers=1, keep={"idle_timeout": "6 s"}, quiet=True
    )
    wait_until(lambda: cluster.status.name == "closed", 60, "the cluster closes")
    [failure] = [e for e in cluster.events if isinstance(e, ClusterFailed)]
    assert "there was no work for 6 s (idle_timeout)" in failure.message
    # Scheduler or client may set the groups to zero first: the client closes once it has read the reason in the log.
    assert "is shutting down its pool" in scheduler_log(clean), "by the scheduler, not by the client"
    assert costs_nothing(clean)


def test_a_cluster_object_counts_as_a_client(clean: LocalAWS) -> None:
    with StarburstCluster(
        cloud="local", endpoint_url=clean.endpoint_url, n_workers=0, keep={"no_client_timeout": "2 s"}, quiet=True
    ) as cluster:
        with pytest.raises(AssertionError, match="the cluster closes"):
            wait_until(lambda: cluster.status.name != "running", 8, "the cluster closes")
        assert cluster.status.name == "running"
