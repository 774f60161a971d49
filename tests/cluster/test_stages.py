"""The client is killed at every stage of a start and of a close: nothing that costs money outlives the lease."""

from __future__ import annotations

import asyncio
import math
import signal
import threading
from datetime import datetime

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.aws.session import AWS
from dask_starburst.fleet.pool import discovery
from dask_starburst.local import LocalAWS
from tests.support.client_proxy import ClientProxy
from tests.support.cluster_asserts import (
    costs_nothing,
    leftovers,
    nothing_left,
    objects,
    read_until,
    script_process,
    wait_until,
)

#: The default of the settings, in seconds.
LEASE = 1800
#: The most seconds by which Auto Scaling delays a scheduled action (aws-facts finding 8).
LATE = 120
#: Client and scheduler renew the lease; a scheduler that starts after its client's death renews it once more.
_RENEWALS = 2

SCRIPT = """
from dask.distributed import Client
from dask_starburst import StarburstCluster

if __name__ == "__main__":
    with StarburstCluster(cloud="local", endpoint_url={url!r}, n_workers=1{more}) as cluster, Client(cluster) as client:
        print("ANSWER", client.submit(sum, [1, 2]).result(), flush=True)
"""

#: Every changing call of a start and a close, in about this order; some run concurrently.
CALLS = (
    "logs:CreateLogGroup 1",
    "logs:PutRetentionPolicy 1",
    *(f"iam:CreateRole {n}" for n in (1, 2, 3, 4)),
    *(f"iam:CreateServiceLinkedRole {n}" for n in (1, 2, 3)),
    *(f"iam:PutRolePolicy {n}" for n in (1, 2, 3)),
    "iam:CreateInstanceProfile 1",
    "iam:AddRoleToInstanceProfile 1",
    "ec2:CreateSecurityGroup 1",
    "ec2:AuthorizeSecurityGroupIngress 1",
    "ssm:PutParameter 1",  # the claim
    "ec2:CreateSecurityGroup 2",
    "ecs:CreateCluster 1",
    *(f"ec2:AuthorizeSecurityGroupIngress {n}" for n in (2, 3)),
    *(f"ec2:CreateLaunchTemplate {n}" for n in (1, 2)),
    *(f"autoscaling:CreateAutoScalingGroup {n}" for n in (1, 2)),
    *(f"ecs:CreateCapacityProvider {n}" for n in (1, 2)),
    "ecs:PutClusterCapacityProviders 1",
    "ssm:PutParameter 2",  # the secret
    *(f"ecs:RegisterTaskDefinition {n}" for n in (1, 2)),
    *(f"autoscaling:PutScheduledUpdateGroupAction {n}" for n in (1, 2)),
    *(f"autoscaling:UpdateAutoScalingGroup {n}" for n in (1, 2)),  # opened
    *(f"autoscaling:SetDesiredCapacity {n}" for n in (1, 2)),
    *(f"ecs:RunTask {n}" for n in (1, 2)),
    *(f"autoscaling:UpdateAutoScalingGroup {n}" for n in (3, 4)),  # zeroed
    "ssm:PutParameter 3",  # the secret is overwritten
    *(f"autoscaling:DeleteScheduledAction {n}" for n in (1, 2)),
    "ec2:RevokeSecurityGroupIngress 1",
    "ssm:PutParameter 4",  # the claim is freed
)
#: Events between two calls.
WORDS = ("is booting", "is ready for the scheduler", "the scheduler is up", "worker 0 is up", "ANSWER")
#: A client may be killed before AWS has executed a call, and after it, without the response.
BEFORE = (
    "ssm:PutParameter 1",
    "autoscaling:PutScheduledUpdateGroupAction 1",
    "autoscaling:UpdateAutoScalingGroup 1",
    "autoscaling:SetDesiredCapacity 1",
    "ecs:RunTask 1",
    "autoscaling:UpdateAutoScalingGroup 3",
    "ssm:PutParameter 4",
)
#: Calls of a close that keeps the pool warm: lease shortened, lease again, sizes reduced, claim freed.
KEEP = ", keep={'warm_timeout': '10 minutes'}"
GIVEN_BACK = (
    "autoscaling:PutScheduledUpdateGroupAction 3",
    "autoscaling:PutScheduledUpdateGroupAction 6",
    "autoscaling:UpdateAutoScalingGroup 3",
    "ssm:PutParameter 4",
)
#: Calls of a start that reuses such a pool: claim, lease, warm tag removed, groups opened.
TAKEN = (
    "ssm:PutParameter 1",
    "autoscaling:PutScheduledUpdateGroupAction 1",
    "autoscaling:DeleteTags 1",
    "autoscaling:UpdateAutoScalingGroup 1",
)
#: One call for each stage: the account, the pool, tasks on their instances, the release.
QUICK = (
    "logs:CreateLogGroup 1",
    "autoscaling:CreateAutoScalingGroup 1",
    "ecs:RunTask 2",
    "autoscaling:UpdateAutoScalingGroup 3",
)


def killed_at_call(aws: LocalAWS, call: str, moment: str, more: str = "") -> None:
    """Run a client that is killed right before or right after AWS executes a call."""
    born = threading.Event()

    def end(name: str) -> bool:
        if name != call:
            return False
        born.wait()
        process.kill()
        process.wait()
        return True

    with ClientProxy(aws) as proxy:
        setattr(proxy, moment, end)
        with script_process(SCRIPT.format(url=proxy.endpoint_url, more=more)) as process:
            born.set()
            output, _ = process.communicate(timeout=100)
            assert process.returncode == -signal.SIGKILL, f"{call} was never made: {proxy.calls}\n{output}"


