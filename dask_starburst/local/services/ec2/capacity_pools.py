"""Capacity pools: an instance type in an availability zone in a market."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moto.ec2.models.instance_types import INSTANCE_TYPES

from dask_starburst.catalog import price_table
from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.quotas import Quota, quota_of
from dask_starburst.errors import PriceUnknown


@dataclass(frozen=True)
class Pool:
    """A capacity pool."""

    type: str
    zone: str
    market: Market

    @property
    def vcpus(self) -> int:
        """The vCPUs of one instance."""
        return int(INSTANCE_TYPES[self.type]["VCpuInfo"]["DefaultVCpus"])

    @property
    def quota(self) -> Quota | None:
        """The quota that it counts against."""
        return quota_of(self.type, self.market)

    @property
    def region(self) -> str:
        """The region of its zone; the embedded AWS has no local zones."""
        return self.zone.rstrip("abcdefgh")

    @property
    def price(self) -> float:
        """USD an hour in the bundled catalogue; infinite if it has no price."""
        try:
            table = price_table(self.region)
            price = table.spot_estimate(self.type) if self.market is Market.SPOT else table.on_demand(self.type)
        except PriceUnknown:
            return math.inf
        return price.usd_per_hour


@dataclass(frozen=True)
class Choice:
    """A selection of pools by type, zone and market; None matches any."""

    type: str | None = None
    zone: str | None = None
    market: str | None = None

    def matches(self, pool: Pool) -> bool:
        """Return whether it selects a pool."""
        return self.type in (None, pool.type) and self.zone in (None, pool.zone) and self.market in (None, pool.market)
