"""Current prices: the on-demand price list and the Spot price history."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from typing import Any

from tlz import partition_all

from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError

#: The EC2 product of a worker: Linux, shared tenancy, no licence, not reserved.
_PRODUCT = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "marketoption": "OnDemand",
}
#: From this number of types on, requesting all types of a region is faster (a hundred a page).
_MANY = 12
#: Instances in a VPC are listed under either name, depending on the age of the account.
_SPOT_PRODUCTS = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")
#: The most types of one DescribeSpotPriceHistory call (EC2 API Reference).
_TYPES_AT_ONCE = 100
#: The margin in seconds for our estimate of AWS's time: a range in the future has no prices.
_AHEAD = 60.0


async def on_demand(aws: AWS, region: str, types: Collection[str]) -> dict[str, float]:
    """Return the USD an hour of the types that have a price in the region.

    Parameters
    ----------
    aws : AWS
    region : str
    types : collection of str
        Empty for all.

    Raises
    ------
    StarburstError
        AWS refuses.
    """
    one_by_one = [{"instanceType": name} for name in sorted(types)] if len(types) < _MANY else []
    answers = await asyncio.gather(*(_products(aws, region, each) for each in one_by_one or [{}]))
    found = {name: usd for answer in answers for name, usd in answer.items()}
    return {name: usd for name, usd in found.items() if not types or name in types}


async def spot(
    aws: AWS, types: Collection[str], zones: Collection[str], at: float
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the Spot price of types in zones: USD an hour and its start (seconds since the epoch).

    Parameters
    ----------
    aws : AWS
    types : collection of str
    zones : collection of str
        Empty for all of the region.
    at : float
        The estimate of AWS's current time, in seconds since the epoch.

    Raises
    ------
    StarburstError
        AWS refuses.
    """
    names = sorted(types)
    parts = [list(part) for part in partition_all(_TYPES_AT_ONCE, names)]
    request: dict[str, Any] = {"ProductDescriptions": list(_SPOT_PRODUCTS), "StartTime": at - _AHEAD}
    if zones:
        request["Filters"] = [{"Name": "availability-zone", "Values": sorted(zones)}]
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for part in parts:
        history = await aws.pages("ec2", "DescribeSpotPriceHistory", "SpotPriceHistory", InstanceTypes=part, **request)
        for entry in history:
            key = (entry["InstanceType"], entry["AvailabilityZone"])
            usd, since = float(entry["SpotPrice"]), entry["Timestamp"].timestamp()
            # The two product names can give two entries; the later one counts.
            if usd > 0 and since >= found.get(key, (0.0, 0.0))[1]:
                found[key] = (usd, since)
    return found


async def _products(aws: AWS, region: str, more: Mapping[str, str]) -> dict[str, float]:
    if aws.partition == "aws-us-gov":
        raise AWSError("AWS has no price list for the accounts of GovCloud.", operation="pricing:GetProducts")
    requested = {"regionCode": region, **_PRODUCT, **more}
    filters = [{"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in requested.items()]
    products = await aws.pages(
        "pricing", "GetProducts", "PriceList", ServiceCode="AmazonEC2", FormatVersion="aws_v1", Filters=filters
    )
    found = {}
    for text in products:
        product = json.loads(text)
        name, usd = product["product"]["attributes"].get("instanceType", ""), _hourly(product)
        if name and usd > 0:
            found[name] = usd
    return found


def _hourly(product: Mapping[str, Any]) -> float:
    """Return the hourly price, zero if there is none: a product has one offer with one dimension."""
    offers = product.get("terms", {}).get("OnDemand", {}).values()
    dimensions = [each for offer in offers for each in offer["priceDimensions"].values() if each["unit"] == "Hrs"]
    return max((float(each["pricePerUnit"].get("USD", 0)) for each in dimensions), default=0.0)
