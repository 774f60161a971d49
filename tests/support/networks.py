"""Networks of the embedded AWS that are not its default one."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

from dask_starburst.local import LocalAWS


@dataclass(frozen=True)
class PrivateSubnet:
    """A subnet of the default VPC, without a way out of its own at first."""

    id: str
    vpc: str
    table: str


def private_subnet(aws: LocalAWS, index: int = 0) -> PrivateSubnet:
    """Make a subnet at the end of the default VPC, with a route table of its own that has no default route."""
    ec2 = aws.client("ec2")
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    blocks = list(ipaddress.ip_network(vpc["CidrBlock"]).subnets(new_prefix=24))
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    made = ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock=str(blocks[-1 - index]), AvailabilityZone=zone)["Subnet"]
    table = ec2.create_route_table(VpcId=vpc["VpcId"])["RouteTable"]["RouteTableId"]
    ec2.associate_route_table(RouteTableId=table, SubnetId=made["SubnetId"])
    return PrivateSubnet(made["SubnetId"], vpc["VpcId"], table)


def add_nat(aws: LocalAWS, subnet: PrivateSubnet) -> None:
    """Give the subnet a route to a NAT gateway in a public subnet."""
    ec2 = aws.client("ec2")
    public = ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0]["SubnetId"]
    address = ec2.allocate_address(Domain="vpc")["AllocationId"]
    gateway = ec2.create_nat_gateway(SubnetId=public, AllocationId=address)["NatGateway"]["NatGatewayId"]
    ec2.create_route(RouteTableId=subnet.table, DestinationCidrBlock="0.0.0.0/0", NatGatewayId=gateway)


def add_endpoints(aws: LocalAWS, subnet: PrivateSubnet, *services: str) -> None:
    """Give the VPC endpoints of AWS's services."""
    for service in services:
        request: dict[str, Any] = {"VpcEndpointType": "Interface", "SubnetIds": [subnet.id]}
        if service == "s3":
            request = {"VpcEndpointType": "Gateway", "RouteTableIds": [subnet.table]}
        name = f"com.amazonaws.{aws.region}.{service}"
        aws.client("ec2").create_vpc_endpoint(VpcId=subnet.vpc, ServiceName=name, **request)
