"""EC2: regions, routes and endpoints."""

from __future__ import annotations

from typing import Any

from dask_starburst.aws.session import AWS
from dask_starburst.errors import BadArgument


async def opt_in_status(aws: AWS) -> str:
    """Return whether the region is enabled: ``opt-in-not-required``, ``opted-in`` or ``not-opted-in``."""
    answer = await aws.call("ec2", "DescribeRegions", RegionNames=[aws.region], AllRegions=True)
    return str(answer["Regions"][0].get("OptInStatus", "opt-in-not-required"))


async def route_tables(aws: AWS, vpc: str) -> list[dict[str, Any]]:
    """Return the route tables of a VPC."""
    return await aws.pages("ec2", "DescribeRouteTables", "RouteTables", Filters=[{"Name": "vpc-id", "Values": [vpc]}])


async def endpoint_services(aws: AWS, vpc: str) -> list[str]:
    """Return the names of the services that a VPC has endpoints for."""
    filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "vpc-endpoint-state", "Values": ["available"]}]
    found = await aws.pages("ec2", "DescribeVpcEndpoints", "VpcEndpoints", Filters=filters)
    return [str(each["ServiceName"]) for each in found]


async def vpc_of(aws: AWS, subnet: str | None) -> str:
    """Return the VPC of a subnet, or the default one.

    Raises
    ------
    BadArgument
        There is none.
    """
    key, value = ("subnet-id", subnet) if subnet else ("default-for-az", "true")
    found = (await aws.call("ec2", "DescribeSubnets", Filters=[{"Name": key, "Values": [value]}]))["Subnets"]
    if found:
        return str(found[0]["VpcId"])
    if subnet:
        raise BadArgument(f"network.subnet={subnet!r} is not in {aws.region}.")
    raise BadArgument(f'there is no default subnet in {aws.region}; give network={{"subnet": "subnet-…"}}.')


async def free_addresses(aws: AWS, subnet: str) -> int:
    """Return how many addresses of a subnet are free."""
    answer = await aws.call("ec2", "DescribeSubnets", SubnetIds=[subnet])
    return int(answer["Subnets"][0]["AvailableIpAddressCount"])
