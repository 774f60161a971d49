"""Injected faults, through boto3 and the processes of the embedded AWS."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError

from dask_starburst.errors import LocalAWSError
from dask_starburst.local import LocalAWS, faults
from dask_starburst.local.faults.events import Event
from dask_starburst.local.faults.scenario import Scenario
from tests.local.conftest import Clients, Stack, code_of, message_of, wait_for

TRAP = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); time.sleep(600)"


@pytest.fixture(autouse=True)
def clear_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "aws" in request.fixturenames:
        request.getfixturevalue("aws").play([faults.Clear()])


def spot(stack: Stack, draining: bool = True) -> str:
    """Create a stack with one connected Spot instance, and return its id."""
    lines = f"ECS_CLUSTER={stack.name}\nECS_ENABLE_SPOT_INSTANCE_DRAINING={str(draining).lower()}\n"
    user_data = f"#!/bin/bash\ncat > /etc/ecs/ecs.config <<'END'\n{lines}END\n"
    template = stack.template(UserData=base64.b64encode(user_data.encode()).decode())
    stack.group(
        size=1,
        MixedInstancesPolicy={
            "LaunchTemplate": {"LaunchTemplateSpecification": template},
            "InstancesDistribution": {"OnDemandPercentageAboveBaseCapacity": 0},
        },
    )
    stack.cluster()
    stack.connected(1)
    identity: str = stack.instances[0]["ec2InstanceId"]
    return identity


def imds(aws: LocalAWS, instance_id: str, path: str) -> str | None:
    """Read an instance's metadata; None for 404."""
    base = f"{aws.private_url('imds', instance_id)}/latest"
    seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    put = urllib.request.Request(f"{base}/api/token", method="PUT", headers=seconds)
    with urllib.request.urlopen(put, timeout=90) as reply:
        token = reply.read().decode()
    ask = urllib.request.Request(f"{base}/meta-data/{path}", headers={"X-aws-ec2-metadata-token": token})
    try:
        with urllib.request.urlopen(ask, timeout=90) as reply:
            answer: str = reply.read().decode()
            return answer
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None


