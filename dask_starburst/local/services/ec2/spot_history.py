"""EC2's DescribeSpotPriceHistory.

moto answers it with invented prices. Here the prices are those of the bundled catalogue, and change
only through faults: one entry at the start of every day, and one at each change.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from dask_starburst.catalog import catalogue
from dask_starburst.catalog.markets import Market
from dask_starburst.local.http.protocols import XML, Answer, ServiceError, error_answer
from dask_starburst.local.services.ec2.capacity_pools import Pool
from dask_starburst.local.services.ec2.spot_prices import SpotPrices

#: Instances are listed under the first name if the account has EC2-Classic, else under either.
_PRODUCTS = ("Linux/UNIX", "Linux/UNIX (Amazon VPC)")
_DAY = 86400.0
#: "up to the past 90 days" (EC2 API Reference).
_OLDEST = 90 * _DAY
_PAGE = 1000
#: Filter name -> key of an entry.
_FILTERS = {
    "availability-zone": "availabilityZone",
    "availability-zone-id": "availabilityZoneId",
    "instance-type": "instanceType",
    "product-description": "productDescription",
    "spot-price": "spotPrice",
    "timestamp": "timestamp",
}


class SpotHistory:
    """Answers DescribeSpotPriceHistory for the zones of one region.

    Parameters
    ----------
    zones : mapping of str to str
        The ids of the zones by name.
    now : callable
        The virtual time, in seconds since the epoch.
    prices : SpotPrices
        The Spot prices.
    """

    def __init__(self, zones: Mapping[str, str], now: Callable[[], float], prices: SpotPrices) -> None:
        self._zones = zones
        self._prices = prices
        self._now = now

    def answer(self, body: bytes) -> Answer:
        """Answer one form-encoded request."""
        try:
            return self._reply(dict(parse_qsl(body.decode())))
        except ServiceError as error:
            return error_answer("ec2", error)

    def _reply(self, form: dict[str, str]) -> Answer:
        entries = self._entries(form)
        start = _number(form.get("NextToken", "0"), "NextToken")
        end = start + (_number(form.get("MaxResults", "0"), "MaxResults") or _PAGE)
        items = "".join(
            "<item>" + "".join(f"<{key}>{escape(value)}</{key}>" for key, value in entry.items()) + "</item>"
            for entry in entries[start:end]
        )
        root, token = "DescribeSpotPriceHistoryResponse", str(end) if end < len(entries) else ""
        text = (
            f'<{root} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>local</requestId>'
            f"<spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken>{token}</nextToken></{root}>"
        )
        return 200, XML, text.encode()

    def _entries(self, form: dict[str, str]) -> list[dict[str, str]]:
        zones, types, products = (
            self._zones_of(form),
            _values(form, "InstanceType"),
            _values(form, "ProductDescription"),
        )
        filters = _filters(form)
        # Apply the common filters first: all types in all zones over three months are a million entries.
        names = [name for name in types or catalogue() if _matches(filters, "instance-type", name)]
        zones = [zone for zone in zones if _matches(filters, "availability-zone", zone)]
        entries = [
            {
                "instanceType": name,
                "productDescription": product,
                "spotPrice": f"{price:.6f}",
                "timestamp": datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                "availabilityZone": zone,
                "availabilityZoneId": self._zones[zone],
            }
            for at in self._times(form)
            for name in names
            for zone in zones
            if (price := self._prices.of(Pool(name, zone, Market.SPOT), at)) < math.inf
            for product in _PRODUCTS
            if product in (products or _PRODUCTS)
        ]
        return [one for one in entries if all(_matches(filters, name, one[key]) for name, key in _FILTERS.items())]

    def _zones_of(self, form: dict[str, str]) -> list[str]:
        zone = form.get("AvailabilityZone")
        if zone is None:
            return list(self._zones)
        if zone not in self._zones:
            raise ServiceError("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        return [zone]

    def _times(self, form: dict[str, str]) -> list[float]:
        """Return the times of price changes in the range, newest first, and of the last change before it."""
        now = self._now()
        start = max(_time(form.get("StartTime"), "StartTime", now - _OLDEST), now - _OLDEST)
        end = min(_time(form.get("EndTime"), "EndTime", now), now)
        if end < start:
            return []
        first, last = math.floor(start / _DAY), math.floor(end / _DAY)
        days = [day * _DAY for day in range(first, last + 1)]
        # The last change before the range is reported at the start of its day.
        before = self._prices.changed(days[0], start)[-1:]
        times = {*days, *before, *self._prices.changed(start, end)}
        return sorted((at for at in times if not before or at >= before[0]), reverse=True)


def _filters(form: dict[str, str]) -> dict[str, list[str]]:
    filters = {}
    for key, name in form.items():
        if found := re.fullmatch(r"Filter\.(\d+)\.Name", key):
            if name not in _FILTERS:
                raise ServiceError("InvalidParameterValue", f"The filter '{name}' is invalid")
            filters[name] = _values(form, f"Filter.{found[1]}.Value")
    return filters


def _matches(filters: Mapping[str, Iterable[str]], name: str, value: str) -> bool:
    return name not in filters or any(fnmatch.fnmatchcase(value, pattern) for pattern in filters[name])


def _values(form: dict[str, str], name: str) -> list[str]:
    return [value for key, value in form.items() if re.fullmatch(rf"{re.escape(name)}\.\d+", key)]


def _time(text: str | None, name: str, default: float) -> float:
    if text is None:
        return default
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise ServiceError("InvalidParameterValue", f"Invalid value for parameter {name}: {text}") from error


def _number(text: str, name: str) -> int:
    if not text.isdigit():
        raise ServiceError("InvalidParameterValue", f"Value ( {text} ) for parameter {name} is invalid.")
    return int(text)
