"""EC2 capacity: room in capacity pools, vCPU quotas, and which pool a group launches from.

Pools are unlimited and quotas practically so, until a fault changes them.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask_starburst.catalog.markets import Market
from dask_starburst.local.backend.quotas import Quotas
from dask_starburst.local.backend.state import Ec2Instance, Group
from dask_starburst.local.http.protocols import ServiceError
from dask_starburst.local.services.ec2.capacity_pools import Choice, Pool
from dask_starburst.local.services.ec2.spot_prices import SpotPrices

_SPOT_POOLS = 2  # default of SpotInstancePools, for lowest-price only
# How long a group avoids a pool that has refused it. Unverified: real groups do so for minutes.
_AVOIDED_SECONDS = 300.0
# Refusals that no other pool helps against ("Error codes for the Amazon EC2 API").
_OF_THE_ACCOUNT = {
    "addresses": (
        "InsufficientFreeAddressesInSubnet",
        "There are not enough free addresses in subnet '{subnet}' to satisfy the requested number of instances.",
    ),
    "verification": (
        "PendingVerification",
        "Your request for accessing resources in this region is being validated, and you will not be able to launch "
        "additional resources in this region until the validation is complete. We will notify you by email once your "
        "request has been validated. While normally resolved within minutes, please allow up to 4 hours for this "
        "process to complete.",
    ),
}


@dataclass
class _Room:
    choice: Choice
    room: int | None
    before: Counter[Pool]  # usage when the room was set


@dataclass
class _Refusal:
    choice: Choice
    times: int | None
    until: float
    why: str


@dataclass(frozen=True)
class Offer:
    """One way for a group to launch: an override of its policy in a capacity pool."""

    template: dict[str, Any]
    override: str | None
    pool: Pool


class Ec2Capacity:
    """Room, quotas and refusals of all capacity pools.

    Parameters
    ----------
    now : callable
        The virtual time.
    zones : callable
        Returns the zones of the region, for AWS's error message.
    seed : int
        Breaks ties between equal pools.
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
        self._rooms: list[_Room] = []  # the latest matching one counts
        self._refusals: list[_Refusal] = []
        self._avoided: dict[tuple[str, Pool], float] = {}  # until when a group avoids a pool

    def take(self, ec2_instance: Ec2Instance) -> None:
        """Count a launched instance."""
        self._used[pool_of(ec2_instance)] += 1

    def give_back(self, ec2_instance: Ec2Instance) -> None:
        """Stop counting an instance that shuts down."""
        self._used[pool_of(ec2_instance)] -= 1

    def set_room(self, choice: Choice, room: int | None) -> None:
        """Set the room of matching pools, in instances from now on; None is unlimited."""
        self._rooms = [one for one in self._rooms if one.choice != choice]
        self._rooms.append(_Room(choice, room, self._used.copy()))

    def refuse(self, choice: Choice, times: int | None, seconds: float | None, why: str = "capacity") -> None:
        """Make matching pools look available and refuse launches, `times` times or for `seconds`."""
        until = self._now() + (math.inf if seconds is None else seconds)
        self._refusals.append(_Refusal(choice, times, until, why))

    def clear(self) -> None:
        """Restore the defaults: unlimited."""
        self._rooms.clear()
        self.prices.clear()
        self.quotas.clear()
        self._refusals.clear()
        self._avoided.clear()

    def room(self, pool: Pool) -> float:
        """Return the number of instances that a pool has room for."""
        for rule in reversed(self._rooms):
            if rule.choice.matches(pool):
                return math.inf if rule.room is None else rule.room - (self._used[pool] - rule.before[pool])
        return math.inf

    def choose(self, group: Group, offers: Sequence[Offer]) -> Offer:
        """Choose the offer for a group's next launch, by its allocation strategy.

        Parameters
        ----------
        group : Group
            The group that launches.
        offers : sequence of Offer
            Offers of one market in the group's order, those of the preferred zone first.

        Raises
        ------
        ServiceError
            No pool has room, the quota is used up, or the chosen pool refuses. The message is AWS's.
        """
        open_ = [one for one in offers if self.room(one.pool) > 0]
        if not open_:
            raise self._insufficient(group, offers[0].pool, refused=False)
        # If every pool is avoided, try them again.
        open_ = [one for one in open_ if not self._is_avoided(group, one.pool)] or open_
        affordable = [one for one in open_ if self._within_quota(one.pool)]
        if not affordable:
            raise self._over_quota(group, open_[0].pool)
        zone = affordable[0].pool.zone
        here = [one for one in affordable if one.pool.zone == zone]
        best = self._best(group, here)
        why = self._refuses(best.pool)
        if why == "capacity":
            self._avoided[group.name, best.pool] = self._now() + _AVOIDED_SECONDS
            raise self._insufficient(group, best.pool, refused=True)
        if why is not None:
            code, message = _OF_THE_ACCOUNT[why]
            raise _refusal(group, best.pool, code, message.format(subnet=", ".join(group.subnets)))
        return best

    def _best(self, group: Group, offers: list[Offer]) -> Offer:
        spot = offers[0].pool.market is Market.SPOT
        strategy = _strategy(group, spot)
        order = {id(one): position for position, one in enumerate(offers)}
        if strategy == "lowest-price" and spot:
            return self._cheapest_in_turn(group, offers)
        price = self.prices.of
        ranks: Mapping[str, Callable[[Offer], tuple[Any, ...]]] = {
            "price-capacity-optimized": lambda one: (-self.room(one.pool), price(one.pool), self._tie_break(one.pool)),
            "capacity-optimized": lambda one: (-self.room(one.pool), price(one.pool), self._tie_break(one.pool)),
            "capacity-optimized-prioritized": lambda one: (-self.room(one.pool), order[id(one)]),
            "lowest-price": lambda one: (price(one.pool), self._tie_break(one.pool)),
            "prioritized": lambda one: (order[id(one)],),
        }
        return min(offers, key=ranks[strategy])

    def _cheapest_in_turn(self, group: Group, offers: list[Offer]) -> Offer:
        """Spread over the cheapest pools, as many as SpotInstancePools."""
        distribution = (group.mixed or {}).get("InstancesDistribution") or {}
        most = int(distribution.get("SpotInstancePools") or _SPOT_POOLS)
        cheapest = sorted(offers, key=lambda one: (self.prices.of(one.pool), self._tie_break(one.pool)))[:most]
        have = Counter(pool_of(member.ec2_instance) for member in group.staying())
        return min(cheapest, key=lambda one: have[one.pool])

    def _tie_break(self, pool: Pool) -> float:
        return random.Random(f"{self._seed}/{pool.type}/{pool.zone}/{pool.market}").random()

    def _is_avoided(self, group: Group, pool: Pool) -> bool:
        return self._now() < self._avoided.get((group.name, pool), 0.0)

    def _refuses(self, pool: Pool) -> str | None:
        now = self._now()
        self._refusals = [one for one in self._refusals if one.until > now and one.times != 0]
        for refusal in self._refusals:
            if refusal.choice.matches(pool):
                refusal.times = None if refusal.times is None else refusal.times - 1
                return refusal.why
        return None

    def _within_quota(self, pool: Pool) -> bool:
        return pool.quota is None or self.quotas.allows(pool.quota, pool.vcpus)

    def _over_quota(self, group: Group, pool: Pool) -> ServiceError:
        if pool.market is Market.SPOT:
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
        if pool.market is Market.SPOT and not refused:
            return _refusal(
                group,
                pool,
                "UnfulfillableCapacity",
                "Unable to fulfill capacity due to your request configuration. Please adjust your request and try "
                "again.",
            )
        # AWS names all other zones, whether or not they have capacity.
        others = ", ".join(zone for zone in self._zones() if zone != pool.zone)
        return _refusal(
            group,
            pool,
            "InsufficientInstanceCapacity",
            f"We currently do not have sufficient {pool.type} capacity in the Availability Zone you requested "
            f"({pool.zone}). Our system will be working on provisioning additional capacity. You can currently get "
            f"{pool.type} capacity by not specifying an Availability Zone in your request or choosing {others}.",
        )


