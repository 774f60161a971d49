"""Choice of the zone: offered types, Spot prices and Spot placement scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Any

from dask_starburst.aws import autoscaling, network, pricing
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError, PermissionDenied
from dask_starburst.plan.requests.placement import Zone, best, mean_of_cheapest
from dask_starburst.plan.requests.policies import NAMESPACE
from dask_starburst.plan.requests.routes import Access


async def zones_that_sell(aws: AWS, types: tuple[str, ...]) -> dict[str, frozenset[str]]:
    """Return the types among these that each availability zone of the region offers.

    Not every zone offers every type (us-east-1e has few), and AWS reports it only at launch.
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


async def choose_subnet(
    aws: AWS,
    requested: Sequence[str],
    types: tuple[str, ...],
    *,
    spot: bool,
    count: int,
    vpc: str | None = None,
    access: Access = "public",
) -> Zone:
    """Return the best of the requested subnets, or of a VPC's, for these instance types.

    Parameters
    ----------
    aws : AWS
        The account.
    requested : sequence of str
        The ids of subnets; all of the VPC if there are none.
    types : tuple of str
        The instance types to launch, the scheduler's first.
    spot : bool
        Whether workers use Spot.
    count : int
        The number of workers, for Spot placement scores.
    vpc : str, optional
        A VPC's id; by default the default VPC.
    access : {"public", "private"}
        How instances reach AWS. The default subnets are public ones and not checked.

    Raises
    ------
    BadArgument
        A subnet does not exist or none has a way out, or the account has no default VPC in this region.
    """
    available_types = await zones_that_sell(aws, types)
    subnets = await network.subnets(aws, requested, vpc)
    if requested or vpc or access == "private":
        subnets = await network.with_way_out(aws, subnets, access)
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
            available_types=available_types.get(s["AvailabilityZone"], frozenset()),
            size=_size(s),
            score=scores.get(s.get("AvailabilityZoneId", "")),
            price=prices.get(s["AvailabilityZone"]),
            failures=failures[s["AvailabilityZone"]],
        )
        for s in subnets
    ]
    return best(zones, types[0])


def _size(subnet: dict[str, Any]) -> int:
    """Return the number of addresses of a subnet; if fewer than half are free, the free ones."""
    free, size = int(subnet["AvailableIpAddressCount"]), ip_network(subnet["CidrBlock"]).num_addresses
    return size if 2 * free >= size else free


async def spot_scores(aws: AWS, types: tuple[str, ...], count: int) -> dict[str, int]:
    """Return the Spot placement score of each zone by id; empty if the call is denied or fails.

    The call is free, needs three or more types, and AWS limits the number of different requests of an account
    a day (aws-facts §1.5).
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
    """Return the mean Spot price (USD an hour) of the three cheapest types in each zone; empty if denied."""
    try:
        found = await pricing.spot(aws, types, (), aws.now())
    except PermissionDenied:
        return {}
    zones: dict[str, dict[str, float]] = {}
    for (name, zone), (usd, _) in found.items():
        zones.setdefault(zone, {})[name] = usd
    means = {zone: mean_of_cheapest(list(prices.values())) for zone, prices in zones.items()}
    return {zone: mean for zone, mean in means.items() if mean is not None}
