"""The catalogue from AWS with your credentials, the only current source."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from dask_starburst.aws import pricing
from dask_starburst.aws.session import AWS
from dask_starburst.catalog.instance_types import size_units
from tools.offered import Described, Offered, described, in_order, is_odd, sold

_HOME = "us-east-1"
#: A price that is off its size by more than rounding, which is half a percent for the smallest, has units of its own.
_ROUNDING = 0.02


def offered(regions: Collection[str]) -> Offered:
    """Request the instance types and prices of every region.

    Parameters
    ----------
    regions : collection of str
        Empty for all that the account has enabled. us-east-1 is asked in any case: the others are reckoned by it.
    """
    aws = AWS(region=_HOME)
    try:
        return asyncio.run(_offered(aws, regions))
    finally:
        aws.close()


async def _offered(aws: AWS, regions: Collection[str]) -> Offered:
    enabled = (await aws.call("ec2", "DescribeRegions"))["Regions"]
    names = sorted({_HOME, *(regions or (each["RegionName"] for each in enabled))})
    by_region = {region: await pricing.on_demand(aws, region, []) for region in names}
    types = [each for region in names for each in await _types(region, aws.endpoint_url)]
    known = in_order(list({each.name: each for each in types}.values()))
    units = {each.name: own_units(each.name, by_region[_HOME]) for each in known}
    now = datetime.now(UTC).date().isoformat()
    about = {"licence": "facts of AWS's price list", "date": now}
    return Offered(
        types=known,
        rates={f"aws-{now}": {region: rates(usd, units) for region, usd in by_region.items()}},
        odd_units={name: by for name, by in units.items() if by != size_units(name)},
        about_types={"origin": f"EC2 DescribeInstanceTypes of {', '.join(names)}", **about},
        about_prices={
            f"aws-{now}": {
                "origin": "pricing:GetProducts: AmazonEC2, Linux, Shared, NA, Used, OnDemand",
                "words": "AWS price list",
                "method": "the price of the largest size of a family, by its units",
                **about,
            }
        },
    )


async def _types(region: str, endpoint_url: str | None) -> list[Described]:
    aws = AWS(region=region, endpoint_url=endpoint_url)
    try:
        answers = await aws.pages("ec2", "DescribeInstanceTypes", "InstanceTypes")
    finally:
        aws.close()
    return [described(each) for each in answers if sold(each)]


def own_units(name: str, home: Mapping[str, float]) -> float:
    """Return the units of a type: by its size, or by what it costs in us-east-1 where that is something else."""
    if is_odd(name):
        return home.get(name, 0.0)
    family, by_size = name.partition(".")[0], size_units(name)
    sizes = [each for each in home if each.partition(".")[0] == family and size_units(each)]
    if name not in home or not sizes:
        return by_size
    usual = sorted(home[each] / size_units(each) for each in sizes)[len(sizes) // 2]
    return by_size if abs(home[name] / by_size / usual - 1) <= _ROUNDING else home[name] / usual


def rates(usd: Mapping[str, float], units: Mapping[str, float]) -> dict[str, float]:
    """Return the USD of one unit by family, from its largest size: that has the most digits."""
    largest: dict[str, str] = {}
    for name in usd:
        family = name.partition(".")[0]
        if units.get(name, 0.0) > units.get(largest.get(family, ""), 0.0):
            largest[family] = name
    return {family: usd[name] / units[name] for family, name in largest.items()}
