"""What EC2 has to sell: rooms of capacity pools, vCPU quotas, and which pool a group buys from.

Everything is unlimited
until the weather says otherwise, quotas as good as.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask_starburst.catalog.quotas import Market as Kind
from dask_starburst.local.backend.quotas import Quotas
from dask_starburst.local.backend.state import Group, Machine
from dask_starburst.local.http.protocols import ServiceError
from dask_starburst.local.services.ec2.capacity_pools import Choice, Pool
from dask_starburst.local.services.ec2.spot_prices import SpotPrices

_SPOT_POOLS = 2  # SpotInstancePools' default, of lowest-price only
# How long a group prefers others to a pool that has refused it. Unverified: real groups do so for minutes.
_WARY_SECONDS = 300.0


@dataclass
class _Room:
    choice: Choice
    room: int | None
    before: Counter[Pool]  # what was in use when the room was measured


@dataclass
class _Refusal:
    choice: Choice
    times: int | None
    until: float


@dataclass(frozen=True)
class Offer:
    """One way in which a group would buy: an override of its policy, in a market."""

    template: dict[str, Any]
    override: str | None
    pool: Pool


class Market:
    """Rooms, quotas and refusals of all pools.

    Parameters
    ----------
    now : callable
        The virtual time.
    zones : callable
        Returns the zones of the region, for AWS's advice to try another.
    seed : int
        Decides between pools that are equal in everything.
    quotas : Quotas, optional
        The quotas of the account.
    """

    def __init__(
        self,
        now: Callable[[], float],
        zones: Callable[[], Sequence[str]],
        seed: int,
        quotas: Quotas | None = None,
    ) -> None:
        self.quotas = Quotas() if quotas is None else quotas
        self.prices = SpotPrices(now)
        self._now = now
        self._zones = zones
        self._seed = seed
        self._used: Counter[Pool] = Counter()
        self._rooms: list[_Room] = []  # the latest that takes a pool counts
        self._refusals: list[_Refusal] = []
        self._wary: dict[tuple[str, Pool], float] = {}  # until when a group avoids a pool

    def take(self, machine: Machine) -> None:
        """Count an instance that was launched."""
        self._used[pool_of(machine)] += 1

    def give_back(self, machine: Machine) -> None:
        """Count an instance that shuts down."""
        self._used[pool_of(machine)] -= 1

    def set_room(self, choice: Choice, room: int | None) -> None:
        """Let each of some pools have room for so many instances more; None is any number."""
        self._rooms = [one for one in self._rooms if one.choice != choice]
        self._rooms.append(_Room(choice, room, self._used.copy()))

    def refuse(self, choice: Choice, times: int | None, seconds: float | None) -> None:
        """Let some pools look open and refuse, so many times or for so long."""
        self._refusals.append(_Refusal(choice, times, self._now() + (math.inf if seconds is None else seconds)))

    def clear(self) -> None:
        """Let everything be unlimited."""
        self._rooms.clear()
        self.prices.clear()
        self.quotas.clear()
        self._refusals.clear()
        self._wary.clear()

    def room(self, pool: Pool) -> float:
        """Return how many instances more a pool has room for."""
        for rule in reversed(self._rooms):
            if rule.choice.takes(pool):
                return math.inf if rule.room is None else rule.room - (self._used[pool] - rule.before[pool])
        return math.inf

    def choose(self, group: Group, offers: Sequence[Offer]) -> Offer:
        """Choose the offer that a group buys next, by its allocation strategy.

        Parameters
        ----------
        group : Group
            Who buys.
        offers : sequence of Offer
            All of one market, in the group's order, and of the zone to try first before others.

        Raises
        ------
        ServiceError
            No pool has room, or the quota is used up, or the chosen pool refuses: in AWS's words.
        """
        open_ = [one for one in offers if self.room(one.pool) > 0]
        if not open_:
            raise self._insufficient(group, offers[0].pool, refused=False)
        # A pool that has refused is tried again before nothing is bought at all.
        open_ = [one for one in open_ if not self._is_wary(group, one.pool)] or open_
        affordable = [one for one in open_ if self._within_quota(one.pool)]
        if not affordable:
            raise self._over_quota(group, open_[0].pool)
        zone = affordable[0].pool.zone
        here = [one for one in affordable if one.pool.zone == zone]
        best = self._best(group, here)
        if self._refuses(best.pool):
            self._wary[group.name, best.pool] = self._now() + _WARY_SECONDS
            raise self._insufficient(group, best.pool, refused=True)
        return best

    def _best(self, group: Group, offers: list[Offer]) -> Offer:
        spot = offers[0].pool.market == "spot"
        strategy = _strategy(group, spot)
        order = {id(one): position for position, one in enumerate(offers)}
        if strategy == "lowest-price" and spot:
            return self._cheapest_in_turn(group, offers)
        price = self.prices.of
        ranks: Mapping[str, Callable[[Offer], tuple[Any, ...]]] = {
            "price-capacity-optimized": lambda one: (-self.room(one.pool), price(one.pool), self._lot(one.pool)),
            "capacity-optimized": lambda one: (-self.room(one.pool), price(one.pool), self._lot(one.pool)),
            "capacity-optimized-prioritized": lambda one: (-self.room(one.pool), order[id(one)]),
            "lowest-price": lambda one: (price(one.pool), self._lot(one.pool)),
            "prioritized": lambda one: (order[id(one)],),
        }
        return min(offers, key=ranks[strategy])

    def _cheapest_in_turn(self, group: Group, offers: list[Offer]) -> Offer:
        """Spread over as many of the cheapest pools as the policy says."""
        distribution = (group.mixed or {}).get("InstancesDistribution") or {}
        most = int(distribution.get("SpotInstancePools") or _SPOT_POOLS)
        cheapest = sorted(offers, key=lambda one: (self.prices.of(one.pool), self._lot(one.pool)))[:most]
        have = Counter(pool_of(member.machine) for member in group.staying())
        return min(cheapest, key=lambda one: have[one.pool])

    def _lot(self, pool: Pool) -> float:
        return random.Random(f"{self._seed}/{pool.type}/{pool.zone}/{pool.market}").random()

    def _is_wary(self, group: Group, pool: Pool) -> bool:
        return self._now() < self._wary.get((group.name, pool), 0.0)

    def _refuses(self, pool: Pool) -> bool:
        now = self._now()
        self._refusals = [one for one in self._refusals if one.until > now and one.times != 0]
        for refusal in self._refusals:
            if refusal.choice.takes(pool):
                refusal.times = None if refusal.times is None else refusal.times - 1
                return True
        return False

    def _within_quota(self, pool: Pool) -> bool:
        return pool.quota is None or self.quotas.allows(pool.quota, pool.vcpus)

    def _over_quota(self, group: Group, pool: Pool) -> ServiceError:
        if pool.market == "spot":
            return _refusal(group, pool, "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        limit = self.quotas.limit(pool.quota) if pool.quota is not None else 0
        return _refusal(
            group,
            pool,
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit:g} allows "
            "for the instance bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )

    def _insufficient(self, group: Group, pool: Pool, refused: bool) -> ServiceError:
        if pool.market == "spot" and not refused:
            return _refusal(
                group,
                pool,
                "UnfulfillableCapacity",
                "Unable to fulfill capacity due to your request configuration. Please adjust your request and try "
                "again.",
            )
        # AWS names the other zones whether or not they have any.
        others = ", ".join(zone for zone in self._zones() if zone != pool.zone)
        return _refusal(
            group,
            pool,
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {pool.type} capacity in the Availability Zone you requested "
            f"({pool.zone}). Our system will be working on provisioning additional capacity. You can currently get "
            f"{pool.type} capacity by not specifying an Availability Zone in your request or choosing {others}.",
        )


def pool_of(machine: Machine) -> Pool:
    """Return the pool that an instance is from."""
    return Pool(machine.instance_type, machine.zone, "spot" if machine.lifecycle == "spot" else "on-demand")


def offers(group: Group, zones: Iterable[str], type_of: Callable[[dict[str, Any]], str]) -> list[Offer]:
    """List what a group may buy next, in the order of the zones to try and of its overrides.

    Parameters
    ----------
    group : Group
        Who buys.
    zones : iterable of str
        The one to try first first.
    type_of : callable
        Returns the instance type of a launch template.
    """
    if group.mixed is None:
        ways: list[tuple[dict[str, Any], str | None]] = [(group.template or {}, None)]
        spot = False
    else:
        specification = group.mixed["LaunchTemplate"]
        template = specification["LaunchTemplateSpecification"]
        ways = [
            (one.get("LaunchTemplateSpecification") or template, one.get("InstanceType"))
            for one in specification.get("Overrides") or [{}]
        ]
        spot = _is_spot(group, group.mixed.get("InstancesDistribution") or {})
    market: Kind = "spot" if spot else "on-demand"
    typed = [(template, override, override or type_of(template)) for template, override in ways]
    return [Offer(template, override, Pool(kind, zone, market)) for zone in zones for template, override, kind in typed]


def _is_spot(group: Group, distribution: dict[str, Any]) -> bool:
    base = int(distribution.get("OnDemandBaseCapacity") or 0)
    share = distribution.get("OnDemandPercentageAboveBaseCapacity")
    percentage = 100 if share is None else int(share)
    staying = group.staying()
    on_demand = sum(member.machine.lifecycle == "on-demand" for member in staying)
    above = max(len(staying) + 1 - base, 0)
    # AWS rounds up in favour of On-Demand.
    wanted = min(base, len(staying) + 1) + -(-above * percentage // 100)
    return on_demand >= wanted


def _strategy(group: Group, spot: bool) -> str:
    distribution = (group.mixed or {}).get("InstancesDistribution") or {}
    if spot:
        return str(distribution.get("SpotAllocationStrategy") or "lowest-price")
    return str(distribution.get("OnDemandAllocationStrategy") or "prioritized")


def _refusal(group: Group, pool: Pool, code: str, message: str) -> ServiceError:
    """Write an error as scaling activities do: groups of several types name the market and the code first."""
    if group.mixed is None:
        return ServiceError(code, message)
    market = "Spot" if pool.market == "spot" else "On-Demand"
    return ServiceError(code, f"Could not launch {market} Instances. {code} - {message}")
