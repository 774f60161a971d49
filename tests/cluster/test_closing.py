"""Closing: nothing is billed afterwards, even if AWS calls or a credential provider fail."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.errors import StarburstError
from dask_starburst.events import Event, PoolClaimed, PoolKeptWarm, PoolLeft
from dask_starburst.local import LocalAWS, faults
from tests.support.cluster_asserts import costs_nothing, emitted, leftovers, nothing_left, wait_until

pytestmark = pytest.mark.timeout(300)

WARM = 600
#: So slow that terminating instances stay terminating for the whole test.
SLOW = 0.02


def local_cluster(aws: LocalAWS, **arguments: Any) -> StarburstCluster:
    return StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, quiet=True, **arguments)


def messages(cluster: StarburstCluster, kind: type[Event]) -> list[str]:
    return [event.message for event in emitted(cluster, kind)]


def states(aws: LocalAWS) -> dict[str, str]:
    return {instance["id"]: instance["state"] for instance in aws.instances()}


def running(aws: LocalAWS) -> set[str]:
    return {instance for instance, state in states(aws).items() if state == "running"}


def admitted(aws: LocalAWS) -> list[str]:
    groups = aws.client("ec2").describe_security_groups()["SecurityGroups"]
    return [
        f"{group['GroupName']}: {rule['CidrIp']}"
        for group in groups
        if group["GroupName"].startswith("starburst")
        for permission in group["IpPermissions"]
        for rule in permission["IpRanges"]
    ]


def leases(aws: LocalAWS) -> list[str]:
    actions = aws.client("autoscaling").describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    return [action["AutoScalingGroupName"] for action in actions]


def call_counts(cluster: StarburstCluster) -> dict[str, int]:
    assert cluster._cloud is not None
    return dict(cluster._cloud.aws.calls)


@contextmanager
def slowly(aws: LocalAWS) -> Iterator[None]:
    """Slow the embedded AWS down."""
    aws.set_speed(SLOW)
    try:
        yield
    finally:
        aws.set_speed(1.0)


def test_close_returns_when_nothing_is_billed_and_the_pool_is_reusable_at_once(clean: LocalAWS) -> None:
    first = local_cluster(clean, n_workers=1)
    first.wait_for_workers(1, timeout=60)
    old = running(clean)
    with slowly(clean):
        first.close()
        assert {states(clean)[instance] for instance in old} == {"shutting-down"}
        assert costs_nothing(clean), leftovers(clean)
        assert "ecs:StopTask" not in call_counts(first), "tasks end with their scheduler and their instances"
        clean.set_speed(0.2)  # the old instances are still terminating while the new ones boot
        with local_cluster(clean, n_workers=1) as second, Client(second) as client:
            assert messages(second, PoolClaimed) == messages(first, PoolClaimed)
            assert client.submit(sum, [1, 2]).result(timeout=120) == 3
            assert "ecs:StopTask" not in call_counts(second)
            used = {task["containerInstanceArn"] for task in clean.tasks() if task["status"] == "RUNNING"}
            observed = second._controller.roster.observed.instances.values()
            assert {i.id for i in observed if i.arn in used}.isdisjoint(old)
    assert nothing_left(clean), leftovers(clean)


def test_a_pool_that_is_kept_warm_is_free_at_once(clean: LocalAWS) -> None:
    first = local_cluster(clean, n_workers=1, keep={"warm_timeout": WARM})
    first.wait_for_workers(1, timeout=60)
    old = running(clean)
    first.close()
    assert messages(first, PoolKeptWarm)
    with local_cluster(clean, n_workers=1, keep={"warm_timeout": WARM}) as second, Client(second) as client:
        client.wait_for_workers(1, timeout=60)
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3
        assert running(clean) == old, "no instance was launched"
    assert messages(second, PoolKeptWarm)
    clean.advance(WARM + 240)
    wait_until(lambda: nothing_left(clean), 60, "the lease empties the pool")


def test_a_scheduler_that_cannot_be_terminated_is_gone_before_the_pool_is_free(
    clean: LocalAWS,
) -> None:
    cluster = local_cluster(clean, n_workers=0)
    [head] = running(clean)
    [pid] = [pid for name, pid in clean.status().containers.items() if "scheduler" in name]
    os.killpg(os.getpgid(pid), signal.SIGSTOP)
    cluster.close()
    assert states(clean)[head] == "terminated"


def test_the_release_is_retried_while_aws_fails(clean: LocalAWS) -> None:
    cluster = local_cluster(clean, n_workers=1)
    cluster.wait_for_workers(1, timeout=60)
    clean.play([faults.Error(action="*", count=30)])
    cluster.close()
    assert cluster.status.name == "closed"
    assert messages(cluster, PoolLeft) == []
    assert admitted(clean) == []
    assert leases(clean) == []
    assert nothing_left(clean), leftovers(clean)


#: The successive calls of a start once its pool is claimed; the first run concurrently with the ingress rule.
STAGES = (
    "ecs:CreateCluster",
    "autoscaling:CreateAutoScalingGroup",
    "ecs:CreateCapacityProvider",
    "ecs:PutClusterCapacityProviders",
    "ecs:RegisterTaskDefinition",
    "autoscaling:PutScheduledUpdateGroupAction",
    "autoscaling:UpdateAutoScalingGroup",
)


@pytest.mark.parametrize("stages", [STAGES[::3], pytest.param(STAGES, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_start_that_fails_at_any_stage_leaves_nothing_that_costs_or_opens(
    new_aws: LocalAWS, stages: tuple[str, ...]
) -> None:
    for action in stages:  # each start finds the resources of the one before, and comes further
        new_aws.inject(action, "AccessDenied", f"User is not authorized to perform: {action}", status=403)
        with pytest.raises(StarburstError, match=action):
            local_cluster(new_aws, n_workers=1)
        assert (action, admitted(new_aws)) == (action, [])
        assert (action, leases(new_aws)) == (action, [])
        assert (action, nothing_left(new_aws)) == (action, True), leftovers(new_aws)


def test_a_start_that_fails_in_a_warm_pool_terminates_its_instances(clean: LocalAWS) -> None:
    local_cluster(clean, n_workers=0, keep={"warm_timeout": WARM}).close()
    assert len(leases(clean)) == 2
    action = "autoscaling:PutScheduledUpdateGroupAction"
    clean.inject(action, "AccessDenied", f"User is not authorized to perform: {action}", status=403)
    with pytest.raises(StarburstError, match=action):
        local_cluster(clean, n_workers=0, keep={"warm_timeout": WARM})
    assert admitted(clean) == []
    assert nothing_left(clean), leftovers(clean)


@pytest.fixture
def helper(clean: LocalAWS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Yield the file that a ``credential_process`` prints; it is read again at each call."""
    keys = clean.session().get_credentials().get_frozen_credentials()
    printed = tmp_path / "credentials.json"
    soon = datetime.now(UTC) + timedelta(minutes=5)
    document = {
        "Version": 1,
        "AccessKeyId": keys.access_key,
        "SecretAccessKey": keys.secret_key,
        "Expiration": soon.isoformat(),
    }
    printed.write_text(json.dumps(document | ({"SessionToken": keys.token} if keys.token else {})))
    config = tmp_path / "config"
    config.write_text(f"[profile helped]\nregion = us-east-1\ncredential_process = cat {printed}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    return printed


def test_a_failing_credential_process_does_not_block_close_and_the_event_names_the_end_of_the_lease(
    clean: LocalAWS, helper: Path
) -> None:
    cluster = StarburstCluster(
        n_workers=0,
        image="some/image:1",
        endpoint_url=clean.endpoint_url,
        profile="helped",
        network={"caller": "127.0.0.1/32"},
        timeouts={"poll": 0.25},
        quiet=True,
    )
    working = helper.read_text()
    helper.write_text("Please log in.")  # a JSONDecodeError in botocore
    cluster.close()
    assert cluster.status.name == "closed"
    [left] = messages(cluster, PoolLeft)
    assert "JSONDecodeError" in left
    assert "credential_process" in left
    assert "its lease terminates its instances" in left
    helper.write_text(working)
    clean.advance(1800 + 240)
    wait_until(lambda: costs_nothing(clean), 60, "the lease empties the pool")
    for parameter in leftovers(clean)["parameters"]:
        clean.client("ssm").delete_parameter(Name=parameter)