def shown(stack: Stack, identity: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"][0]
    return found


def replaced(stack: Stack, identity: str) -> None:
    """Wait until the replacement is in service."""
    wait_for(
        lambda: (
            [one["InstanceId"] for one in stack.members if one["LifecycleState"] == "InService"] not in ([], [identity])
        ),
        f"another than {identity}",
    )


def test_an_interruption_is_announced_and_happens_at_the_announced_time(
    aws: LocalAWS, clients: Clients, stack: Stack
) -> None:
    instance_id = spot(stack)
    task = stack.start(stack.definition(["python", "-c", TRAP]))
    stack.logs.create_log_group(logGroupName=f"/aws/events/{stack.name}")
    pattern = {"source": ["aws.ec2"], "detail-type": ["EC2 Spot Instance Interruption Warning"]}
    clients.events.put_rule(Name=stack.name, EventPattern=json.dumps(pattern))
    target = f"arn:aws:logs:us-east-1:123456789012:log-group:/aws/events/{stack.name}"
    clients.events.put_targets(Rule=stack.name, Targets=[{"Id": "1", "Arn": target}])
    assert imds(aws, instance_id, "spot/instance-action") is None
    aws.play([faults.Interrupt(instance=instance_id)])
    notice = json.loads(imds(aws, instance_id, "spot/instance-action") or "")
    assert notice["action"] == "terminate"
    assert imds(aws, instance_id, "spot/termination-time") == notice["time"]
    (told,) = stack.logs.filter_log_events(logGroupName=f"/aws/events/{stack.name}")["events"]
    assert json.loads(told["message"])["detail"] == {"instance-id": instance_id, "instance-action": "terminate"}
    # The agent drains the instance: running tasks continue, and no new ones are placed.
    assert stack.instances[0]["status"] == "DRAINING"
    assert stack.task(task)["desiredStatus"] == "RUNNING"
    assert stack.run(stack.definition())["failures"][0]["reason"] == "NO ACTIVE INSTANCES"
    aws.advance(110.0)
    assert shown(stack, instance_id)["State"]["Name"] == "running"
    aws.advance(11.0)
    stopped = stack.reaches(task, "STOPPED")
    assert stopped["stoppedReason"] == f"Host EC2 (instance {instance_id}) terminated."
    assert stopped["containers"][0]["exitCode"] == 0  # the host's shutdown is a SIGTERM
    replaced(stack, instance_id)
    assert shown(stack, instance_id)["StateReason"]["Code"] == "Server.SpotInstanceTermination"
    clients.events.remove_targets(Rule=stack.name, Ids=["1"])
    clients.events.delete_rule(Name=stack.name)


def test_an_interrupted_instance_is_not_replaced_after_the_capacity_was_lowered(aws: LocalAWS, stack: Stack) -> None:
    instance_id = spot(stack, draining=False)
    aws.play([faults.Interrupt(market="spot", group=stack.name, notice=30.0), faults.Rebalance(instance=instance_id)])
    assert "noticeTime" in (imds(aws, instance_id, "events/recommendations/rebalance") or "")
    assert stack.instances[0]["status"] == "ACTIVE"  # the agent is not configured to drain
    stack.autoscaling.terminate_instance_in_auto_scaling_group(
        InstanceId=instance_id, ShouldDecrementDesiredCapacity=True
    )
    aws.advance(31.0)
    stack.in_service(0)
    assert stack.described["DesiredCapacity"] == 0


def test_a_failed_host_loses_its_processes_and_is_replaced(aws: LocalAWS, warm: Stack) -> None:
    task = warm.start(warm.definition(["python", "-c", TRAP]))
    (pid,) = [pid for key, pid in aws.status().containers.items() if task.rsplit("/", 1)[-1] in key]
    instance_id = warm.instances[0]["ec2InstanceId"]
    aws.play([faults.HostDeath(group=warm.name)])
    assert aws.past_faults()[-1]["hit"] == [instance_id]
    assert shown(warm, instance_id)["State"]["Name"] == "terminated"
    stopped = warm.task(task)
    assert (stopped["lastStatus"], stopped["containers"][0]["exitCode"]) == ("STOPPED", 137)
    wait_for(lambda: pid not in aws.status().containers.values())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    replaced(warm, instance_id)


def test_tasks_die_and_run_out_of_memory(aws: LocalAWS, warm: Stack) -> None:
    ends = [
        (faults.TaskDeath, {}, 137, None),
        (faults.TaskDeath, {"exit_code": 3}, 3, None),
        (faults.OutOfMemory, {}, 137, "OutOfMemoryError: Container killed due to memory usage"),
    ]
    definition = warm.definition()
    for kind, how, code, reason in ends:
        task = warm.start(definition)
        aws.play([kind(task=task, **how)])
        stopped = warm.reaches(task, "STOPPED")
        assert (stopped["stopCode"], stopped["stoppedReason"]) == (
            "EssentialContainerExited",
            "Essential container in task exited",
        )
        (container,) = stopped["containers"]
        assert (container["exitCode"], container.get("reason")) == (code, reason)


def test_failed_starts_have_the_message_of_the_agent(aws: LocalAWS, warm: Stack) -> None:
    definition = warm.definition()
    family = warm.name
    aws.play([faults.PullFailure(family=family)])
    stopped = warm.reaches(warm.run(definition)["tasks"][0]["taskArn"], "STOPPED")
    assert (stopped["stopCode"], stopped["stoppedReason"]) == ("TaskFailedToStart", "Task failed to start")
    assert stopped["containers"][0]["reason"].startswith("CannotPullContainerError: pull image manifest has been")
    aws.play([faults.ExecFormat(family=family)])
    stopped = warm.reaches(warm.run(definition)["tasks"][0]["taskArn"], "STOPPED")
    assert stopped["stopCode"] == "EssentialContainerExited"
    assert stopped["containers"][0]["exitCode"] == 255
    assert warm.lines(stopped["taskArn"]) == ["exec python: exec format error"]
    aws.play(
        [faults.TaskStopsAtOnce(family=family, exit_code=2, log="no {such} file"), faults.PullFailure(family="x*")]
    )
    stopped = warm.reaches(warm.run(definition)["tasks"][0]["taskArn"], "STOPPED")
    assert stopped["containers"][0]["exitCode"] == 2
    assert warm.lines(stopped["taskArn"]) == ["no {such} file"]
    warm.start(definition)


def test_no_task_is_placed_on_a_lost_agent_until_it_reconnects(aws: LocalAWS, warm: Stack) -> None:
    definition = warm.definition()
    task = warm.start(definition)
    aws.play([faults.AgentLost(group=warm.name, seconds=300.0)])
    assert not warm.instances[0]["agentConnected"]
    assert warm.run(definition)["failures"][0]["reason"] == "AGENT"
    assert warm.task(task)["lastStatus"] == "RUNNING"
    aws.advance(301.0)
    warm.connected(1)
    aws.play([faults.AgentLost(group=warm.name)])
    aws.advance(3000.0)
    assert not warm.instances[0]["agentConnected"]


def test_instances_boot_slowly_or_never_register(aws: LocalAWS, stack: Stack) -> None:
    aws.play([faults.AgentNever(group=stack.name), faults.SlowBoot(group=stack.name, seconds=600.0)])
    stack.group(size=2)
    stack.cluster()
    stack.in_service(2)
    aws.advance(400.0)  # a busy computer may have used up some of the remaining time
    assert stack.instances == []
    aws.advance(250.0)
    stack.connected(1)
    aws.advance(600.0)
    stack.connected(1)


def client(aws: LocalAWS, service: str, attempts: int = 1) -> Any:
    config = Config(retries={"total_max_attempts": attempts, "mode": "standard"}, read_timeout=5)
    return aws.session().client(service, config=config)


def test_calls_are_throttled_and_fail_by_pattern_and_by_count(aws: LocalAWS) -> None:
    ecs, ec2 = client(aws, "ecs"), client(aws, "ec2")
    before = aws.status().throttled
    aws.play(
        [faults.Throttle(action="e*:*", count=2), faults.Error(action="ecs:ListClusters", status=503, code="Busy")]
    )
    with pytest.raises(ClientError) as error:
        ecs.list_clusters()
    assert code_of(error) == "ThrottlingException"
    with pytest.raises(ClientError) as error:
        ec2.describe_vpcs()
    assert code_of(error) == "RequestLimitExceeded"
    assert aws.status().throttled == before + 2
    with pytest.raises(ClientError) as error:
        ecs.list_clusters()
    assert (code_of(error), error.value.response["ResponseMetadata"]["HTTPStatusCode"]) == ("Busy", 503)
    ecs.list_clusters()


def test_a_fault_of_calls_ends_after_its_seconds_and_has_its_probability(aws: LocalAWS) -> None:
    ecs = client(aws, "ecs")

    def answers() -> int:
        answered = 0
        for _ in range(40):
            try:
                ecs.list_clusters()
                answered += 1
            except ClientError:
                pass
        return answered

    aws.play([faults.Throttle(action="ecs:*", seconds=1000.0, probability=0.5)], seed=3)
    first = answers()
    assert 5 < first < 35
    aws.play([faults.Clear(), faults.Throttle(action="ecs:*", seconds=1000.0, probability=0.5)], seed=3)
    assert answers() == first
    aws.advance(1001.0)
    assert answers() == 40


def test_a_lost_response_was_performed_and_a_timeout_was_not(aws: LocalAWS, clients: Clients, stack: Stack) -> None:
    ecs, ec2 = client(aws, "ecs"), client(aws, "ec2")
    aws.play([faults.LostResponse(action="ecs:CreateCluster"), faults.Timeout(action="ec2:CreateKeyPair", hold=0.5)])
    aws.play([faults.LostResponse(action="ec2:CreatePlacementGroup")])
    with pytest.raises(HTTPClientError):
        ecs.create_cluster(clusterName=stack.name)
    assert clients.ecs.describe_clusters(clusters=[stack.name])["clusters"][0]["status"] == "ACTIVE"
    with pytest.raises(HTTPClientError):
        ec2.create_key_pair(KeyName=stack.name)
    assert clients.ec2.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [stack.name]}])["KeyPairs"] == []
    # botocore retries, as on AWS.
    aws.play([faults.LostResponse(action="ecs:ListClusters")])
    reply = client(aws, "ecs", attempts=2).list_clusters()
    assert reply["ResponseMetadata"]["RetryAttempts"] == 1


