"""Cost caps: the hourly cost of a pool, and which workers have to wait for the budget."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dask_starburst.catalog.markets import Market
from dask_starburst.errors import BudgetExceeded
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.state import KEEPS_TASK, Limits, Name, Observed, SetDesired, Worker, WorkerState, order
from dask_starburst.plan.loop.worker import next_placement

S = WorkerState

#: Seconds between two checks of the cost so far: a total cap is exceeded by at most this time.
INTERVAL = 10.0
#: Seconds without a message from the client after which the scheduler enforces the total cap itself.
CLIENT_TIMEOUT = 3 * INTERVAL
#: EC2 bills each instance for at least one minute (https://aws.amazon.com/ec2/pricing/on-demand, "per second").
MINIMUM_SECONDS = 60.0
#: The share of the total cap at which the user is warned.
WARN_AT = 0.8
#: Under a cap, types that cost more than this multiple of the first one are excluded: a requested worker counts at the
#: price of the most expensive type that AWS may choose, so a wide choice would leave much of the cap unused.
_MAX_PRICE_RATIO = 1.25
#: Tolerance for sums of a few hundred prices, which depend on the order of addition in the last digits.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Caps:
    """Cost caps of a cluster: USD an hour, USD in total, and the USD an hour of the alert. None: no cap."""

    hourly: float | None = None
    total: float | None = None
    alert: float | None = None

    def __bool__(self) -> bool:
        return self.binding or self.alert is not None

    @property
    def binding(self) -> bool:
        """Whether it may prevent a launch; an alert threshold does not."""
        return self.hourly is not None or self.total is not None


@dataclass(frozen=True, slots=True)
class Rates:
    """USD an hour of one running instance by type and market, including its address and volume."""

    usd: Mapping[tuple[str, Market], float] = field(default_factory=dict)

    def of(self, kind: str, market: Market) -> float:
        """Return the USD an hour of a type in a market; the highest known rate if the type is unknown."""
        known = self.usd.get((kind, market))
        return known if known is not None else max(self.usd.values(), default=0.0)

    def ceiling(self, types: Iterable[str], market: Market) -> float:
        """Return the highest USD an hour of one instance of these types."""
        return max((self.of(kind, market) for kind in types), default=0.0)


def near_in_price(types: Sequence[str], rates: Rates, market: Market) -> tuple[str, ...]:
    """Return the types that cost at most slightly more than the first one."""
    most = _MAX_PRICE_RATIO * rates.of(types[0], market)
    return tuple(kind for kind in types if rates.of(kind, market) <= most)


def check_launch(caps: Caps, head: float, groups: Sequence[tuple[float, int | None]], spares: int = 0) -> None:
    """Reject a launch that exceeds a cap.

    Parameters
    ----------
    caps : Caps
        Cost caps.
    head : float
        USD an hour of the scheduler's instance.
    groups : sequence of (float, int or None)
        For each worker group the maximum USD an hour of one worker, and its number of workers; None for an adaptive
        group. A cluster must be able to launch at least one worker.
    spares : int
        Number of empty instances of the first group that are kept ready.

    Raises
    ------
    BudgetExceeded
        The message says what fits.
    """
    counts = [count or 0 for _, count in groups]
    adaptive = [position for position, (_, count) in enumerate(groups) if count is None]
    if adaptive and not any(counts):
        counts[min(adaptive, key=lambda position: groups[position][0])] = 1
    first = groups[0][0]
    usd = head + spares * first + sum(count * worker for count, (worker, _) in zip(counts, groups, strict=True))
    launched = f"{_workers(sum(counts), spares)} and the scheduler"
    if caps.hourly is not None and usd > caps.hourly + _ROUNDING:
        fits = math.floor((caps.hourly - head) / first + _ROUNDING) - spares if first and len(groups) == 1 else 0
        hint = f"set n_workers={fits}, or" if fits > 0 else "set"
        raise BudgetExceeded(
            f"{launched} cost up to ${usd:.4f} an hour, which is above"
            f" max_hourly_cost={caps.hourly:g}: {hint} max_hourly_cost={_up(usd):g} or more, or cheaper instance_types."
            " Nothing was launched."
        )
    if caps.total is not None and _minute(usd) > caps.total:
        raise BudgetExceeded(
            f"AWS bills at least a minute of every instance, ${_minute(usd):.4f} for {launched}, which is above"
            f" max_total_cost={caps.total:g}: raise it, or launch less. Nothing was launched."
        )


def _workers(count: int, spares: int) -> str:
    spare = f" and {spares} spare instance{'' if spares == 1 else 's'}" if spares else ""
    return f"{count} worker{'' if count == 1 else 's'}{spare}"


def _up(usd: float) -> float:
    return math.ceil(usd * 100) / 100


def extrapolated(spent: float, rate: float, silent_for: float) -> float:
    """Return the maximum USD spent by now, if the client reported `spent` `silent_for` seconds ago; 0 if recent.

    Without the client no capacity is requested, so the rate cannot rise.
    """
    return spent + rate * silent_for / 3600 if silent_for > CLIENT_TIMEOUT else 0.0


def hourly(observed: Observed, rates: Rates, now: float, limits: Limits) -> float:
    """Return the maximum USD an hour of a pool in its current state.

    Existing instances count at their own price; requested ones that do not exist yet at the price of the
    most expensive type that AWS may choose.
    """
    existing = sum(rates.of(i.type, i.placement.market) for i in observed.instances.values() if not i.terminating)
    present = _present(observed)
    pending = ((place, desired - present[place]) for place, desired in _desired(observed, now, limits).items())
    return existing + sum(max(0, count) * _max_rate(observed, rates, place) for place, count in pending)


def over_budget(
    workers: Collection[Worker],
    observed: Observed,
    now: float,
    limits: Limits,
    rates: Rates,
    caps: Caps,
    spent: float,
) -> frozenset[Name]:
    """Return the names of the workers that have to wait, because their instance would exceed a cap.

    The longest waiting worker comes first. The scheduler never waits. If the pool still exceeds the hourly cap,
    because the Spot price has risen or AWS has replaced an instance by a more expensive type, the result includes
    running workers: they transfer their data and are retired.

    Parameters
    ----------
    workers : collection of Worker
        Every requested process, before it is tracked.
    observed : Observed
        State of AWS, and the requests in flight.
    now : float
        Seconds, AWS's clock.
    limits : Limits
        Includes the placements, and the spares, which take precedence over workers.
    rates : Rates
        Rates of instances.
    caps : Caps
        Cost caps.
    spent : float
        USD spent so far.
    """
    rate = hourly(observed, rates, now, limits)
    free = _free(workers, observed, now, limits)
    owed = sum(max(0, -count) * _max_rate(observed, rates, place) for place, count in free.items())
    room = math.inf if caps.hourly is None else caps.hourly - rate - owed
    if room < -_ROUNDING:
        return _surplus(workers, observed, rates, caps.hourly or 0.0)
    left = math.inf if caps.total is None else caps.total - spent - rate * INTERVAL / 3600 - _minute(owed)
    wait = []
    waiting = (w for w in workers if w.state is S.REQUESTED and w.requested and not w.is_scheduler)
    for worker in sorted(waiting, key=lambda w: (w.since, order(w.name))):
        place = next_placement(worker, observed, limits)
        price = _max_rate(observed, rates, place)
        if free.get(place, 0) > 0:
            free[place] -= 1
        elif price <= room + _ROUNDING and _minute(price) <= left:
            room, left = room - price, left - _minute(price)
        else:
            wait.append(worker.name)
    return frozenset(wait)


def _surplus(workers: Collection[Worker], observed: Observed, rates: Rates, cap: float) -> frozenset[Name]:
    """Return the workers over the cap: all without an instance, then the most expensive, the newest first."""
    here = [i for i in observed.instances.values() if not i.terminating]
    prices = {i.arn: rates.of(i.type, i.placement.market) for i in here if i.arn}
    head = sum(rates.of(i.type, i.placement.market) for i in here if i.placement.is_head)
    regular = [w for w in workers if not w.is_scheduler]
    active = [w for w in regular if w.state in (S.PLACED, S.STARTED, S.READY) and w.requested]
    over = head + sum(prices.get(w.instance or "", 0.0) for w in active) - cap
    going = {w.name for w in regular if w.state in (S.REQUESTED, S.CAPACITY)}
    for worker in sorted(active, key=lambda w: (-prices.get(w.instance or "", 0.0), -w.since, order(w.name))):
        if over > _ROUNDING and worker.state is S.READY:
            over -= prices.get(worker.instance or "", 0.0)
            going.add(worker.name)
    return frozenset(going)


def _free(workers: Collection[Worker], observed: Observed, now: float, limits: Limits) -> dict[Placement, int]:
    """Count, by placement, the paid instances that are neither assigned to a worker nor needed as a spare.

    Includes requested instances that do not exist yet. A negative number is the number still to be requested.
    """
    occupied = observed.occupied | {w.instance for w in workers if w.state in KEEPS_TASK}
    usable = Counter(
        i.placement
        for i in observed.instances.values()
        if not i.terminating and not i.cordoned and (i.arn is None or i.arn not in occupied)
    )
    waiting = Counter(w.placement for w in workers if w.requested and _awaits_instance(w))
    present, desired = _present(observed), _desired(observed, now, limits)
    coming = {place: max(0, count - present[place]) for place, count in desired.items()}
    return {place: usable[place] + coming[place] - waiting[place] - limits.spare.get(place, 0) for place in desired}


def _awaits_instance(worker: Worker) -> bool:
    """Whether a worker has no instance but may have one: it is within budget already, or is the scheduler."""
    if worker.awaits_place:
        return False
    return worker.state is S.CAPACITY or (worker.is_scheduler and worker.state is S.REQUESTED)


def _present(observed: Observed) -> Counter[Placement]:
    return Counter(i.placement for i in observed.instances.values() if not i.terminating)


def _desired(observed: Observed, now: float, limits: Limits) -> dict[Placement, int]:
    """Return the desired capacity of each placement, including requests in flight."""
    desired = {place: group.desired for place, group in observed.groups.items()}
    for action, at in observed.in_flight.items():
        if isinstance(action, SetDesired) and action.placement in desired and now - at < limits.repeat:
            desired[action.placement] = max(desired[action.placement], action.desired)
    return desired


def _max_rate(observed: Observed, rates: Rates, placement: Placement) -> float:
    seen = observed.groups.get(placement)
    return rates.ceiling(seen.allowed or seen.types, placement.market) if seen is not None else 0.0


def _minute(usd_per_hour: float) -> float:
    return usd_per_hour * MINIMUM_SECONDS / 3600
