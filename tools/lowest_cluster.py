"""From a price table with faults to one rate a family and region.

Within a family AWS's prices are in proportion to the size: an 8xlarge costs eight times its xlarge, to the digit that
AWS rounds to. apache-libcloud's table (``libcloud/data/pricing.json``) breaks this in a third of its cells, and in two
ways only: the cell is zero, or it is the price times 1.06 or 1.10. So the lowest price by size is the true one,
and every other cell is either that, or zero, or one of the two steps above it. What the rule cannot confirm is left
out. Against AWS's own prices of us-east-1, which are known from elsewhere, it is right to the fifth digit; the tests
hold that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

#: Two prices by size are the same within this: AWS rounds to four or five digits after the point, t3.nano to 0.0057,
#: and t2 has sizes that are 1.5 % off.
SAME = 0.016
#: By what faults multiply a price.
FAULTS = (1.06, 1.10)
#: This many equal prices are accepted although none of the others is a fault of theirs. Fewer are not enough:
#: m5zn in us-east-2 has two that are 10 % too high, c6g in eu-west-3 three that are 6 % too high by all other families.
ENOUGH = 4


@dataclass(frozen=True, slots=True)
class Point:
    """One price of a family in a region, by size."""

    rate: float
    units: float


def rate(points: Iterable[Point]) -> float | None:
    """Return the family's price of one unit, or None where nothing confirms the lowest.

    The lowest is confirmed by one that is higher by what a fault multiplies with, or by three others that are the same.
    """
    sound = [point for point in points if point.rate > 0]
    if not sound:
        return None
    lowest = min(point.rate for point in sound)
    same = [point for point in sound if _same(point.rate, lowest)]
    faulty = any(_same(point.rate, lowest * by) for point in sound for by in FAULTS)
    if not faulty and len(same) < ENOUGH:
        return None
    # The largest size has the most digits.
    return max(same, key=lambda point: point.units).rate


def rates(prices: Mapping[str, Mapping[str, float]], units: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return the USD of one unit by region and family.

    Parameters
    ----------
    prices : mapping of str to mapping of str to float
        USD an hour by type and region, faults included.
    units : mapping of str to float
        How many units a type has; the others are passed over.
    """
    points: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for name, by_region in prices.items():
        for region, usd in by_region.items():
            if units.get(name):
                points[region, name.partition(".")[0]].append(Point(usd / units[name], units[name]))
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for (region, family), known in sorted(points.items()):
        if (usd_per_unit := rate(known)) is not None:
            found[region][family] = usd_per_unit
    return dict(found)


def _same(one: float, other: float) -> bool:
    return abs(one / other - 1) <= SAME
