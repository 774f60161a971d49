"""The catalogue from PyPI packages: moto's types, apache-libcloud's prices, and a short table."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from tools import lowest_cluster, published
from tools.offered import Described, Offered, described, in_order, is_odd, sold, units

#: Not commercial regions: GovCloud, and a local zone that the package lists as a region.
_OTHER_REGIONS = ("us-gov-", "us-west-2-lax-")


def offered() -> Offered:
    """Read both packages and the table of what is published for us-east-1."""
    types = in_order([described(each) for each in moto_types().values() if sold(each)])
    odd = odd_units(types)
    return Offered(
        types=types,
        # By date: for a cell that two know, the later one counts.
        rates={"libcloud": libcloud_rates(types), **_published_rates(types)},
        odd_units=odd,
        about_types={
            "origin": "EC2 DescribeInstanceTypes, in the copy that the Python package moto bundles",
            "version": version("moto"),
            "licence": "Apache-2.0",
            "network": "^10G is Up to 10 Gigabit",
            "units": "empty: by the size in the name, an xlarge is 1; zero: unknown",
            "left_out": "bare metal, Macs, previous generations from before Nitro, g4ad (moto omits its GPUs)",
        },
        about_prices={"libcloud": _about_libcloud()} | _about_published(),
    )


def moto_types() -> dict[str, dict[str, Any]]:
    """Return moto's data of every instance type."""
    packed = files("moto.ec2.resources").joinpath("instance_types.json.gz").read_bytes()
    types: dict[str, dict[str, Any]] = json.loads(gzip.decompress(packed))
    return types


def libcloud_pricing() -> dict[str, Any]:
    """The package's whole table."""
    # A newer one can be had from libcloud's own server; this is the one that the version names.
    text = files("libcloud.data").joinpath("pricing.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def odd_units(types: list[Described]) -> dict[str, float]:
    """Units of the types that do not cost by their size: what they cost in us-east-1, or none."""
    priced = {name: usd for table in published.TYPES.values() for name, usd in table.items()}
    odd = {each.name: priced.get(each.name, 0.0) for each in types if is_odd(each.name)}
    return odd | {name: by for name, by in published.UNITS.items() if any(each.name == name for each in types)}


def libcloud_rates(types: list[Described]) -> dict[str, dict[str, float]]:
    """USD of one unit by region and family, of what `tools.lowest_cluster` confirms."""
    odd = odd_units(types)
    # The P family has been made cheaper since, and by another share in every region.
    known = {each.name: units(each.name, odd) for each in types if not each.name.startswith("p")}
    prices: Mapping[str, Mapping[str, float]] = libcloud_pricing()["compute"]["ec2_linux"]
    commercial = {
        name: {region: usd for region, usd in by_region.items() if not region.startswith(_OTHER_REGIONS)}
        for name, by_region in prices.items()
    }
    return lowest_cluster.rates(commercial, known)


def _published_rates(types: list[Described]) -> dict[str, dict[str, dict[str, float]]]:
    families = {each.family for each in types}
    rates = {}
    for date, xlarge in published.XLARGE.items():
        of_types = {name.partition(".")[0]: 1.0 for name in published.TYPES.get(date, {})}
        known = {family: usd for family, usd in (xlarge | of_types).items() if family in families}
        rates[f"aws-{date}"] = {published.REGION: known}
    return rates


def _about_libcloud() -> dict[str, str]:
    return {
        "origin": "the Python package apache-libcloud, libcloud/data/pricing.json, key compute.ec2_linux",
        "words": "AWS price list, by way of apache-libcloud",
        "version": version("apache-libcloud"),
        "licence": "Apache-2.0",
        "date": datetime.fromtimestamp(libcloud_pricing()["updated"], UTC).date().isoformat(),
        "method": "tools/lowest_cluster.py: the lowest price by size that others of the family confirm",
    }


def _about_published() -> dict[str, dict[str, str]]:
    return {
        f"aws-{date}": {
            "origin": "AWS price list of us-east-1, in the table that Karpenter generates from it: numbers alone",
            "words": "AWS price list",
            "date": date,
            "method": "tools/published.py: each family's xlarge, or each type of what has accelerators",
        }
        for date in published.XLARGE
    }
