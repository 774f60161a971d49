"""Where to launch: what AWS sells in which zone, at what Spot price, and how likely it is to be had."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_network
from typing import Any

from dask_starburst.aws import autoscaling, pricing
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError, BadArgument, PermissionDenied
from dask_starburst.plan.requests.placement import Zone, best, mean_of_cheapest
from dask_starburst.plan.requests.policies import NAMESPACE


async def zones_that_sell(aws: AWS, types: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Return which of these instance types each availability zone of the region has on offer.

    Not every zone sells every type (in us-east-1e there are few), and AWS says so only at the launch.
    """
    found = await aws.pages(
        "ec2",
        "DescribeInstanceTypeOfferings",
        "InstanceTypeOfferings",
        LocationType="availability-zone",
        Filters=[{"Name": "instance-type", "Values": sorted(set(types))}],
    )
    zones: dict[str, set[str]] = {}
    for offering in found:
        zones.setdefault(offering["Location"], set()).add(offering["InstanceType"])
    return {zone: frozenset(names) for zone, names in zones.items()}


async def choose_subnet(aws: AWS, wanted: str | None, types: tuple[str, ...], *, spot: bool, count: int) -> Zone:
    """Return the wanted subnet, or the best one of the default VPC for these instance types.

    Parameters
    ----------
    aws : AWS
        The account.
    wanted : str, optional
        A subnet's id.
    types : tuple of str
        The instance types that are to be launched, the scheduler's first.
    spot : bool
        Whether workers are to be bought on Spot.
    count : int
        How many workers, for Spot placement scores.

    Raises
    ------
    BadArgument
        It does not exist, or the account has no default VPC in this region.
    """
    sold = await zones_that_sell(aws, types)
    key, value = ("subnet-id", wanted) if wanted else ("default-for-az", "true")
    subnets = (await aws.call("ec2", "DescribeSubnets", Filters=[{"Name": key, "Values": [value]}]))["Subnets"]
    if not subnets and wanted:
        raise BadArgument(f"network.subnet={wanted!r} is not in {aws.region}.")
    if not subnets:
        raise BadArgument(
            f"the account has no default VPC in {aws.region}; make one (`aws ec2"
            ' create-default-vpc`) or give network={"subnet": "subnet-…"}.'
        )
    scores: dict[str, int] = {}
    prices: dict[str, float] = {}
    failures: Counter[str] = Counter()
    if len(subnets) > 1:
        failures = await autoscaling.failed_zones(aws, f"{NAMESPACE}-")
        scores = await spot_scores(aws, types[1:], max(1, count)) if spot else {}
        prices = await spot_prices(aws, types[1:]) if spot and not scores else {}
    zones = [
        Zone(
            subnet=s["SubnetId"],
            vpc=s["VpcId"],
            name=s["AvailabilityZone"],
            sold=sold.get(s["AvailabilityZone"], frozenset()),
            size=_size(s),
            score=scores.get(s.get("AvailabilityZoneId", "")),
            price=prices.get(s["AvailabilityZone"]),
            failures=failures[s["AvailabilityZone"]],
        )
        for s in subnets
    ]
    return best(zones, types[0])


def _size(subnet: dict[str, Any]) -> int:
    """Return how many addresses a subnet has; how many are free, once that is less than half."""
    free, size = int(subnet["AvailableIpAddressCount"]), ip_network(subnet["CidrBlock"]).num_addresses
    return size if 2 * free >= size else free


async def spot_scores(aws: AWS, types: tuple[str, ...], count: int) -> dict[str, int]:
    """Return AWS's Spot placement score of each zone by its id; empty where we may not, or cannot, ask.

    It costs nothing, wants three types and more, and AWS limits how many different questions an account
    asks in a day (aws-facts §1.5).
    """
    try:
        answer = await aws.call(
            "ec2",
            "GetSpotPlacementScores",
            InstanceTypes=list(types),
            TargetCapacity=count,
            SingleAvailabilityZone=True,
            RegionNames=[aws.region],
        )
    except (AWSError, PermissionDenied):
        return {}
    return {s["AvailabilityZoneId"]: s["Score"] for s in answer["SpotPlacementScores"] if "AvailabilityZoneId" in s}


async def spot_prices(aws: AWS, types: tuple[str, ...]) -> dict[str, float]:
    """Return the mean Spot price (USD an hour) of the three cheapest types in each zone; empty where we may not ask."""
    try:
        found = await pricing.spot(aws, types, (), aws.now())
    except PermissionDenied:
        return {}
    zones: dict[str, dict[str, float]] = {}
    for (name, zone), (usd, _) in found.items():
        zones.setdefault(zone, {})[name] = usd
    means = {zone: mean_of_cheapest(list(prices.values())) for zone, prices in zones.items()}
    return {zone: mean for zone, mean in means.items() if mean is not None}
