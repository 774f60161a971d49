"""EC2 capacity of the embedded AWS: room, quotas, and which pool a group launches from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dask_starburst.aws.faults import launch_meaning
from dask_starburst.catalog.quotas import QUOTAS
from dask_starburst.local import LocalAWS, faults
from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.backend.state import Group
from dask_starburst.local.http.protocols import ServiceError
from dask_starburst.local.services.ec2.capacity import Ec2Capacity, offers
from dask_starburst.local.services.ec2.capacity_pools import Choice, Pool
from tests.local.conftest import Stack, wait_for

A, B = "us-east-1a", "us-east-1b"


def new_capacity(seed: int = 0) -> Ec2Capacity:
    return Ec2Capacity(lambda: 0.0, lambda: [A, B], seed)


def policy(*types: str, on_demand: int = 0, **distribution: Any) -> dict[str, Any]:
    return {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateName": "t"},
            "Overrides": [{"InstanceType": one} for one in types],
        },
        "InstancesDistribution": {"OnDemandPercentageAboveBaseCapacity": on_demand, **distribution},
    }


def bought(capacity: Ec2Capacity, mixed: dict[str, Any], zones: tuple[str, ...] = (A,)) -> Pool:
    arn = f"arn:aws:autoscaling:us-east-1:{ACCOUNT}:autoScalingGroup:g"
    group = Group("g", arn, 0.0, 0, 9, 1, [], None, mixed, {})
    return capacity.choose(group, offers(group, zones, lambda template: "c7g.large")).pool


TYPES = ("m7g.xlarge", "c7g.xlarge", "c8g.xlarge")
CHOICES = [
    # strategy, room, chosen type; c8g is cheapest on Spot by the bundled table, c7g on demand
    ({"SpotAllocationStrategy": "price-capacity-optimized"}, {}, "c8g.xlarge"),
    ({"SpotAllocationStrategy": "price-capacity-optimized"}, {"c8g.xlarge": 0}, "c7g.xlarge"),
    ({"SpotAllocationStrategy": "price-capacity-optimized"}, {"c8g.xlarge": 2, "c7g.xlarge": 2}, "m7g.xlarge"),
    (
        {"SpotAllocationStrategy": "capacity-optimized"},
        {"c8g.xlarge": 1, "c7g.xlarge": 3, "m7g.xlarge": 2},
        "c7g.xlarge",
    ),
    ({"SpotAllocationStrategy": "capacity-optimized-prioritized"}, {}, "m7g.xlarge"),
    ({"SpotAllocationStrategy": "lowest-price", "SpotInstancePools": 1}, {"c8g.xlarge": 1}, "c8g.xlarge"),
    ({"on_demand": 100}, {}, "m7g.xlarge"),
    ({"on_demand": 100, "OnDemandAllocationStrategy": "prioritized"}, {"m7g.xlarge": 0}, "c7g.xlarge"),
    ({"on_demand": 100, "OnDemandAllocationStrategy": "lowest-price"}, {}, "c7g.xlarge"),
]


@pytest.mark.parametrize(("distribution", "rooms", "chosen"), CHOICES)
def test_a_group_chooses_a_pool_by_its_allocation_strategy(
    distribution: dict[str, Any], rooms: dict[str, int], chosen: str
) -> None:
    capacity = new_capacity()
    for kind, room in rooms.items():
        capacity.set_room(Choice(kind), room)
    assert bought(capacity, policy(*TYPES, **distribution)).type == chosen


def test_the_seed_breaks_ties_between_equal_pools() -> None:
    old = policy("c4.large", "m4.large", "r4.large", SpotAllocationStrategy="price-capacity-optimized")
    chosen = [bought(new_capacity(seed), old).type for seed in (*range(20), *range(20))]
    assert chosen[:20] == chosen[20:]
    assert set(chosen) == {"c4.large", "m4.large", "r4.large"}


def test_a_zone_without_capacity_is_skipped() -> None:
    capacity = new_capacity()
    capacity.set_room(Choice(zone=A), 0)
    assert bought(capacity, policy("c7g.large"), zones=(A, B)).zone == B


def test_only_standard_families_count_against_the_quota() -> None:
    capacity = new_capacity()
    capacity.quotas.set(QUOTAS["L-34B43A08"], 0)
    assert bought(capacity, policy("g5g.xlarge")).type == "g5g.xlarge"
    with pytest.raises(ServiceError, match="Max spot instance count exceeded"):
        bought(capacity, policy("im4gn.xlarge"))


@pytest.fixture(autouse=True)
def clear_faults(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "aws" in request.fixturenames:
        request.getfixturevalue("aws").play([faults.Clear()])


def mixed(stack: Stack, *types: str, **distribution: Any) -> dict[str, Any]:
    made = policy(*types, **{"SpotAllocationStrategy": "price-capacity-optimized", **distribution})
    made["LaunchTemplate"]["LaunchTemplateSpecification"] = stack.template()
    return made


def failures(stack: Stack) -> list[str]:
    found = stack.autoscaling.describe_scaling_activities(AutoScalingGroupName=stack.name)["Activities"]
    return [one["StatusMessage"] for one in found if one["StatusCode"] == "Failed"]


def zone_of(stack: Stack) -> str:
    zone: str = stack.ec2.describe_subnets(SubnetIds=[stack.subnets[0]])["Subnets"][0]["AvailabilityZone"]
    return zone


def test_missing_spot_capacity_is_a_failed_activity_with_the_message_of_aws(aws: LocalAWS, stack: Stack) -> None:
    aws.play([faults.Capacity(room=0, market="spot")])
    stack.group(size=1, MixedInstancesPolicy=mixed(stack, "c7g.large", "c8g.large"))
    wait_for(lambda: failures(stack))
    assert failures(stack)[0] == (
        "Could not launch Spot Instances. UnfulfillableCapacity - Unable to fulfill capacity due to your request "
        "configuration. Please adjust your request and try again. Launching EC2 instance failed."
    )
    assert stack.members == []
    aws.play([faults.Capacity(room=None, market="spot")])
    aws.advance(15.0)
    stack.in_service(1)


@pytest.mark.parametrize("several", [True, False], ids=["mixed", "one type"])
def test_a_full_on_demand_pool_names_the_type_and_the_zone(aws: LocalAWS, stack: Stack, several: bool) -> None:
    aws.play([faults.Capacity(room=0, type="c7g.large", market="on-demand")])
    if several:
        stack.group(size=1, MixedInstancesPolicy=mixed(stack, "c7g.large", on_demand=100))
    else:
        stack.group(size=1)
    (text,) = wait_for(lambda: failures(stack))
    assert text.startswith("Could not launch On-Demand Instances. InsufficientInstanceCapacity - ") == several
    zone = zone_of(stack)
    assert (
        f"We currently do not have sufficient c7g.large capacity in the Availability Zone you requested ({zone}). Our "
        "system will be working on provisioning additional capacity. You can currently get c7g.large capacity by not "
        "specifying an Availability Zone in your request or choosing us-east-1" in text
    )
    assert text.endswith(". Launching EC2 instance failed.")


def test_a_pool_launches_as_many_as_it_has_room_for_and_the_next_pool_the_rest(aws: LocalAWS, stack: Stack) -> None:
    aws.play([faults.Capacity(room=0), faults.Capacity(room=2, type="c8g.large")])
    aws.play([faults.Capacity(room=1, type="m7g.large")])
    stack.group(size=3, MixedInstancesPolicy=mixed(stack, "m7g.large", "c8g.large"))
    types = [one["InstanceType"] for one in stack.in_service(3)]
    assert sorted(types) == ["c8g.large", "c8g.large", "m7g.large"]
    stack.autoscaling.set_desired_capacity(AutoScalingGroupName=stack.name, DesiredCapacity=4)
    wait_for(lambda: failures(stack))
    # The room of a terminated instance can be used again.
    leaving = next(one["InstanceId"] for one in stack.members if one["InstanceType"] == "m7g.large")
    stack.autoscaling.terminate_instance_in_auto_scaling_group(InstanceId=leaving, ShouldDecrementDesiredCapacity=True)
    aws.advance(15.0)
    again = stack.in_service(3)
    assert sorted(one["InstanceType"] for one in again) == ["c8g.large", "c8g.large", "m7g.large"]
    assert leaving not in [one["InstanceId"] for one in again]


def test_a_launch_over_a_quota_fails_with_the_message_of_aws(aws: LocalAWS, stack: Stack) -> None:
    aws.play([faults.Quota(market="spot", vcpus=1), faults.Quota(market="on-demand", vcpus=0)])
    stack.group(size=1, MixedInstancesPolicy=mixed(stack, "c7g.large"))
    (text,) = wait_for(lambda: failures(stack))
    assert text == (
        "Could not launch Spot Instances. MaxSpotInstanceCountExceeded - Max spot instance count exceeded. "
        "Launching EC2 instance failed."
    )
    stack.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=stack.name,
        MixedInstancesPolicy={"InstancesDistribution": {"OnDemandPercentageAboveBaseCapacity": 100}},
    )
    text = wait_for(lambda: failures(stack)[:-1])[0]
    assert text.startswith(
        "Could not launch On-Demand Instances. VcpuLimitExceeded - You have requested more vCPU capacity than your "
        "current vCPU limit of 0 allows for the instance bucket that the specified instance type belongs to."
    )


def test_a_pool_that_looks_available_may_refuse_launches(aws: LocalAWS, stack: Stack) -> None:
    aws.play([faults.Refuses(type="c8g.large")])
    stack.group(size=2, MixedInstancesPolicy=mixed(stack, "m7g.large", "c8g.large"))
    (text,) = wait_for(lambda: failures(stack))
    assert text.startswith("Could not launch Spot Instances. InsufficientInstanceCapacity - We currently do not have")
    assert f"sufficient c8g.large capacity in the Availability Zone you requested ({zone_of(stack)})" in text
    aws.advance(15.0)
    assert {one["InstanceType"] for one in stack.in_service(2)} == {"m7g.large"}
    assert len(failures(stack)) == 1


@pytest.mark.parametrize(
    ("why", "code", "kind"),
    [
        ("addresses", "InsufficientFreeAddressesInSubnet", "fault"),
        ("verification", "PendingVerification", "passing"),
    ],
)
def test_a_full_subnet_and_a_new_account_refuse_launches_of_all_pools(why: str, code: str, kind: str) -> None:
    capacity = new_capacity()
    capacity.refuse(Choice(None, None, None), None, None, why)
    for _ in range(2):
        with pytest.raises(ServiceError) as error:
            bought(capacity, policy("c7g.large"))
        assert error.value.code == code
        assert launch_meaning(error.value.message).kind == kind


def test_new_overrides_are_used_at_once_after_an_update_of_the_policy(aws: LocalAWS, stack: Stack) -> None:
    aws.play([faults.Capacity(room=0, type="c8g.large")])
    stack.group(size=1, MixedInstancesPolicy=mixed(stack, "c8g.large"))
    wait_for(lambda: failures(stack))
    template = stack.described["MixedInstancesPolicy"]["LaunchTemplate"]
    template["Overrides"] = [{"InstanceType": "r7g.large"}]
    stack.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=stack.name, MixedInstancesPolicy={"LaunchTemplate": template}
    )
    # At once, without the backoff of the earlier failure.
    assert stack.in_service(1)[0]["InstanceType"] == "r7g.large"
    assert stack.described["MixedInstancesPolicy"]["InstancesDistribution"]["SpotAllocationStrategy"]
    template["Overrides"] = [{"InstanceType": "m7g.large"}]
    stack.autoscaling.update_auto_scaling_group(
        AutoScalingGroupName=stack.name, MixedInstancesPolicy={"LaunchTemplate": template}, DesiredCapacity=2
    )
    assert [one["InstanceType"] for one in stack.in_service(2)] == ["r7g.large", "m7g.large"]
