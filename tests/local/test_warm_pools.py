"""Warm pools of the embedded Auto Scaling, through boto3."""

from __future__ import annotations

import base64
import urllib.request
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS
from tests.local.conftest import Stack, code_of, message_of, wait_for
from tests.local.test_autoscaling import at, mixed

#: What makes an agent wait until its instance is in service: asking for this before it starts.
WAITS = "curl http://169.254.169.254/latest/meta-data/autoscaling/target-lifecycle-state"


def waiting(stack: Stack) -> dict[str, Any]:
    text = f"#!/bin/sh\necho ECS_CLUSTER={stack.name} >> /etc/ecs/ecs.config\n{WAITS}\n"
    return stack.template(UserData=base64.b64encode(text.encode()).decode())


def warm_pool(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.autoscaling.describe_warm_pool(AutoScalingGroupName=stack.name)["Instances"]
    return found


def stopped(stack: Stack, count: int) -> list[str]:
    """Wait until exactly so many instances are in the warm pool, all of them stopped; return their ids."""
    states = ["Warmed:Stopped"] * count
    wait_for(lambda: [one["LifecycleState"] for one in warm_pool(stack)] == states, f"{count} stopped")
    return [one["InstanceId"] for one in warm_pool(stack)]


def update(stack: Stack, **changes: Any) -> None:
    stack.autoscaling.update_auto_scaling_group(AutoScalingGroupName=stack.name, **changes)


def target_state(aws: LocalAWS, identity: str) -> str:
    root = f"{aws.private_url('imds', identity)}/latest/"
    ask = urllib.request.Request(f"{root}api/token", method="PUT")
    ask.add_header("X-aws-ec2-metadata-token-ttl-seconds", "60")
    with urllib.request.urlopen(ask) as reply:
        token = {"X-aws-ec2-metadata-token": reply.read().decode()}
    ask = urllib.request.Request(f"{root}meta-data/autoscaling/target-lifecycle-state", headers=token)
    with urllib.request.urlopen(ask) as reply:
        return str(reply.read().decode())


def test_an_instance_boots_once_is_stopped_and_comes_into_service_with_the_same_id(aws: LocalAWS, stack: Stack) -> None:
    stack.group(most=1, LaunchTemplate=waiting(stack))
    stack.cluster()
    stack.autoscaling.put_warm_pool(AutoScalingGroupName=stack.name, PoolState="Stopped")
    (identity,) = stopped(stack, 1)
    shown = stack.ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"][0]
    assert shown["State"] == {"Code": 80, "Name": "stopped"}
    assert "PublicIpAddress" not in shown
    assert target_state(aws, identity) == "Warmed:Stopped"
    assert stack.instances == []  # not registered with ECS
    assert stack.members == []
    assert stack.described["WarmPoolSize"] == 1
    assert stack.described["WarmPoolConfiguration"]["PoolState"] == "Stopped"
    update(stack, MaxSize=2, DesiredCapacity=1)
    assert [one["InstanceId"] for one in stack.in_service(1)] == [identity]
    assert target_state(aws, identity) == "InService"
    assert [one["ec2InstanceId"] for one in stack.connected(1)] == [identity]
    assert stopped(stack, 1) != [identity]  # another in its place
    assert len(stack.instances) == 1


def test_one_whose_agent_does_not_wait_registers_and_is_deaf_when_it_is_stopped(stack: Stack) -> None:
    stack.group(most=1)
    stack.cluster()
    stack.autoscaling.put_warm_pool(AutoScalingGroupName=stack.name)
    (identity,) = stopped(stack, 1)
    assert [(one["ec2InstanceId"], one["agentConnected"]) for one in stack.instances] == [(identity, False)]
    update(stack, DesiredCapacity=1)
    stack.connected(1)


def test_its_size_is_the_maximum_less_the_desired_capacity_so_a_lease_empties_it_too(
    aws: LocalAWS, stack: Stack
) -> None:
    stack.group(most=2)
    stack.autoscaling.put_warm_pool(AutoScalingGroupName=stack.name)
    stopped(stack, 2)
    update(stack, DesiredCapacity=1)
    stopped(stack, 1)
    stack.autoscaling.put_scheduled_update_group_action(
        AutoScalingGroupName=stack.name,
        ScheduledActionName="lease",
        StartTime=at(aws, 60),
        MinSize=0,
        MaxSize=0,
        DesiredCapacity=0,
    )
    aws.advance(61)
    wait_for(lambda: warm_pool(stack) == stack.members == [], "nothing is left")


def test_a_smallest_size_holds_whatever_the_maximum_is(stack: Stack) -> None:
    stack.group(most=3)
    request = {"AutoScalingGroupName": stack.name, "MinSize": 1, "MaxGroupPreparedCapacity": 1}
    stack.autoscaling.put_warm_pool(**request)
    stopped(stack, 1)
    update(stack, MaxSize=0)
    stack.autoscaling.put_warm_pool(**request)
    assert len(stopped(stack, 1)) == 1


def test_it_is_refused_to_a_group_that_may_launch_spot(stack: Stack) -> None:
    stack.group(MixedInstancesPolicy=mixed(stack, 0))
    with pytest.raises(ClientError) as error:
        stack.autoscaling.put_warm_pool(AutoScalingGroupName=stack.name)
    assert code_of(error) == "ValidationError"
    assert "Spot" in message_of(error)


def test_a_group_with_one_may_not_turn_to_spot(stack: Stack) -> None:
    policy = mixed(stack, 100)
    stack.group(most=1, MixedInstancesPolicy=policy)
    stack.autoscaling.put_warm_pool(AutoScalingGroupName=stack.name)
    policy["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"] = 0
    with pytest.raises(ClientError, match="Spot"):
        update(stack, MixedInstancesPolicy=policy)


def test_it_goes_with_all_that_it_has(stack: Stack) -> None:
    stack.group(most=1)
    stack.autoscaling.put_warm_pool(AutoScalingGroupName=stack.name)
    (identity,) = stopped(stack, 1)
    with pytest.raises(ClientError) as error:
        stack.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=stack.name)
    assert code_of(error) == "ResourceInUse"
    stack.autoscaling.delete_warm_pool(AutoScalingGroupName=stack.name, ForceDelete=True)
    assert stack.described["WarmPoolConfiguration"]["Status"] == "PendingDelete"
    wait_for(lambda: "WarmPoolConfiguration" not in stack.described, "the warm pool is gone")
    shown = stack.ec2.describe_instances(InstanceIds=[identity])["Reservations"][0]["Instances"][0]
    assert shown["State"]["Name"] == "terminated"


def test_a_group_that_is_deleted_by_force_takes_it_along(stack: Stack) -> None:
    stack.group(most=1)
    stack.autoscaling.put_warm_pool(AutoScalingGroupName=stack.name)
    stopped(stack, 1)
    stack.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=stack.name, ForceDelete=True)
    wait_for(lambda: not stack.described, "the group is gone")


def test_one_that_somebody_terminates_is_replaced(stack: Stack) -> None:
    stack.group(most=1)
    stack.autoscaling.put_warm_pool(AutoScalingGroupName=stack.name)
    before = stopped(stack, 1)
    stack.ec2.terminate_instances(InstanceIds=before)
    wait_for(lambda: [i["InstanceId"] for i in warm_pool(stack) if i["InstanceId"] not in before], "a new one")
