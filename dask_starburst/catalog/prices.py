"""Bundled prices by region: on-demand list prices, and assumed Spot prices."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

from dask_starburst.catalog.instance_types import InstanceType, catalogue, rows, size_units
from dask_starburst.errors import PriceUnknown

EBS_GP3_GB_MONTH = 0.08
"""USD for one GB of a gp3 volume for a month. AWS EBS pricing, us-east-1, read in July 2026."""

PUBLIC_IPV4_HOUR = 0.005
"""USD for one hour of a public IPv4 address. AWS VPC pricing, every region, since February 2024."""

Kind = Literal["live", "cached", "bundled", "derived", "assumed"]

#: From the most to the least reliable.
_KINDS: tuple[Kind, ...] = ("live", "cached", "bundled", "derived", "assumed")


@dataclass(frozen=True, slots=True)
class Price:
    """An hourly price with its source.

    Attributes
    ----------
    usd_per_hour : float
        US dollars, before tax and discounts.
    source : str
        The source, such as ``"AWS price list"``.
    date : str
        The date of the price: ``"2026-07-20"`` or ``"2025-06"``.
    kind : {"live", "cached", "bundled", "derived", "assumed"}
        Just returned by AWS; returned by AWS earlier; from the list in this package; derived from that list by the size
        of the type; not published.
    why : str
        Why there is no better source: ``"live price denied: pricing:GetProducts"``.
    since : float, optional
        Start of the price in seconds since the epoch, for Spot prices from AWS.
    """

    usd_per_hour: float
    source: str
    date: str
    kind: Kind = "bundled"
    why: str = ""
    since: float | None = None

    @property
    def assumed(self) -> bool:
        """True if the price is not published."""
        return self.kind == "assumed"


def sources(prices: Iterable[Price]) -> str:
    """Describe the source of a total: its least reliable price, with its date and why there is no better one.

    Parameters
    ----------
    prices : iterable of Price
        The prices in the total.

    Returns
    -------
    str
        Such as ``"AWS price list of 2025-03-02, bundled; live price denied: pricing:GetProducts"``; empty without any.
    """
    worst = max(prices, key=lambda price: (_KINDS.index(price.kind), _age(price.date)), default=None)
    if worst is None:
        return ""
    return f"{worst.source} of {worst.date}, {worst.kind}" + (f"; {worst.why}" if worst.why else "")


@dataclass(frozen=True, slots=True)
class Rate:
    """Hourly price of one unit of a family: of its xlarge, if prices are proportional to the size."""

    usd: float
    source: str
    date: str


@dataclass(frozen=True)
class PriceTable:
    """The bundled prices of one region.

    Within a family AWS's prices are proportional to the size, so one number a family and region is enough. Types with
    accelerators are scaled from their prices in us-east-1 (see ``docs/explanation/prices.md``).

    Attributes
    ----------
    region : str
        The region of the prices.
    rates : mapping of str to Rate
        The rates by family. Empty for a region that is not in the list.
    savings : mapping of str to float
        The middle of the published Spot savings by family, as a fraction.
    spot_date : str
        The date of the savings.
    """

    region: str
    rates: Mapping[str, Rate]
    savings: Mapping[str, float]
    spot_date: str

    def has(self, instance_type: InstanceType | str) -> bool:
        """Return whether a type has a price.

        Parameters
        ----------
        instance_type : InstanceType or str
        """
        return self._price(_name(instance_type)) is not None

    def on_demand(self, instance_type: InstanceType | str) -> Price:
        """Return the on-demand price of a type.

        Parameters
        ----------
        instance_type : InstanceType or str
            A type that is not in the catalogue is priced by the size in its name, if its family has a price.

        Returns
        -------
        Price

        Raises
        ------
        PriceUnknown
            If neither the type nor its family has a price in this region.
        """
        name = _name(instance_type)
        found = self._price(name)
        if found is None:
            raise PriceUnknown(self._unknown(name))
        return found

    def spot_estimate(self, instance_type: InstanceType | str, on_demand: Price | None = None) -> Price:
        """Estimate the Spot price of a type from the middle of its published savings.

        Real Spot prices vary by zone and hour. Without published savings the on-demand price is used: the estimate may
        be too high, but lack of data never makes it too low.

        Parameters
        ----------
        instance_type : InstanceType or str
        on_demand : Price, optional
            Its on-demand price, if a better one than the bundled price is known.

        Returns
        -------
        Price
            Always ``"assumed"``.

        Raises
        ------
        PriceUnknown
            As `on_demand` does.
        """
        on_demand = on_demand or self.on_demand(instance_type)
        family = _name(instance_type).partition(".")[0]
        saving = self.savings.get(family)
        if saving is None:
            source = f"the on-demand price, as no Spot savings of {family} are bundled,"
            return Price(on_demand.usd_per_hour, source, on_demand.date, "assumed")
        source = f"on demand less {100 * saving:.3g} %, the middle of the Spot savings of {family} in us-east-1"
        return Price(on_demand.usd_per_hour * (1 - saving), source, self.spot_date, "assumed")

    def _price(self, name: str) -> Price | None:
        family, known = self.rates.get(name.partition(".")[0]), catalogue().get(name)
        if family is None:
            return None
        if known is not None:
            return Price(family.usd * known.units, family.source, family.date) if known.units else None
        if name.partition(".")[0] in _not_by_size() or not size_units(name):
            return None
        source = f"the size in its name, and its family's price in the {family.source},"
        return Price(family.usd * size_units(name), source, family.date, "derived")

    def _unknown(self, name: str) -> str:
        start = f"the price of {name} in {self.region} is unknown"
        command = f"starburst prices {name} --region {self.region}"
        ask = f"With credentials that allow pricing:GetProducts, `{command}` requests it from AWS."
        if not self.rates:
            return f"{start}: the bundled list has no prices of that region, only of {', '.join(regions())}. {ask}"
        if name not in catalogue():
            near = get_close_matches(name.strip().lower(), catalogue(), 3, cutoff=0.6)
            return f"{start}: the type is not in the catalogue.{f' Did you mean {_or(near)}?' if near else ''}"
        return f"{start}: the bundled list has no price, so the type may not be available there. {ask}"


@functools.cache
def price_table(region: str = "us-east-1") -> PriceTable:
    """Read the bundled prices of a region.

    Parameters
    ----------
    region : str
        Such as ``"eu-central-1"``.

    Returns
    -------
    PriceTable
        Without prices if the region is not in the list. A cluster can still run there.
    """
    about = sources_of_data()
    rates = {
        row["family"]: Rate(float(row[region]), origin["words"], origin["date"])
        for row in _price_rows()  # the later of two rows of a family is newer and wins
        if row.get(region)
        for origin in [about["prices"][row["source"]]]
    }
    savings = {
        row["family"]: (float(row["spot_saving_low"]) + float(row["spot_saving_high"])) / 200
        for row in rows("families.csv")
        if row["spot_saving_low"]
    }
    return PriceTable(region, MappingProxyType(rates), MappingProxyType(savings), about["spot_savings"]["date"])


@functools.cache
def regions() -> tuple[str, ...]:
    """Return the regions with bundled prices."""
    return tuple(name for name in _price_rows()[0] if name not in ("family", "source"))


@functools.cache
def sources_of_data() -> Mapping[str, Any]:
    """Return ``SOURCES.json``, which describes the bundled tables: origin, version, date, licence, sha256."""
    text = files("dask_starburst.catalog").joinpath("data/SOURCES.json").read_text(encoding="utf-8")
    about: dict[str, Any] = json.loads(text)
    return MappingProxyType(about)


@functools.cache
def _price_rows() -> list[dict[str, str]]:
    return rows("prices.csv")


@functools.cache
def _not_by_size() -> frozenset[str]:
    return frozenset(each.family for each in catalogue().values() if each.units != size_units(each.name))


def _name(instance_type: InstanceType | str) -> str:
    return instance_type.name if isinstance(instance_type, InstanceType) else instance_type


def _or(names: list[str]) -> str:
    return " or ".join(names)


def _age(date: str) -> float:
    """Order dates from new to old; a month counts as its first day."""
    digits = (date[:10].replace("-", "") + "0101")[:8]
    return -float(digits) if digits.isdigit() else 0.0
