"""Capacity pools: an instance type in an availability zone in a market, ``"spot"`` or ``"on-demand"``."""

from __future__ import annotations

import math
from dataclasses import dataclass

from moto.ec2.models.instance_types import INSTANCE_TYPES

from dask_starburst.catalog import price_table
from dask_starburst.catalog.quotas import Market as Kind
from dask_starburst.catalog.quotas import Quota, quota_of
from dask_starburst.errors import PriceUnknown


@dataclass(frozen=True)
class Pool:
    """A capacity pool."""

    type: str
    zone: str
    market: Kind

    @property
    def vcpus(self) -> int:
        """How many vCPUs one of its instances has."""
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
        """USD an hour by the bundled catalogue; infinite for what it does not have."""
        try:
            table = price_table(self.region)
            price = table.spot_estimate(self.type) if self.market == "spot" else table.on_demand(self.type)
        except PriceUnknown:
            return math.inf
        return price.usd_per_hour


@dataclass(frozen=True)
class Choice:
    """Some pools: all that have the named type, zone and market. What is None is any."""

    type: str | None = None
    zone: str | None = None
    market: str | None = None

    def takes(self, pool: Pool) -> bool:
        """Whether a pool is one of them."""
        return self.type in (None, pool.type) and self.zone in (None, pool.zone) and self.market in (None, pool.market)
