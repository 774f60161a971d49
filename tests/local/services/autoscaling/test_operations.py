"""Auto Scaling of the embedded AWS, through boto3."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dask_starburst.local import LocalAWS
from tests.local.conftest import Clients, Stack, code_of, message_of, wait_for


def at(aws: LocalAWS, seconds: float) -> datetime:
    return datetime.fromtimestamp(math.ceil(aws.now() + seconds), UTC)


def mixed(stack: Stack, on_demand: int) -> dict[str, Any]:
    return {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": stack.template(),
            "Overrides": [{"InstanceType": "c8g.xlarge"}, {"InstanceType": "m7g.large"}],
        },
        "InstancesDistribution": {
            "OnDemandPercentageAboveBaseCapacity": on_demand,
            "SpotAllocationStrategy": "price-capacity-optimized",
        },
    }


def test_a_group_launches_its_desired_capacity(stack: Stack) -> None:
    stack.group(size=2, Tags=[{"Key": "sb:cluster", "Value": "k", "PropagateAtLaunch": True}])
    members = stack.in_service(2)
    ids = [member["InstanceId"] for member in members]
    reservations = stack.ec2.describe_instances(InstanceIds=ids)["Reservations"]
    tags = {tag["Key"]: tag["Value"] for tag in reservations[0]["Instances"][0]["Tags"]}
    assert tags["aws:autoscaling:groupName"] == stack.name
    assert tags["sb:cluster"] == "k"


def test_a_group_name_is_unique(stack: Stack) -> None:
    stack.group()
    with pytest.raises(ClientError) as error:
        stack.autoscaling.create_auto_scaling_group(
            AutoScalingGroupName=stack.name,
            MinSize=0,
            MaxSize=1,
            VPCZoneIdentifier=stack.subnets[0],
            LaunchTemplate={"LaunchTemplateName": f"{stack.name}-0"},
        )
    assert code_of(error) == "AlreadyExists"


@pytest.mark.parametrize(
    "wrong",
    [
        {"LaunchTemplate": {"LaunchTemplateId": "lt-0123456789abcdef0"}},
        {"VPCZoneIdentifier": "subnet-0123"},
        {"MinSize": 3, "MaxSize": 1},
        {"DesiredCapacity": 9},
    ],
    ids=["template", "subnet", "limits", "desired"],
)
def test_an_invalid_group_is_refused(stack: Stack, wrong: dict[str, Any]) -> None:
    with pytest.raises(ClientError) as error:
        stack.group(**wrong)
    assert code_of(error) == "ValidationError"
    assert not stack.described


def test_a_missing_instance_profile_is_refused_at_the_creation_of_the_group(stack: Stack) -> None:
    template = stack.template(IamInstanceProfile={"Name": "missing"})
    with pytest.raises(ClientError) as error:
        stack.group(LaunchTemplate=template)
    assert "Invalid IAM Instance Profile name" in message_of(error)


def test_the_desired_capacity_stays_within_the_limits(stack: Stack) -> None:
    stack.group(most=3)
    with pytest.raises(ClientError) as error:
        stack.autoscaling.set_desired_capacity(AutoScalingGroupName=stack.name, DesiredCapacity=4)
    assert code_of(error) == "ValidationError"
    assert "New SetDesiredCapacity value 4 is above max value 3 for the AutoScalingGroup" in message_of(error)


def test_lowering_the_capacity_terminates_the_oldest_instance(stack: Stack) -> None:
    stack.group(size=1)
    oldest = stack.in_service(1)[0]["InstanceId"]
    stack.autoscaling.set_desired_capacity(AutoScalingGroupName=stack.name, DesiredCapacity=2)
    stack.in_service(2)
    stack.autoscaling.set_desired_capacity(AutoScalingGroupName=stack.name, DesiredCapacity=1)
    assert stack.in_service(1)[0]["InstanceId"] != oldest


def test_instances_are_spread_over_the_zones(stack: Stack) -> None:
    stack.group(size=3, VPCZoneIdentifier=",".join(stack.subnets[:3]))
    assert len({member["AvailabilityZone"] for member in stack.in_service(3)}) == 3


def test_spot_instances_of_the_override_are_launched(stack: Stack) -> None:
    stack.group(size=1, MixedInstancesPolicy=mixed(stack, on_demand=0))
    member = stack.in_service(1)[0]
    instance = stack.ec2.describe_instances(InstanceIds=[member["InstanceId"]])["Reservations"][0]["Instances"][0]
    assert (instance["InstanceType"], instance["InstanceLifecycle"]) == ("m7g.large", "spot")  # the cheapest
    stack.autoscaling.update_auto_scaling_group(AutoScalingGroupName=stack.name, MaxSize=7)
    assert stack.described["MixedInstancesPolicy"]["LaunchTemplate"]["Overrides"][1]["InstanceType"] == "m7g.large"


def test_without_the_service_linked_role_spot_launches_fail_with_a_message(stack: Stack, clients: Clients) -> None:
    clients.iam.delete_service_linked_role(RoleName="AWSServiceRoleForEC2Spot")
    try:
        stack.group(size=1, MixedInstancesPolicy=mixed(stack, on_demand=0))
        activities = wait_for(
            lambda: stack.autoscaling.describe_scaling_activities(AutoScalingGroupName=stack.name)["Activities"]
        )
        assert activities[0]["StatusCode"] == "Failed"
        assert "service-linked role for EC2 Spot Instances" in activities[0]["StatusMessage"]
    finally:
        clients.iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")


def test_on_demand_instances_are_launched_for_the_requested_share(stack: Stack) -> None:
    stack.group(size=4, MixedInstancesPolicy=mixed(stack, on_demand=50))
    ids = [member["InstanceId"] for member in stack.in_service(4)]
    reservations = stack.ec2.describe_instances(InstanceIds=ids)["Reservations"]
    kinds = [one.get("InstanceLifecycle", "on-demand") for each in reservations for one in each["Instances"]]
    assert sorted(kinds) == ["on-demand", "on-demand", "spot", "spot"]


def test_a_terminated_instance_is_replaced_unless_the_capacity_is_decremented(stack: Stack) -> None:
    stack.group(size=2)
    first, second = (member["InstanceId"] for member in stack.in_service(2))
    terminate = stack.autoscaling.terminate_instance_in_auto_scaling_group
    reply = terminate(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    assert reply["Activity"]["StatusCode"] == "InProgress"
    assert stack.described["DesiredCapacity"] == 1
    assert [member["InstanceId"] for member in stack.in_service(1)] == [second]
    terminate(InstanceIds=[second], AutoScalingGroupName=stack.name, ShouldDecrementDesiredCapacity=False)
    wait_for(lambda: second not in [member["InstanceId"] for member in stack.in_service(1)])
    with pytest.raises(ClientError) as error:
        terminate(InstanceId=first, ShouldDecrementDesiredCapacity=True)
    assert code_of(error) == "ValidationError"


def test_an_instance_terminated_outside_its_group_is_replaced(stack: Stack) -> None:
    stack.group(size=1)
    lost = stack.in_service(1)[0]["InstanceId"]
    stack.ec2.terminate_instances(InstanceIds=[lost])
    wait_for(
        lambda: [one["InstanceId"] for one in stack.members if one["LifecycleState"] == "InService"] not in ([], [lost])
    )
    causes = [one["Cause"] for one in activities(stack)]
    assert any("EC2 health check" in cause for cause in causes)


def test_an_unhealthy_instance_is_replaced(stack: Stack) -> None:
    stack.group(size=1)
    sick = stack.in_service(1)[0]["InstanceId"]
    stack.autoscaling.set_instance_health(InstanceId=sick, HealthStatus="Unhealthy")
    wait_for(lambda: stack.in_service(1)[0]["InstanceId"] != sick)


def test_a_scheduled_action_empties_the_group_at_its_time(aws: LocalAWS, stack: Stack) -> None:
    stack.group(size=1)
    stack.in_service(1)
    sizes = {"MinSize": 0, "MaxSize": 0, "DesiredCapacity": 0}
    put = stack.autoscaling.put_scheduled_update_group_action
    put(AutoScalingGroupName=stack.name, ScheduledActionName="lease", StartTime=at(aws, 3600), **sizes)
    put(AutoScalingGroupName=stack.name, ScheduledActionName="lease", StartTime=at(aws, 4), **sizes)
    described = stack.autoscaling.describe_scheduled_actions(AutoScalingGroupName=stack.name)
    assert [one["ScheduledActionName"] for one in described["ScheduledUpdateGroupActions"]] == ["lease"]
    stack.in_service(0)
    assert stack.described["MaxSize"] == 0
    described = stack.autoscaling.describe_scheduled_actions(AutoScalingGroupName=stack.name)
    assert described["ScheduledUpdateGroupActions"] == []


def test_a_deleted_scheduled_action_does_nothing(aws: LocalAWS, stack: Stack) -> None:
    stack.group(size=1)
    name = {"AutoScalingGroupName": stack.name, "ScheduledActionName": "lease"}
    stack.autoscaling.put_scheduled_update_group_action(**name, StartTime=at(aws, 4), DesiredCapacity=0)
    stack.autoscaling.delete_scheduled_action(**name)
    aws.advance(60.0)
    later = time.monotonic() + 0.3
    wait_for(lambda: time.monotonic() > later)
    stack.in_service(1)


def test_a_scheduled_action_in_the_past_is_refused(aws: LocalAWS, stack: Stack) -> None:
    stack.group()
    with pytest.raises(ClientError) as error:
        stack.autoscaling.put_scheduled_update_group_action(
            AutoScalingGroupName=stack.name, ScheduledActionName="late", StartTime=at(aws, -60), DesiredCapacity=0
        )
    assert code_of(error) == "ValidationError"


def test_a_scheduled_action_with_a_fraction_of_a_second_is_refused(aws: LocalAWS, stack: Stack) -> None:
    stack.group()
    when = at(aws, 3600).replace(microsecond=1)
    with pytest.raises(ClientError) as error:
        stack.autoscaling.put_scheduled_update_group_action(
            AutoScalingGroupName=stack.name, ScheduledActionName="exact", StartTime=when, DesiredCapacity=0
        )
    assert code_of(error) == "ValidationError"


def test_deleting_a_group_with_instances_needs_force(stack: Stack) -> None:
    stack.group(size=1)
    instance_id = stack.in_service(1)[0]["InstanceId"]
    with pytest.raises(ClientError) as error:
        stack.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=stack.name)
    assert code_of(error) == "ResourceInUse"
    stack.autoscaling.delete_auto_scaling_group(AutoScalingGroupName=stack.name, ForceDelete=True)
    described = stack.described  # empty once the instance has terminated
    assert not described or described["Status"] == "Delete in progress"
    wait_for(lambda: not stack.described)
    state = stack.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]["State"]["Name"]
    assert state == "terminated"


def test_a_suspended_launch_waits_until_it_is_resumed(stack: Stack) -> None:
    stack.group()
    stack.autoscaling.suspend_processes(AutoScalingGroupName=stack.name, ScalingProcesses=["Launch"])
    stack.autoscaling.set_desired_capacity(AutoScalingGroupName=stack.name, DesiredCapacity=1)
    later = time.monotonic() + 0.5
    wait_for(lambda: time.monotonic() > later)
    assert stack.members == []
    stack.autoscaling.resume_processes(AutoScalingGroupName=stack.name, ScalingProcesses=["Launch"])
    stack.in_service(1)


def activities(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.autoscaling.describe_scaling_activities(AutoScalingGroupName=stack.name)[
        "Activities"
    ]
    return found


def test_activities_describe_launches_and_terminations(stack: Stack) -> None:
    stack.group(size=1)
    instance_id = stack.in_service(1)[0]["InstanceId"]
    (activity,) = activities(stack)
    assert activity["StatusCode"] == "Successful"
    assert activity["Description"] == f"Launching a new EC2 instance: {instance_id}"
    assert "increasing the capacity from 0 to 1" in activity["Cause"]


def test_a_launch_that_ec2_refuses_is_a_failed_activity(stack: Stack) -> None:
    stack.group()
    stack.ec2.delete_launch_template(LaunchTemplateName=f"{stack.name}-0")
    stack.autoscaling.set_desired_capacity(AutoScalingGroupName=stack.name, DesiredCapacity=1)
    (activity,) = wait_for(lambda: activities(stack))
    assert activity["StatusCode"] == "Failed"
    assert activity["StatusMessage"].endswith("Launching EC2 instance failed.")


def test_groups_are_found_by_tag(clients: Clients, stack: Stack) -> None:
    stack.group(Tags=[{"Key": "sb:owner", "Value": stack.name}])
    tag = {"ResourceId": stack.name, "ResourceType": "auto-scaling-group", "PropagateAtLaunch": False}
    stack.autoscaling.create_or_update_tags(Tags=[{**tag, "Key": "sb:more", "Value": "1"}])
    filters = [{"Name": "tag:sb:owner", "Values": [stack.name]}]
    found = stack.autoscaling.describe_auto_scaling_groups(Filters=filters)["AutoScalingGroups"]
    assert [group["AutoScalingGroupName"] for group in found] == [stack.name]
    filters = [{"Name": "auto-scaling-group", "Values": [stack.name]}]
    keys = [one["Key"] for one in stack.autoscaling.describe_tags(Filters=filters)["Tags"]]
    assert keys == ["sb:more", "sb:owner"]


def test_groups_and_instances_are_paginated(stack: Stack) -> None:
    stack.group(size=2)
    ids = {member["InstanceId"] for member in stack.in_service(2)}
    pages = stack.autoscaling.get_paginator("describe_auto_scaling_instances").paginate(
        PaginationConfig={"PageSize": 1}
    )
    seen = {one["InstanceId"] for page in pages for one in page["AutoScalingInstances"]}
    assert ids <= seen
    without = stack.autoscaling.describe_auto_scaling_groups(AutoScalingGroupNames=[stack.name], IncludeInstances=False)
    assert without["AutoScalingGroups"][0].get("Instances", []) == []