def test_new_resources_can_be_hidden(aws: LocalAWS, clients: Clients, warm: Stack) -> None:
    definition = warm.definition()
    old = warm.start(definition)
    aws.play([faults.Invisible(delay=1000.0)])
    new = warm.run(definition)["tasks"][0]["taskArn"]
    described = warm.ecs.describe_tasks(cluster=warm.name, tasks=[old, new])
    assert [one["taskArn"] for one in described["tasks"]] == [old]
    assert [one["reason"] for one in described["failures"]] == ["MISSING"]
    assert warm.ecs.list_tasks(cluster=warm.name)["taskArns"] == [old]
    warm.autoscaling.set_desired_capacity(AutoScalingGroupName=warm.name, DesiredCapacity=2)
    wait_for(lambda: aws.status().instances_running == 2)
    assert (len(warm.members), len(warm.instances)) == (1, 1)
    template = warm.template(InstanceType="c7g.xlarge")["LaunchTemplateId"]
    assert template not in str(warm.ec2.describe_launch_templates()["LaunchTemplates"])
    with pytest.raises(ClientError) as error:
        warm.ec2.describe_launch_templates(LaunchTemplateIds=[template])
    assert "NotFound" in code_of(error)
    clients.iam.create_instance_profile(InstanceProfileName=warm.name)
    with pytest.raises(ClientError) as error:
        clients.iam.get_instance_profile(InstanceProfileName=warm.name)
    assert code_of(error) == "NoSuchEntity"
    aws.advance(1001.0)
    assert set(warm.ecs.list_tasks(cluster=warm.name)["taskArns"]) == {old, new}

    def seen() -> bool:
        aws.advance(1001.0)  # its agent may just have registered, and then is hidden as long again
        return len(warm.instances) == 2

    wait_for(seen)
    assert len(warm.in_service(2)) == len(warm.connected(2)) == 2
    assert warm.ec2.describe_launch_templates(LaunchTemplateIds=[template])["LaunchTemplates"]
    assert clients.iam.get_instance_profile(InstanceProfileName=warm.name)["InstanceProfile"]


