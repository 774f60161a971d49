"""Subnets and security groups that the user gives."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from dask_starburst.aws import network, placement
from dask_starburst.aws.addresses import local_address
from dask_starburst.aws.session import AWS
from dask_starburst.errors import BadArgument
from dask_starburst.local import LocalAWS
from dask_starburst.plan.requests.placement import Zone
from dask_starburst.plan.requests.routes import ENDPOINTS, Access
from tests.support.networks import PrivateSubnet, add_endpoints, add_nat, private_subnet

TYPES = ("m7g.medium", "c7g.xlarge", "m7g.xlarge")


@pytest.fixture(scope="module")
def ours(aws: LocalAWS) -> Iterator[AWS]:
    made = AWS(session=aws.session())
    yield made
    made.close()


@pytest.fixture(scope="module")
def subnet(aws: LocalAWS) -> PrivateSubnet:
    return private_subnet(aws)


def choose(ours: AWS, *requested: str, access: Access = "private", vpc: str | None = None) -> Zone:
    return asyncio.run(placement.choose_subnet(ours, requested, TYPES, spot=False, count=1, vpc=vpc, access=access))


def refused(coroutine: Coroutine[Any, Any, Any]) -> str:
    with pytest.raises(BadArgument) as error:
        asyncio.run(coroutine)
    return str(error.value)


def test_a_private_subnet_needs_nat_or_endpoints(aws: LocalAWS, ours: AWS, subnet: PrivateSubnet) -> None:
    second = private_subnet(aws, 1)
    with pytest.raises(BadArgument, match=f"{subnet.id} has no way out, and the VPC has no endpoints for ecs, "):
        choose(ours, subnet.id)
    with pytest.raises(BadArgument, match="no route to an Internet gateway"):
        choose(ours, subnet.id, access="public")
    with pytest.raises(BadArgument, match="no way out but an Internet gateway, which needs public addresses"):
        choose(ours)
    add_nat(aws, subnet)
    assert choose(ours, subnet.id, second.id).subnet == subnet.id, "the other one has no way out"
    assert choose(ours, vpc=subnet.vpc).subnet == subnet.id
    add_endpoints(aws, second, *ENDPOINTS)
    assert choose(ours, second.id).subnet == second.id


def test_routes_that_may_not_be_read_are_not_checked(aws: LocalAWS, ours: AWS) -> None:
    lonely = private_subnet(aws, 2)
    aws.inject("ec2:DescribeRouteTables", "UnauthorizedOperation", "You are not authorized.", status=403)
    assert choose(ours, lonely.id).subnet == lonely.id


def test_what_does_not_exist_is_named_with_what_to_give(aws: LocalAWS, ours: AWS, subnet: PrivateSubnet) -> None:
    missing = "subnet-0123456789abcdef0"
    assert f"{missing} of network.subnets is not in us-east-1" in refused(
        network.subnets(ours, [subnet.id, missing], None)
    )
    assert "network.vpc='vpc-0123456789abcdef0'" in refused(network.subnets(ours, [], "vpc-0123456789abcdef0"))
    other = aws.client("ec2").create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    assert "leave vpc out" in refused(network.subnets(ours, [subnet.id], other))
    made = aws.client("ec2").create_subnet(VpcId=other, CidrBlock="10.0.0.0/24")["Subnet"]["SubnetId"]
    assert "several VPCs" in refused(network.subnets(ours, [subnet.id, made], None))


def test_security_groups_exist_in_the_vpc_of_the_subnet(aws: LocalAWS, ours: AWS, subnet: PrivateSubnet) -> None:
    ec2 = aws.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.1.0.0/16")["Vpc"]["VpcId"]
    group = ec2.create_security_group(GroupName="ours", Description="d", VpcId=vpc)["GroupId"]
    asyncio.run(network.check_security_groups(ours, [group], vpc))
    assert f"{group} is in {vpc}" in refused(network.check_security_groups(ours, [group], subnet.vpc))
    missing = "sg-0123456789abcdef0"
    assert missing in refused(network.check_security_groups(ours, [missing], vpc))


def test_a_computer_outside_of_the_vpc_gives_its_address(aws: LocalAWS, ours: AWS) -> None:
    # One of the documentation's ranges that this computer is not in.
    own = local_address("198.51.100.1")
    block = "203.0.113.0/24" if own.startswith("198.51.100.") else "198.51.100.0/24"
    vpc = aws.client("ec2").create_vpc(CidrBlock=block)["Vpc"]["VpcId"]
    aws.client("ec2").create_subnet(VpcId=vpc, CidrBlock=block)
    assert 'network={"access": "private", "caller": "10.8.0.7/32"}' in refused(network.caller_in_vpc(ours, vpc))


def test_an_account_without_a_default_vpc_is_told_what_to_give(new_aws: LocalAWS) -> None:
    ec2 = new_aws.client("ec2")
    for each in ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]:
        ec2.delete_subnet(SubnetId=each["SubnetId"])
    made = AWS(session=new_aws.session())
    text = refused(network.subnets(made, [], None))
    made.close()
    assert 'network={"vpc": "vpc-…"}' in text
    assert 'network={"subnets": ["subnet-…"]}' in text
