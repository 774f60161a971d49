"""Prices of one region: the bundled ones, for now."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from dask_starburst.aws.session import AWS
from dask_starburst.catalog import Price, price_table


class PriceBook:
    """Prices of one region."""

    def __init__(self, region: str, *, cache: Path | None = None, now: Callable[[], float] | None = None) -> None:
        self.region = region

    def on_demand(self, instance_type: str) -> Price:
        """Return the list price."""
        return price_table(self.region).on_demand(instance_type)

    def spot(self, instance_type: str, zone: str = "") -> Price:
        """Return an assumption."""
        return price_table(self.region).spot_estimate(instance_type)

    async def refresh(self, aws: AWS, types: Iterable[str], zones: Iterable[str]) -> None:
        """Nothing."""
