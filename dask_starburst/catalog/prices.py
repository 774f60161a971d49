"""What AWS charges, by region, from small bundled tables: list prices, and what Spot is assumed to cost."""

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

#: From the best to the worst.
_KINDS: tuple[Kind, ...] = ("live", "cached", "bundled", "derived", "assumed")


@dataclass(frozen=True, slots=True)
class Price:
    """What one hour of something costs, and how we know.

    Attributes
    ----------
    usd_per_hour : float
        US dollars, before tax and discounts.
    source : str
        Where the number is from, in words: ``"AWS price list"``.
    date : str
        When it was right: ``"2026-07-20"`` or ``"2025-06"``.
    kind : {"live", "cached", "bundled", "derived", "assumed"}
        AWS has just said so; has said so some time ago; a list in this package says so; it follows from that list
        by the size of the type; nobody has said so.
    why : str
        Why nothing better was to be had: ``"live price denied: pricing:GetProducts"``.
    since : float, optional
        From when on it counts, in seconds since the epoch, if AWS says so: it does for Spot.
    """

    usd_per_hour: float
    source: str
    date: str
    kind: Kind = "bundled"
    why: str = ""
    since: float | None = None

    @property
    def assumed(self) -> bool:
        """True if nobody published it."""
        return self.kind == "assumed"


def sources(prices: Iterable[Price]) -> str:
    """Say where a total comes from: its worst source, with the date and what stood in the way of a better one.

    Parameters
    ----------
    prices : iterable of Price
        Those that were added up.

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
    """USD an hour of one unit of a family: of its xlarge, where its sizes cost in proportion."""

    usd: float
    source: str
    date: str


@dataclass(frozen=True)
class PriceTable:
    """The bundled prices of one region.

    Within a family AWS's prices are in proportion to the size, so one number a family and region is enough. Types
    with accelerators are in proportion to what they cost in us-east-1 (see ``docs/explanation/prices.md``).

    Attributes
    ----------
    region : str
        The region that the prices are of.
    rates : mapping of str to Rate
        By family: what is known there. Empty for a region that the list does not have.
    savings : mapping of str to float
        By family: the middle of the published Spot savings, as a fraction.
    spot_date : str
        When the savings were published.
    """

    region: str
    rates: Mapping[str, Rate]
    savings: Mapping[str, float]
    spot_date: str

    def has(self, instance_type: InstanceType | str) -> bool:
        """Whether there is a price for a type.

        Parameters
        ----------
        instance_type : InstanceType or str
        """
        return self._price(_name(instance_type)) is not None

    def on_demand(self, instance_type: InstanceType | str) -> Price:
        """Give the on-demand price of a type.

        Parameters
        ----------
        instance_type : InstanceType or str
            One that the catalogue does not have is priced by the size in its name, if its family has a price.

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
        """Assume a Spot price of a type: the middle of its published savings.

        Real Spot prices move by zone and hour. Where no savings were published the on-demand price is taken: an
        assumption may be too high, never too low for want of data.

        Parameters
        ----------
        instance_type : InstanceType or str
        on_demand : Price, optional
            Its on-demand price if that is known better than here.

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
        start = f"nobody says what {name} costs in {self.region}"
        command = f"starburst prices {name} --region {self.region}"
        ask = f"With credentials that may pricing:GetProducts, `{command}` asks AWS."
        if not self.rates:
            return f"{start}: the bundled list has no prices of that region, only of {', '.join(regions())}. {ask}"
        if name not in catalogue():
            near = get_close_matches(name.strip().lower(), catalogue(), 3, cutoff=0.6)
            return f"{start}: there is no such type in the catalogue.{f' Did you mean {_or(near)}?' if near else ''}"
        return f"{start}: the bundled list has no price of it there, so it may not be sold there. {ask}"


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
        Without any prices if the region is not in the list: a cluster runs there all the same.
    """
    about = sources_of_data()
    rates = {
        row["family"]: Rate(float(row[region]), origin["words"], origin["date"])
        for row in _price_rows()  # of two rows of a family the later one counts: it is the newer
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
    """Every region that the bundled prices are of."""
    return tuple(name for name in _price_rows()[0] if name not in ("family", "source"))


@functools.cache
def sources_of_data() -> Mapping[str, Any]:
    """What ``SOURCES.json`` says of the bundled tables: origin, version, date, licence, sha256."""
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
