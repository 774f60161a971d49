"""What AWS charges, from a small bundled table. Only us-east-1 for now: other regions cost a little more."""

from __future__ import annotations

import csv
import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType

from dask_starburst.catalog.instance_types import InstanceType, find
from dask_starburst.errors import BadArgument

EBS_GP3_GB_MONTH = 0.08
"""USD for one GB of a gp3 volume for a month. AWS EBS pricing, us-east-1, read in July 2026."""

PUBLIC_IPV4_HOUR = 0.005
"""USD for one hour of a public IPv4 address. AWS VPC pricing, every region, since February 2024."""

XLARGE_VCPUS = 4


@dataclass(frozen=True, slots=True)
class Price:
    """What one hour of something costs, and how we know.

    Attributes
    ----------
    usd_per_hour : float
        US dollars, before tax and discounts.
    source : str
        Where the number is from.
    date : str
        When it was right: ``"2026-07-20"`` or ``"2025-06"``.
    assumed : bool
        True if nobody published it and we took a higher number in its place.
    """

    usd_per_hour: float
    source: str
    date: str
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class _Family:
    xlarge: float
    saving: float | None  # the middle of the published range, as a fraction


@dataclass(frozen=True)
class PriceTable:
    """Prices by instance type.

    Within a family AWS prices by the vCPU, so one number a family is enough.

    Attributes
    ----------
    region : str
        The region that the prices are of.
    on_demand_date, spot_date : str
        When the two columns were published.
    """

    families: Mapping[str, _Family]
    region: str
    on_demand_date: str
    spot_date: str

    def on_demand(self, instance_type: InstanceType | str) -> Price:
        """Give the on-demand price of a type.

        Parameters
        ----------
        instance_type : InstanceType or str

        Returns
        -------
        Price

        Raises
        ------
        BadArgument
            If the table has no price for the type.
        """
        kind = self._type(instance_type)
        usd = self._family(kind).xlarge * kind.vcpus / XLARGE_VCPUS
        return Price(usd, f"bundled {self.region} price list", self.on_demand_date)

    def spot_estimate(self, instance_type: InstanceType | str) -> Price:
        """Estimate the Spot price of a type from the middle of its published savings.

        Real Spot prices move by zone and hour. Where no savings were published the on-demand price is given and
        marked as assumed: an estimate may be too high, never too low for want of data.

        Parameters
        ----------
        instance_type : InstanceType or str

        Returns
        -------
        Price

        Raises
        ------
        BadArgument
            If the table has no price for the type.
        """
        kind = self._type(instance_type)
        on_demand, saving = self.on_demand(kind), self._family(kind).saving
        if saving is None:
            source = f"the on-demand price, as no Spot savings of {kind.family} are bundled"
            return Price(on_demand.usd_per_hour, source, on_demand.date, assumed=True)
        source = f"on demand less {saving:.1%}, the middle of the published Spot savings of {kind.family}"
        return Price(on_demand.usd_per_hour * (1 - saving), source, self.spot_date)

    def _type(self, instance_type: InstanceType | str) -> InstanceType:
        return instance_type if isinstance(instance_type, InstanceType) else find(instance_type)

    def _family(self, kind: InstanceType) -> _Family:
        try:
            return self.families[kind.family]
        except KeyError:
            raise BadArgument(
                f"There is no bundled price for {kind.name}: the table has {', '.join(self.families)}."
            ) from None


@functools.cache
def price_table() -> PriceTable:
    """Read the bundled table.

    Returns
    -------
    PriceTable
    """
    data = files("dask_starburst.catalog").joinpath("data")
    about = json.loads(data.joinpath("SOURCES.json").read_text(encoding="utf-8"))["prices.csv"]
    rows = csv.DictReader(data.joinpath("prices.csv").read_text(encoding="utf-8").splitlines())
    return PriceTable(
        MappingProxyType({row["family"]: _read(row) for row in rows}),
        about["region"],
        about["on_demand"]["date"],
        about["spot"]["date"],
    )


def _read(row: dict[str, str]) -> _Family:
    low, high = row["spot_saving_low"], row["spot_saving_high"]
    saving = (float(low) + float(high)) / 200 if low else None
    return _Family(float(row["usd_per_hour_xlarge"]), saving)
