"""In which zone a cluster is launched: all of it in one, because traffic between zones costs money."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: Spot placement scores go from 1 to 10 ("Spot placement score", EC2 User Guide). Zones whose scores differ by
#: less than this count as equal, so that the zone, and with it the pool that may be warm, stays the same.
SCORE_STEP = 3
#: Prices that differ by less than this factor count as equal.
PRICE_STEP = 1.1


@dataclass(frozen=True, slots=True)
class Zone:
    """A subnet, its zone, and what is known of it.

    Parameters
    ----------
    subnet, vpc, name : str
        Ids of subnet and VPC; the zone's name.
    sold : frozenset of str
        The wanted instance types that AWS sells there.
    size : int
        Addresses that the subnet has, or that are free once it is half full. Else the zone would change with every
        cluster, and a warm pool in the other zone would not be found.
    score : int, optional
        AWS's Spot placement score, 1 to 10, where we may ask for it.
    price : float, optional
        USD an hour: the mean Spot price of the three cheapest of the wanted types.
    failures : int
        Launches of ours that AWS refused there lately for want of capacity.
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
    """Return where to launch: where the scheduler's type is sold, with the most wanted types, and Spot to be had.

    Parameters
    ----------
    zones : list of Zone
        One at least.
    head : str
        The scheduler's instance type.
    """

    def merit(zone: Zone) -> tuple[bool, int, bool, int, int, int, str]:
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

    return max(zones, key=merit)


def mean_of_cheapest(prices: list[float], count: int = 3) -> float | None:
    """Return the mean of the lowest prices; None when there is none."""
    lowest = sorted(prices)[:count]
    return sum(lowest) / len(lowest) if lowest else None