def pool_of(ec2_instance: Ec2Instance) -> Pool:
    """Return the capacity pool of an instance."""
    return Pool(ec2_instance.instance_type, ec2_instance.zone, Market(ec2_instance.lifecycle))


def offers(group: Group, zones: Iterable[str], type_of: Callable[[dict[str, Any]], str]) -> list[Offer]:
    """List a group's launch options, ordered by zone and then by override.

    Parameters
    ----------
    group : Group
        The group that launches.
    zones : iterable of str
        The zones, in order of preference.
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
    market = Market.SPOT if spot else Market.ON_DEMAND
    typed = [(template, override, override or type_of(template)) for template, override in ways]
    return [Offer(template, override, Pool(kind, zone, market)) for zone in zones for template, override, kind in typed]


def _is_spot(group: Group, distribution: dict[str, Any]) -> bool:
    base = int(distribution.get("OnDemandBaseCapacity") or 0)
    share = distribution.get("OnDemandPercentageAboveBaseCapacity")
    percentage = 100 if share is None else int(share)
    staying = group.staying()
    on_demand = sum(member.ec2_instance.lifecycle == "on-demand" for member in staying)
    above = max(len(staying) + 1 - base, 0)
    # AWS rounds up in favour of On-Demand.
    requested = min(base, len(staying) + 1) + -(-above * percentage // 100)
    return on_demand >= requested


def _strategy(group: Group, spot: bool) -> str:
    distribution = (group.mixed or {}).get("InstancesDistribution") or {}
    if spot:
        return str(distribution.get("SpotAllocationStrategy") or "lowest-price")
    return str(distribution.get("OnDemandAllocationStrategy") or "prioritized")


def _refusal(group: Group, pool: Pool, code: str, message: str) -> ServiceError:
    """Format an error as in scaling activities: with a mixed instances policy, market and code come first."""
    if group.mixed is None:
        return ServiceError(code, message)
    market = "Spot" if pool.market is Market.SPOT else "On-Demand"
    return ServiceError(code, f"Could not launch {market} Instances. {code} - {message}")