def killed_at_word(aws: LocalAWS, word: str) -> None:
    """Run a client that is killed as soon as it emits an event."""
    with ClientProxy(aws) as proxy, script_process(SCRIPT.format(url=proxy.endpoint_url, more="")) as process:
        read_until(process, word)
        process.kill()
        process.wait()


def ends_by_itself(aws: LocalAWS) -> None:
    """Advance to the end of the leases: then nothing may be left that costs money."""
    for _ in range(_RENEWALS):
        due, now = leases(aws), aws.now()
        for group, most in maxima(aws).items():
            assert most == 0 or now < due[group] <= math.ceil(now + LEASE), (
                f"{group} may have {most} instances and no lease"
            )
        aws.advance(LEASE + LATE)
        wait_until(lambda due=due: costs_nothing(aws) or leases(aws) != due, 60, f"zero: {leftovers(aws)}")  # type: ignore[misc]  # mypy infers no default
        if costs_nothing(aws):
            return
    raise AssertionError(f"still there: {leftovers(aws)}")


def leases(aws: LocalAWS) -> dict[str, float]:
    actions = aws.client("autoscaling").describe_scheduled_actions()["ScheduledUpdateGroupActions"]
    return {a["AutoScalingGroupName"]: datetime.timestamp(a["StartTime"]) for a in actions}


def maxima(aws: LocalAWS) -> dict[str, int]:
    groups = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return {g["AutoScalingGroupName"]: g["MaxSize"] for g in groups}


def collect(aws: LocalAWS) -> None:
    """Do what ``starburst gc --delete`` does."""
    session = AWS(session=aws.session())

    async def run() -> None:
        for found in await discovery.garbage(session):
            await discovery.collect(session, found)

    asyncio.run(run())
    session.close()


def works_as_new(aws: LocalAWS) -> None:
    """Collect the garbage, start the same cluster again, and check that the account is as after a first start."""
    collect(aws)
    assert objects(aws) == {kind: [] for kind in objects(aws)}
    with (
        StarburstCluster(cloud="local", endpoint_url=aws.endpoint_url, n_workers=1, quiet=True) as cluster,
        Client(cluster) as client,
    ):
        assert client.submit(sum, [1, 2]).result(timeout=60) == 3
    assert nothing_left(aws), leftovers(aws)
    [group] = aws.client("logs").describe_log_groups(logGroupNamePrefix="/starburst")["logGroups"]
    assert group["retentionInDays"] == 14
    [profile] = aws.client("iam").list_instance_profiles(PathPrefix="/starburst/")["InstanceProfiles"]
    assert [role["RoleName"] for role in profile["Roles"]] == ["starburst-instance"]


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_clients_killed_at_successive_stages_leave_nothing_and_a_new_one_works() -> None:
    with LocalAWS() as aws:
        for call in QUICK:  # each client starts with the leftovers of the one before, and comes further
            killed_at_call(aws, call, "after")
            ends_by_itself(aws)
            collect(aws)
            assert objects(aws) == {kind: [] for kind in objects(aws)}
        works_as_new(aws)


@pytest.mark.soak
@pytest.mark.parametrize(
    ("moment", "call"), [*(("after", call) for call in CALLS), *(("before", call) for call in BEFORE)]
)
def test_a_client_killed_before_or_after_any_call_leaves_nothing(moment: str, call: str) -> None:
    with LocalAWS() as aws:
        killed_at_call(aws, call, moment)
        ends_by_itself(aws)
        works_as_new(aws)


@pytest.mark.soak
@pytest.mark.parametrize("word", WORDS)
def test_a_client_killed_while_it_waits_leaves_nothing(word: str) -> None:
    with LocalAWS() as aws:
        killed_at_word(aws, word)
        ends_by_itself(aws)
        works_as_new(aws)


@pytest.mark.soak
@pytest.mark.parametrize("call", GIVEN_BACK)
def test_a_client_killed_while_it_releases_a_warm_pool_leaves_nothing(call: str) -> None:
    with LocalAWS() as aws:
        killed_at_call(aws, call, "after", KEEP)
        ends_by_itself(aws)
        works_as_new(aws)


@pytest.mark.soak
@pytest.mark.parametrize("call", TAKEN)
def test_a_client_killed_while_it_claims_a_warm_pool_leaves_nothing(call: str) -> None:
    with LocalAWS() as aws:
        with script_process(SCRIPT.format(url=aws.endpoint_url, more=KEEP)) as process:
            read_until(process, "is closed")
        assert aws.status().instances_running == 2, "kept warm"
        killed_at_call(aws, call, "after", KEEP)
        ends_by_itself(aws)
        works_as_new(aws)


@pytest.mark.soak
def test_the_stages_cover_every_changing_call() -> None:
    with (
        LocalAWS() as aws,
        ClientProxy(aws) as proxy,
        script_process(SCRIPT.format(url=proxy.endpoint_url, more="")) as process,
    ):
        output, _ = process.communicate(timeout=100)
        assert "ANSWER 3" in output
        assert set(proxy.calls) == set(CALLS)
