"""A failure in AWS reaches the user within a minute: one sentence with AWS's message and the next step."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dask_starburst import StarburstCluster
from dask_starburst.errors import CapacityUnavailable, StarburstError, WorkerFailed
from dask_starburst.events import (
    InstanceGivenUp,
    InstanceLaunched,
    LaunchFailed,
    WorkerFallback,
    WorkerLost,
    WorkerMovesBack,
    WorkerReady,
    WorkerStartFailed,
)
from dask_starburst.local import LocalAWS, faults
from tests.support.cluster_asserts import emitted, leftovers, wait_until

WORKER = "*-worker"


@pytest.fixture(scope="module")
def cluster(aws: LocalAWS) -> Iterator[StarburstCluster]:
    """Yield a cluster without workers; every test requests its own and leaves none."""
    with StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, n_workers=0, quiet=True) as running:
        yield running
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}


@pytest.fixture(autouse=True)
def fair_again(aws: LocalAWS, cluster: StarburstCluster) -> Iterator[None]:
    yield
    aws.play([faults.Clear()])
    aws.set_speed(1.0)
    cluster.scale(0)
    wait_until(lambda: alone(aws), 60, "only the scheduler and its instance are there")
    aws.advance(400)  # neither the controller nor Auto Scaling remembers a refusal
    assert cluster._cloud is not None
    clock = cluster._cloud.aws
    wait_until(lambda: abs(clock.now() - aws.now()) < 5, 60, "the cluster has updated its clock")


def alone(aws: LocalAWS) -> bool:
    status = aws.status()
    return (status.tasks_running, status.instances_running, status.desired) == (1, 1, 1)


def failure(cluster: StarburstCluster, n: int = 1) -> StarburstError:
    """Request workers that cannot start, and return the error."""
    cluster.scale(n)
    with pytest.raises(StarburstError) as caught:
        cluster.wait_for_workers(n, timeout=60)
    return caught.value


@pytest.mark.parametrize(
    ("bad_luck", "words", "advice"),
    [
        pytest.param(
            faults.PullFailure(count=3, family=WORKER),
            "CannotPullContainerError",
            "may pull it",
            marks=pytest.mark.slow,
        ),
        (faults.ExecFormat(count=3, family=WORKER), "exec format error", "another architecture"),
        (
            faults.TaskStopsAtOnce(count=3, family=WORKER, exit_code=1, log="No module named 'dask_starburst'"),
            "exit code 1",
            "must hold dask_starburst",
        ),
    ],
    ids=["pull", "exec-format", "stops-at-once"],
)
def test_a_worker_that_fails_to_start_has_an_error_with_reason_and_advice(
    aws: LocalAWS, cluster: StarburstCluster, bad_luck: faults.Event, words: str, advice: str
) -> None:
    aws.set_speed(4.0)
    begun, events = aws.now(), len(cluster.events)
    aws.play([bad_luck])
    error = failure(cluster)
    assert isinstance(error, WorkerFailed)
    assert words in str(error)
    assert advice in str(error)
    first = emitted(cluster, WorkerStartFailed, events)[0]
    assert words in first.message
    assert first.time - begun < 60


def test_a_worker_that_is_killed_for_its_memory_is_replaced(aws: LocalAWS, cluster: StarburstCluster) -> None:
    events = len(cluster.events)
    cluster.scale(1)
    # Dask registers a worker shortly before the controller emits it.
    wait_until(lambda: emitted(cluster, WorkerReady, events), 60, "the worker is up")
    events = len(cluster.events)
    aws.play([faults.OutOfMemory(family=WORKER)])
    wait_until(lambda: emitted(cluster, WorkerReady, events), 60, "the replacement is up")
    (lost,) = emitted(cluster, WorkerLost, events)
    assert "OutOfMemoryError" in lost.message
    assert "larger worker=" in lost.message


def test_a_vcpu_quota_raises_within_about_a_minute(aws: LocalAWS, cluster: StarburstCluster) -> None:
    aws.play([faults.Quota(market="spot", vcpus=0)])
    aws.set_speed(10.0)
    begun, events = aws.now(), len(cluster.events)
    error = failure(cluster)
    assert isinstance(error, CapacityUnavailable)
    assert "MaxSpotInstanceCountExceeded" in str(error)
    assert "Service Quotas" in str(error)
    assert emitted(cluster, LaunchFailed, events)[0].time - begun < 60
    assert aws.now() - begun < 120


def test_a_misconfigured_account_raises_within_about_a_minute(aws: LocalAWS, cluster: StarburstCluster) -> None:
    iam = aws.client("iam")
    (profile,) = iam.list_instance_profiles()["InstanceProfiles"]
    name, role = profile["InstanceProfileName"], profile["Roles"][0]["RoleName"]
    iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=role)
    iam.delete_instance_profile(InstanceProfileName=name)
    try:
        aws.set_speed(10.0)
        begun = aws.now()
        error = failure(cluster)
        assert "Invalid IAM Instance Profile" in str(error)
        assert "in the request or in the account" in str(error)
        assert aws.now() - begun < 120
    finally:
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=role)


def test_a_type_that_fails_is_excluded_and_another_one_is_launched(aws: LocalAWS, cluster: StarburstCluster) -> None:
    events = len(cluster.events)
    cheapest = "c6g.xlarge"
    aws.play([faults.Refuses(type=cheapest, market="spot", seconds=600)])
    cluster.scale(1)
    cluster.wait_for_workers(1, timeout=60)
    failed = emitted(cluster, LaunchFailed, events)
    launched = emitted(cluster, InstanceLaunched, events)
    assert launched[0].type != cheapest
    for event in failed:
        assert f"no spot {cheapest}" in event.message
        assert "1 of 10 allowed types" in event.message


def test_a_market_without_capacity_gets_advice_on_what_to_allow(aws: LocalAWS, cluster: StarburstCluster) -> None:
    begun, events = aws.now(), len(cluster.events)
    aws.play([faults.Capacity(room=0, market="spot")])
    cluster.scale(1)
    wait_until(lambda: emitted(cluster, LaunchFailed, events), 60, "AWS's refusal is emitted")
    event = emitted(cluster, LaunchFailed, events)[0]
    assert "spot_with_fallback" in event.message
    assert event.time - begun < 60


@pytest.fixture
def falling_back(aws: LocalAWS) -> Iterator[StarburstCluster]:
    with StarburstCluster(
        cloud="local",
        endpoint_url=aws.endpoint_url,
        n_workers=0,
        quiet=True,
        spot={"policy": "spot_with_fallback"},
        timeouts={"capacity": "10 s", "fallback": "1 s"},
    ) as running:
        yield running


def test_workers_fall_back_to_on_demand_without_spot_capacity_and_move_back(
    aws: LocalAWS, falling_back: StarburstCluster
) -> None:
    cluster = falling_back
    aws.play([faults.Capacity(room=0, market="spot")])
    cluster.scale(2)
    cluster.wait_for_workers(2, timeout=60)
    assert {e.subject for e in emitted(cluster, WorkerFallback)} == {0, 1}
    markets = [e.market for e in emitted(cluster, InstanceLaunched) if e.placement != "head"]
    assert markets == ["on-demand", "on-demand"]
    aws.play([faults.Clear(), faults.Capacity(room=None, market="spot")])
    aws.advance(200)  # three minutes: the refusal is forgotten
    wait_until(lambda: len(emitted(cluster, WorkerMovesBack)) == 2, 60, "both move back, one after the other")
    wait_until(lambda: spot_alone(cluster), 60, "both are on Spot, and nothing else runs")
    assert len(cluster.scheduler_info["workers"]) == 2


def spot_alone(cluster: StarburstCluster) -> bool:
    assert cluster._session is not None
    assert cluster._session.controller is not None
    groups = [
        str(i.placement) for i in cluster._session.controller.roster.observed.instances.values() if not i.terminating
    ]
    return sorted(groups) == ["head", "spot", "spot"]


def test_an_instance_whose_agent_never_connects_is_replaced(aws: LocalAWS, falling_back: StarburstCluster) -> None:
    aws.set_speed(4.0)
    events = len(falling_back.events)
    aws.play([faults.AgentNever(group="*-spot")])
    falling_back.scale(1)
    falling_back.wait_for_workers(1, timeout=60)
    (given_up,) = emitted(falling_back, InstanceGivenUp, events)
    assert "ECS agent has not connected within 10 s" in given_up.message
    assert "can the subnet reach ECS" in given_up.message
