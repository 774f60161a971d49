"""EC2: regions, VPCs with their routes and endpoints, and the security groups that the user gives."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

from dask_starburst.aws.addresses import local_address
from dask_starburst.aws.faults import MISSING, code_of
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import together
from dask_starburst.errors import AWSError, BadArgument, PermissionDenied
from dask_starburst.plan.requests.routes import Access, WayOut, lacking_endpoints, unreachable, way_out, why_not

#: EC2's errors for an id that does not exist or has another form.
_UNKNOWN = MISSING | {"InvalidSubnetID.NotFound", "InvalidVpcID.NotFound", "InvalidGroupId.Malformed"}


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


async def vpc_of(aws: AWS, requested: Sequence[str], vpc: str | None) -> str:
    """Return the VPC of these subnets, this VPC, or the default one.

    Raises
    ------
    BadArgument
        There is none.
    """
    return str((await subnets(aws, requested, vpc))[0]["VpcId"])


async def free_addresses(aws: AWS, subnet: str) -> int:
    """Return how many addresses of a subnet are free."""
    answer = await aws.call("ec2", "DescribeSubnets", SubnetIds=[subnet])
    return int(answer["Subnets"][0]["AvailableIpAddressCount"])


async def subnets(aws: AWS, requested: Sequence[str], vpc: str | None) -> list[dict[str, Any]]:
    """Return the subnets that a cluster may use: the requested ones, those of a VPC, or those of the default VPC.

    Raises
    ------
    BadArgument
        One does not exist, they are in several VPCs, or the account has no default VPC.
    """
    key, values = ("vpc-id", [vpc]) if vpc else ("default-for-az", ["true"])
    filters = [{"Name": "subnet-id", "Values": list(requested)} if requested else {"Name": key, "Values": values}]
    found = (await aws.call("ec2", "DescribeSubnets", Filters=filters))["Subnets"]
    missing = sorted(set(requested) - {each["SubnetId"] for each in found})
    if missing:
        raise BadArgument(f"{', '.join(missing)} of network.subnets is not in {aws.region}.")
    if not found and vpc:
        raise BadArgument(f"network.vpc={vpc!r} is not in {aws.region}, or it has no subnets.")
    if not found:
        raise BadArgument(
            f'the account has no default VPC in {aws.region}; give a VPC, network={{"vpc": "vpc-…"}}, or subnets,'
            ' network={"subnets": ["subnet-…"]}; or make one (`aws ec2 create-default-vpc`).'
        )
    vpcs = sorted({each["VpcId"] for each in found})
    if len(vpcs) > 1:
        raise BadArgument(f"the subnets of network.subnets are in several VPCs: {', '.join(vpcs)}; give those of one.")
    if vpc and vpcs != [vpc]:
        raise BadArgument(f"the subnets of network.subnets are in {vpcs[0]}, but network.vpc={vpc!r}; leave vpc out.")
    return list(found)


async def with_way_out(aws: AWS, found: list[dict[str, Any]], access: Access) -> list[dict[str, Any]]:
    """Return the subnets from which instances can reach AWS. Those that may not be read are not checked.

    Raises
    ------
    BadArgument
        There is none.
    """
    known = await _ways(aws, found)
    if known is None:
        return found
    ways, lacking = known
    why = {subnet: why_not(way, lacking, access) for subnet, way in ways.items()}
    usable = [each for each in found if not why[each["SubnetId"]]]
    if not usable:
        raise BadArgument(unreachable(why, access))
    return usable


async def _ways(aws: AWS, found: list[dict[str, Any]]) -> tuple[dict[str, WayOut], tuple[str, ...]] | None:
    """Return the way out of each subnet, and the services without an endpoint; None if they may not be read."""
    vpc = found[0]["VpcId"]
    try:
        tables, services = await together(route_tables(aws, vpc), endpoint_services(aws, vpc))
    except (PermissionDenied, AWSError):
        return None
    return {each["SubnetId"]: way_out(tables, each["SubnetId"]) for each in found}, lacking_endpoints(services)


async def check_security_groups(aws: AWS, groups: Sequence[str], vpc: str) -> None:
    """Check that the security groups that the user gives exist in a VPC.

    Raises
    ------
    BadArgument
        One does not.
    """
    if not groups:
        return
    try:
        answer = await aws.call("ec2", "DescribeSecurityGroups", GroupIds=list(groups))
    except AWSError as error:
        if code_of(error) not in _UNKNOWN:
            raise
        raise BadArgument(f"network.security_groups: {error}") from error
    for each in answer["SecurityGroups"]:
        if each["VpcId"] != vpc:
            raise BadArgument(
                f"network.security_groups: {each['GroupId']} is in {each['VpcId']}, but the subnet is in {vpc}; give"
                " groups of one VPC."
            )


async def caller_in_vpc(aws: AWS, vpc: str) -> str:
    """Return the CIDR of this computer's own address in a VPC.

    Raises
    ------
    BadArgument
        This computer is not in the VPC.
    """
    blocks = [str(each["CidrBlock"]) for each in await subnets(aws, (), vpc)]
    for network in map(ip_network, blocks):
        address = local_address(str(network.network_address + 1))
        if address and ip_address(address) in network:
            return f"{address}/32"
    raise BadArgument(
        f"this computer has no address in a subnet of {vpc} ({', '.join(blocks)}); if it reaches the VPC by a VPN or a"
        ' peering, give its address there: network={"access": "private", "caller": "10.8.0.7/32"}.'
    )