def test_a_new_instance_profile_can_be_refused(aws: LocalAWS, clients: Clients, stack: Stack) -> None:
    aws.play([faults.FreshProfile(age=1000.0)])
    clients.iam.create_instance_profile(InstanceProfileName=stack.name)
    template = stack.template(IamInstanceProfile={"Name": stack.name})
    policy = {"LaunchTemplate": {"LaunchTemplateSpecification": template}}
    with pytest.raises(ClientError) as error:
        stack.group(MixedInstancesPolicy=policy)
    assert code_of(error) == "ValidationError"
    assert "Invalid IAM Instance Profile name" in message_of(error)
    aws.advance(1001.0)
    stack.group(MixedInstancesPolicy=policy)
    assert stack.described


def test_a_scenario_runs_in_order_and_the_seed_chooses_targets(aws: LocalAWS, stack: Stack) -> None:
    stack.group(size=4)
    ids = {one["InstanceId"] for one in stack.in_service(4)}
    before = len(aws.past_faults())
    script = [faults.HostDeath(at=200.0, group=stack.name), faults.Rebalance(at=100.0, group=stack.name)]
    aws.play(Scenario(script, seed=5))
    aws.advance(101.0)
    wait_for(lambda: len(aws.past_faults()) == before + 1)
    aws.advance(100.0)
    wait_for(lambda: len(aws.past_faults()) == before + 2)
    first, second = aws.past_faults()[before:]
    # There is no Spot instance to target.
    assert (first["kind"], first["hit"]) == ("rebalance", [])
    assert second["kind"] == "host-death"
    assert set(second["hit"]) < ids


def test_a_scenario_round_trips_through_json() -> None:
    script = Scenario.random(7, 30.0)
    assert Scenario.from_json(json.loads(json.dumps(script.to_json()))) == script
    assert set(Event.kinds) == {
        *("capacity", "refuses", "quota", "interrupt", "rebalance", "host-death", "agent-lost", "agent-never"),
        *("slow-boot", "task-death", "out-of-memory", "pull-failure", "exec-format", "task-stops-at-once"),
        *("throttle", "error", "timeout", "lost-response", "invisible", "fresh-profile", "clear", "spot-price"),
        *("late-placement", "clock-skew", "region-not-enabled"),
    }


def test_a_random_scenario_is_the_same_for_a_seed_and_ends_with_a_quiet_period() -> None:
    script = Scenario.random(7, 60.0, events_per_minute=4.0)
    assert script == Scenario.random(7, 60.0, events_per_minute=4.0) != Scenario.random(8, 60.0, events_per_minute=4.0)
    assert script.events[-1] == faults.Clear(at=55 * 60.0)
    times = [event.at for event in script.events]
    assert times == sorted(times)
    assert 150 < len(times) < 290
    kinds = {event.kind() for event in script.events}
    assert kinds >= {"host-death", "interrupt", "capacity", "throttle", "lost-response", "agent-lost", "slow-boot"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "hail"},
        {"kind": "interrupt", "colour": "red"},
        {"kind": "interrupt", "at": -1},
        {"kind": "throttle", "probability": 2},
        {"kind": "error", "status": 999},
        {"kind": "slow-boot"},
        {"kind": "slow-boot", "seconds": "long"},
        {"kind": "invisible", "delay": 1, "what": "everything"},
        {"kind": "spot-price", "times": 0},
    ],
    ids=str,
)
def test_an_invalid_scenario_is_refused_when_it_is_played(aws: LocalAWS, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"kind|no |number|cannot|missing|one of|valid"):
        Scenario.from_json({"events": [wrong]})
    with pytest.raises(LocalAWSError, match="400"):
        aws._control.post("faults", {"events": [wrong]})
