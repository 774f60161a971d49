"""Money as a limit: what a pool costs an hour, and which wishes have to wait for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from dask_starburst.errors import BudgetExceeded
from dask_starburst.plan.loop.state import HEAD, KEEPS_TASK, Limits, Name, Observed, SetDesired, Worker, WorkerState
from dask_starburst.plan.loop.worker import next_group

S = WorkerState

#: Seconds between two cost checks, the most by which a total cap is exceeded.
INTERVAL = 10.0
#: Seconds without a word from the client after which the scheduler looks after the total cap by itself.
CLIENT_TIMEOUT = 3 * INTERVAL
#: EC2 bills a minute of every instance at the least (https://aws.amazon.com/ec2/pricing/on-demand, "per second").
MINIMUM_SECONDS = 60.0
#: The share of the total cap at which the user is warned.
WARN_AT = 0.8
#: Under a cap no type is taken that costs so many times as much as the first one: a worker that is ordered
#: counts at the price of the dearest type that AWS may choose, so a wide choice would leave much of the cap unused.
_DEAREST = 1.25
#: Sums of a few hundred prices differ in the last digits by the order in which they are added.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Caps:
    """The most that a cluster may cost: USD an hour, USD in all, and the USD an hour to be warned of. None: no cap."""

    hourly: float | None = None
    total: float | None = None
    alert: float | None = None

    def __bool__(self) -> bool:
        return self.binding or self.alert is not None

    @property
    def binding(self) -> bool:
        """Whether it may keep something from being launched; a threshold to be warned of does not."""
        return self.hourly is not None or self.total is not None


@dataclass(frozen=True, slots=True)
class Rates:
    """USD an hour of one running instance by type and market, its address and its volume included."""

    usd: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def of(self, kind: str, group: str) -> float:
        """Return what an instance of this type in this group costs; the dearest known when AWS took another type."""
        known = self.usd.get((kind, market_of(group)))
        return known if known is not None else max(self.usd.values(), default=0.0)

    def ceiling(self, types: Iterable[str], group: str) -> float:
        """Return the most that one instance of a group may cost."""
        return max((self.of(kind, group) for kind in types), default=0.0)


def near_in_price(types: Sequence[str], rates: Rates, group: str) -> tuple[str, ...]:
    """Return the types of a group that do not cost much more than the first one."""
    most = _DEAREST * rates.of(types[0], group)
    return tuple(kind for kind in types if rates.of(kind, group) <= most)


def check_launch(caps: Caps, head: float, worker: float, requested: int | None, spares: int = 0) -> None:
    """Refuse a launch that a cap does not allow.

    Parameters
    ----------
    caps : Caps
        What may be spent.
    head, worker : float
        USD an hour of the scheduler's instance and, at the most, of one worker's.
    wanted : int, optional
        Workers; None where the cluster adapts, which has to be able to launch one at least.
    spares : int
        Empty instances that are kept ready.

    Raises
    ------
    BudgetExceeded
        It says what fits.
    """
    least = 1 if requested is None else requested
    usd = head + (least + spares) * worker
    if caps.hourly is not None and usd > caps.hourly + _ROUNDING:
        fits = math.floor((caps.hourly - head) / worker + _ROUNDING) - spares if worker else 0
        way = f"give n_workers={fits}, or" if fits > 0 else "give"
        raise BudgetExceeded(
            f"{_workers(least, spares)} and the scheduler cost up to ${usd:.4f} an hour, which is above"
            f" max_hourly_cost={caps.hourly:g}: {way} max_hourly_cost={_up(usd):g} or more, or cheaper instance_types."
            " Nothing was launched."
        )
    if caps.total is not None and _minute(usd) > caps.total:
        what = f"{_workers(least, spares)} and the scheduler"
        raise BudgetExceeded(
            f"AWS bills a minute of every instance at the least, ${_minute(usd):.4f} for {what}, which is above"
            f" max_total_cost={caps.total:g}: raise it, or launch less. Nothing was launched."
        )


def _workers(count: int, spares: int) -> str:
    spare = f" and {spares} spare instance{'' if spares == 1 else 's'}" if spares else ""
    return f"{count} worker{'' if count == 1 else 's'}{spare}"


def _up(usd: float) -> float:
    return math.ceil(usd * 100) / 100


def extrapolated(spent: float, rate: float, silent_for: float) -> float:
    """Return what was spent by now (USD), when the client said so much so many seconds ago; 0 if that was just now.

    Nobody orders anything without the client, so it is never more.
    """
    return spent + rate * silent_for / 3600 if silent_for > CLIENT_TIMEOUT else 0.0


def market_of(group: str) -> str:
    """Return how the instances of a group are bought: ``"spot"`` or ``"on-demand"``."""
    return "spot" if group == "spot" else "on-demand"


def hourly(observed: Observed, rates: Rates, now: float, limits: Limits) -> float:
    """Return the most that a pool costs an hour as it stands.

    Every instance that is there at its own price; every one that is ordered and not there yet at the price of the
    dearest type that AWS may choose for it.
    """
    there = sum(rates.of(i.type, i.group) for i in observed.instances.values() if not i.terminating)
    present = _present(observed)
    ordered = ((name, desired - present[name]) for name, desired in _desired(observed, now, limits).items())
    return there + sum(max(0, count) * _dearest(observed, rates, name) for name, count in ordered)


def over_budget(
    workers: Collection[Worker],
    observed: Observed,
    now: float,
    limits: Limits,
    rates: Rates,
    caps: Caps,
    spent: float,
) -> frozenset[Name]:
    """Return the names of the workers whose wish has to wait, because their instance would cost too much.

    Who has waited longest is served first. The scheduler never waits. When the pool costs more than the hourly cap
    all the same, for Spot has become dearer or AWS has replaced an instance by one of a dearer type, workers that run
    are among those that wait: they hand over what they hold and go.

    Parameters
    ----------
    workers : collection of Worker
        Every wished process, as it was before it is followed up.
    observed : Observed
        What AWS says, and what was asked already.
    now : float
        Seconds, AWS's clock.
    limits : Limits
        With the ladder of groups, and the spares that come before workers.
    rates : Rates
        What instances cost.
    caps : Caps
        What may be spent.
    spent : float
        USD so far.
    """
    rate = hourly(observed, rates, now, limits)
    free = _free(workers, observed, now, limits)
    owed = sum(max(0, -count) * _dearest(observed, rates, name) for name, count in free.items())
    room = math.inf if caps.hourly is None else caps.hourly - rate - owed
    if room < -_ROUNDING:
        return _surplus(workers, observed, rates, caps.hourly or 0.0)
    left = math.inf if caps.total is None else caps.total - spent - rate * INTERVAL / 3600 - _minute(owed)
    wait = []
    waiting = (w for w in workers if w.state is S.REQUESTED and w.requested and w.group != HEAD)
    for worker in sorted(waiting, key=lambda w: (w.since, w.name)):
        group = next_group(worker, observed, limits)
        price = _dearest(observed, rates, group)
        if free.get(group, 0) > 0:
            free[group] -= 1
        elif price <= room + _ROUNDING and _minute(price) <= left:
            room, left = room - price, left - _minute(price)
        else:
            wait.append(worker.name)
    return frozenset(wait)


def _surplus(workers: Collection[Worker], observed: Observed, rates: Rates, cap: float) -> frozenset[Name]:
    """Return who waits while a pool costs too much: who has no instance yet, then the dearest, the newest first."""
    prices = {i.arn: rates.of(i.type, i.group) for i in observed.instances.values() if i.arn and not i.terminating}
    head = sum(rates.of(i.type, HEAD) for i in observed.instances.values() if i.group == HEAD and not i.terminating)
    mine = [w for w in workers if w.group != HEAD]
    stay = [w for w in mine if w.state in (S.PLACED, S.STARTED, S.READY) and w.requested]
    over = head + sum(prices.get(w.instance or "", 0.0) for w in stay) - cap
    going = {w.name for w in mine if w.state in (S.REQUESTED, S.CAPACITY)}
    for worker in sorted(stay, key=lambda w: (-prices.get(w.instance or "", 0.0), -w.since, w.name)):
        if over > _ROUNDING and worker.state is S.READY:
            over -= prices.get(worker.instance or "", 0.0)
            going.add(worker.name)
    return frozenset(going)


def _free(workers: Collection[Worker], observed: Observed, now: float, limits: Limits) -> dict[str, int]:
    """Count, by group, the instances that are paid for and that nobody has been given, nor is to be a spare.

    Those that are on their way are among them. Negative: so many are still to be ordered.
    """
    occupied = observed.occupied | {w.instance for w in workers if w.state in KEEPS_TASK}
    useful = Counter(
        i.group
        for i in observed.instances.values()
        if not i.terminating and not i.cordoned and (i.arn is None or i.arn not in occupied)
    )
    waiting = Counter(w.group for w in workers if w.requested and _awaits_instance(w))
    present, desired = _present(observed), _desired(observed, now, limits)
    coming = {name: max(0, count - present[name]) for name, count in desired.items()}
    return {name: useful[name] + coming[name] - waiting[name] - limits.spare.get(name, 0) for name in desired}


def _awaits_instance(worker: Worker) -> bool:
    """Whether a worker has no instance, and the right to one: it was let through before, or is the scheduler."""
    return worker.state is S.CAPACITY or (worker.group == HEAD and worker.state is S.REQUESTED)


def _present(observed: Observed) -> Counter[str]:
    return Counter(i.group for i in observed.instances.values() if not i.terminating)


def _desired(observed: Observed, now: float, limits: Limits) -> dict[str, int]:
    """Return what each group is asked for, or was asked for a moment ago."""
    desired = {name: group.desired for name, group in observed.groups.items()}
    for action, at in observed.in_flight.items():
        if isinstance(action, SetDesired) and action.group in desired and now - at < limits.repeat:
            desired[action.group] = max(desired[action.group], action.desired)
    return desired


def _dearest(observed: Observed, rates: Rates, group: str) -> float:
    seen = observed.groups.get(group)
    return rates.ceiling(seen.allowed or seen.types, group) if seen is not None else 0.0


def _minute(usd_per_hour: float) -> float:
    return usd_per_hour * MINIMUM_SECONDS / 3600
