"""The availability zone of a cluster: a single one, because traffic between zones costs money."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Spot placement scores range from 1 to 10 ("Spot placement score", EC2 User Guide). Zones whose scores differ by
#: less than this count as equal, so that the zone, and with it a pool kept for reuse, stays the same.
SCORE_STEP = 3
#: Prices that differ by less than this factor count as equal.
PRICE_STEP = 1.1


@dataclass(frozen=True, slots=True)
class Zone:
    """A subnet, its zone, and facts about it.

    Parameters
    ----------
    subnet, vpc, name : str
        Ids of subnet and VPC; the zone's name.
    available_types : frozenset of str
        The requested instance types that AWS offers there.
    size : int
        Number of addresses of the subnet, or of free ones once it is half full. With free addresses alone the zone
        would change with every cluster, and a pool kept for reuse in the other zone would not be found.
    score : int, optional
        AWS's Spot placement score, 1 to 10; None if the caller has no permission to read it.
    price : float, optional
        USD an hour: the mean Spot price of the three cheapest of the requested types.
    failures : int
        Number of recent launches that AWS refused there for lack of capacity.
    """

    subnet: str
    vpc: str
    name: str
    available_types: frozenset[str]
    size: int
    score: int | None = None
    price: float | None = None
    failures: int = 0


def best(zones: list[Zone], head: str) -> Zone:
    """Return the best zone: it offers the scheduler's type, most of the requested types, and Spot capacity.

    Parameters
    ----------
    zones : list of Zone
        At least one.
    head : str
        The scheduler's instance type.
    """

    def score_of(zone: Zone) -> tuple[bool, int, bool, int, int, int, str]:
        score = (zone.score or 0) // SCORE_STEP
        cheap = -round(math.log(zone.price, PRICE_STEP)) if zone.price and zone.score is None else 0
        return (
            head in zone.available_types,
            len(zone.available_types),
            not zone.failures,
            score,
            cheap,
            zone.size,
            zone.subnet,
        )

    return max(zones, key=score_of)


def mean_of_cheapest(prices: list[float], count: int = 3) -> float | None:
    """Return the mean of the lowest prices; None if there are none."""
    lowest = sorted(prices)[:count]
    return sum(lowest) / len(lowest) if lowest else None
