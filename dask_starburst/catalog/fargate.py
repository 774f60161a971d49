"""Fargate prices by vCPU and GB."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, replace

from dask_starburst.catalog.instance_types import Arch, rows
from dask_starburst.catalog.prices import Price, price_table, sources_of_data
from dask_starburst.errors import PriceUnknown

_HOME = "us-east-1"


@dataclass(frozen=True, slots=True)
class FargateRates:
    """Hourly prices of Fargate in a region.

    Attributes
    ----------
    vcpu, gb : Price
        Price of one vCPU, and of one GB of memory.
    """

    vcpu: Price
    gb: Price

    @property
    def spot(self) -> FargateRates:
        """The assumed price of Fargate Spot: the same as on-demand.

        AWS offers up to 70 % less without a bundled price list, so this may be too high, never too low.
        """
        words = "the Fargate price, as Fargate Spot (up to 70 % less) is not in the list,"
        return FargateRates(*(replace(each, source=words, kind="assumed") for each in (self.vcpu, self.gb)))


def fargate_rates(region: str, arch: Arch) -> FargateRates:
    """Return the Fargate prices of a region.

    Parameters
    ----------
    region : str
    arch : {"arm64", "x86_64"}

    Returns
    -------
    FargateRates
        Bundled for us-east-1. For other regions scaled by the median ratio of the EC2 prices.

    Raises
    ------
    PriceUnknown
        If the bundled list has no prices of the region.
    """
    usd = next(row for row in rows("fargate.csv") if row["arch"] == arch)
    about = sources_of_data()["fargate"]
    here = FargateRates(*(Price(float(usd[part]), about["words"], about["date"]) for part in ("vcpu", "gb")))
    if region == _HOME:
        return here
    factor = _dearer(region)
    words = f"{about['words']} of {_HOME} times {factor:.3g}, as EC2 costs in {region},"
    return FargateRates(
        *(Price(each.usd_per_hour * factor, words, each.date, "assumed") for each in (here.vcpu, here.gb))
    )


def _dearer(region: str) -> float:
    home, there = price_table(_HOME).rates, price_table(region).rates
    ratios = [rate.usd / home[family].usd for family, rate in there.items() if family in home]
    if not ratios:
        raise PriceUnknown(f"the Fargate price in {region} is unknown: the bundled list has no prices of that region.")
    return statistics.median(ratios)
