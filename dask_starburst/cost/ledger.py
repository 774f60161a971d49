"""The cost of one cluster: which instance ran for how long, and at which price."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from dask_starburst.catalog import EBS_GP3_GB_MONTH, PUBLIC_IPV4_HOUR, Price
from dask_starburst.catalog.markets import Market
from dask_starburst.cost.bill import Cost
from dask_starburst.cost.instance_cost import InstanceCost
from dask_starburst.cost.price_book import SIMULATED, PriceBook
from dask_starburst.errors import PriceUnknown
from dask_starburst.events.event import Event
from dask_starburst.events.instances import InstanceLaunched, InstanceTerminated, InstanceTimestamps
from dask_starburst.events.spot import SpotInterruption, WorkerLeaving
from dask_starburst.events.workers import WorkerLost, WorkerReady, WorkerStopped
from dask_starburst.plan.groups import DEFAULT, HEAD
from dask_starburst.plan.loop.state import Name
from dask_starburst.plan.money.budget import Caps, Rates
from dask_starburst.plan.money.quote import HOURS_A_MONTH


class Prices(Protocol):
    """A source of hourly prices, such as a :class:`.PriceBook`."""

    @property
    def region(self) -> str:
        """The region of the prices."""

    def on_demand(self, instance_type: str) -> Price:
        """Return the on-demand price of a type."""

    def spot(self, instance_type: str, zone: str = "") -> Price:
        """Return the Spot price of a type in a zone."""


#: Seconds after its end from which an instance is folded into sums. EC2 lists a terminated instance for about an hour,
#: so it cannot be corrected later (docs.aws.amazon.com/AWSEC2/latest/UserGuide/terminating-instances.html).
_FOLD_AFTER = 2 * 3600.0


@dataclass
class _Sums:
    """The cost of several instances together."""

    usd: float = 0.0
    instances: float = 0.0
    hours: float = 0.0
    saved: float = 0.0
    groups: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    markets: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    causes: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    prices: dict[Price, None] = field(default_factory=dict)
    unpriced: set[str] = field(default_factory=set)

    def copy(self) -> _Sums:
        """Return an independent copy."""
        return replace(
            self,
            groups=self.groups.copy(),
            markets=self.markets.copy(),
            causes=self.causes.copy(),
            prices=self.prices.copy(),
            unpriced=self.unpriced.copy(),
        )

    def add(self, instance: InstanceCost, usd: float, saved: float, now: float) -> None:
        """Add one instance with its total cost and its saving."""
        self.usd += usd
        self.instances += instance.usd(now)
        self.hours += instance.hours(now)
        self.saved += saved
        self.groups[instance.group] += usd
        self.markets[instance.market.value] += usd
        for cause, share in instance.shares(now).items():
            self.causes[cause] += usd * share
        for _, price in instance.priced(now):
            if price is None:
                self.unpriced.add(instance.instance_type)
            else:
                self.prices[price] = None


@dataclass
class Ledger:
    """Adds up the cost of instances from events. It makes no calls and reads no clock.

    Parameters
    ----------
    prices : Prices, optional
        By default those of us-east-1.
    volume_gb : float, optional
        Size of the gp3 volume that each instance has, in GB.
    simulated : bool, optional
        Whether the instances are those of the embedded AWS.
    caps : Caps, optional
        The cost limits.
    types : iterable of str, optional
        The types that the cluster may launch.
    """

    prices: Prices = field(default_factory=lambda: PriceBook("us-east-1"))
    volume_gb: float = 30.0
    simulated: bool = False
    caps: Caps = field(default_factory=Caps)
    types: Iterable[str] = ()
    instances: dict[str, InstanceCost] = field(default_factory=dict)
    _runs_on: dict[Name, str] = field(default_factory=dict)
    _left: set[Name] = field(default_factory=set)
    _busy: dict[Name, float] = field(default_factory=dict)
    _past: _Sums = field(default_factory=_Sums)

    def instance_started(
        self, instance_id: str, instance_type: str, market: Market, at: float, group: str = DEFAULT
    ) -> None:
        """Start to count the cost of an instance.

        A repeated event about the same instance has no effect.

        Parameters
        ----------
        instance_id : str
        instance_type : str
        market : {"spot", "on-demand"}
        at : float
            When AWS began to bill, in seconds.
        group : str, optional
            The worker group that it is in.
        """
        if instance_id not in self.instances:
            instance = InstanceCost(instance_type, market, group, at)
            instance.reprice(self._price(instance), at)
            instance.mark("scheduler" if group == HEAD else "boot", at)
            self.instances[instance_id] = instance

    def instance_ended(self, instance_id: str, at: float) -> None:
        """Stop counting the cost of an instance.

        An unknown instance, which belongs to another cluster, is ignored. An instance that has ended keeps its first
        end.

        Parameters
        ----------
        instance_id : str
        at : float
            When it was terminated, in seconds.
        """
        instance = self.instances.get(instance_id)
        if instance is not None and instance.ended is None:
            instance.ended = at

    def correct(self, instance_id: str, started: float, ended: float | None, zone: str, taken: bool = False) -> None:
        """Replace the observed times and zone of an instance by those that EC2 returns.

        Parameters
        ----------
        instance_id : str
        started, ended : float
            Seconds; ``ended`` is None where EC2 says nothing.
        zone : str
            Its Availability Zone, which has its own Spot price.
        taken : bool
            Whether AWS has interrupted it.
        """
        instance = self.instances.get(instance_id)
        if instance is None:
            return
        instance.started, instance.zone, instance.taken = started, zone, taken
        instance.ended = instance.ended if ended is None else ended
        price = self._price(instance)
        if instance.ended is None and len(instance.prices) == 1 and not instance.settled:
            instance.prices = [(started, price)]

    def close(self, at: float) -> None:
        """Stop counting the cost of all instances, when the pool is emptied.

        Parameters
        ----------
        at : float
            When the last instance was terminated, in seconds.
        """
        for instance_id in self.instances:
            self.instance_ended(instance_id, at)

    def reprice(self, at: float) -> None:
        """Apply the current prices from `at` (seconds), or from the time that AWS gives for them.

        Also to instances that have ended since the last time: their price may have changed before their end.
        """
        for instance in self.instances.values():
            instance.reprice(self._price(instance), at)
        self._fold_ended(at)

    def note(self, event: Event) -> None:
        """Record an event about an instance or the worker on it; ignore all others.

        Parameters
        ----------
        event : Event
            Any event of a cluster.
        """
        at = event.time
        match event:
            case InstanceLaunched():
                self.instance_started(event.instance, event.type, Market(event.market), at, event.group)
            case InstanceTimestamps():
                self.correct(event.instance, event.launched, event.ended, event.zone, event.taken)
            case InstanceTerminated():
                self.instance_ended(event.instance, at)
            case WorkerReady() if event.instance in self.instances:
                self._runs_on[event.name] = event.instance
                self._left.discard(event.name)
                self.instances[event.instance].mark("up", at)
            case WorkerStopped() | WorkerLost():
                self._left.add(event.name)
                self._mark(event.instance, "idle", at)
            case SpotInterruption() | WorkerLeaving():
                self._mark(event.instance, "interrupted", at)

    def _mark(self, instance: str, what: Literal["idle", "interrupted"], at: float) -> None:
        if instance in self.instances:
            self.instances[instance].mark(what, at)

    def record_busy(self, seconds: Mapping[Name, float]) -> None:
        """Record the total busy seconds of each worker, by name."""
        for name, busy in seconds.items():
            instance = self.instances.get(self._runs_on.get(name, ""))
            if instance is not None:
                instance.busy += max(0.0, busy - self._busy.get(name, 0.0))
        self._busy = dict(seconds)
        over = self._left - seconds.keys()  # the scheduler no longer reports them
        self._runs_on = {name: instance for name, instance in self._runs_on.items() if name not in over}
        self._left -= over

    def rates(self) -> Rates:
        """Return the current hourly cost of each type, with its address and volume.

        An unknown Spot price is replaced by the on-demand price. A type without either is left out.
        """
        usd: dict[tuple[str, Market], float] = {}
        extra = PUBLIC_IPV4_HOUR + self._volume_hour
        for kind in self.types:
            for market in Market:
                price = self._known(kind, market) or self._known(kind, Market.ON_DEMAND)
                if price is not None:
                    usd[kind, market] = price.usd_per_hour + extra
        return Rates(usd)

    def require_prices(self) -> None:
        """Raise an error if a type has no price, because then no cost cap can be enforced.

        Raises
        ------
        PriceUnknown
            A type that may be launched has no price.
        """
        for kind in self.types:
            try:
                self.prices.on_demand(kind)
            except PriceUnknown as error:
                raise PriceUnknown(
                    f"a cost cap cannot be enforced on a cluster that may launch {kind}: {error}"
                    " Exclude the type with instance_types=[…], or launch without a cap."
                ) from None

    def spent(self, now: float) -> float:
        """Return the total cost up to `now` (seconds), in USD."""
        return self._past.usd + sum(self._all(instance, now) for instance in self.instances.values())

    def total(self, now: float) -> Cost:
        """Return the total cost up to `now` with its parts.

        Parameters
        ----------
        now : float
            Seconds, on the same clock as the other calls.

        Returns
        -------
        Cost
        """
        sums = self._past.copy()
        for instance in self.instances.values():
            sums.add(instance, self._all(instance, now), self._saved(instance, now), now)
        return Cost(
            instances=sums.instances,
            public_ipv4=PUBLIC_IPV4_HOUR * sums.hours,
            storage=self._volume_hour * sums.hours,
            instance_hours=sums.hours,
            saved=sums.saved,
            by_group=dict(sums.groups),
            by_market=dict(sums.markets),
            by_cause=dict(sums.causes),
            prices=tuple(sums.prices),
            unpriced=tuple(sorted(sums.unpriced)),
            region=self.prices.region,
            # A simulated AWS may also be reached as any other endpoint.
            simulated=self.simulated or any(price.source.startswith(SIMULATED) for price in sums.prices),
        )

    def _fold_ended(self, now: float) -> None:
        """Fold ended instances, and old changes of running ones, into sums: a cluster may run for months."""
        for instance in self.instances.values():
            for price in instance.settle(now - _FOLD_AFTER):
                if price is None:
                    self._past.unpriced.add(instance.instance_type)
                else:
                    self._past.prices[price] = None
        past = [
            name for name, each in self.instances.items() if each.ended is not None and now - each.ended > _FOLD_AFTER
        ]
        for name in past:
            instance = self.instances.pop(name)
            self._past.add(instance, self._all(instance, now), self._saved(instance, now), now)
        if past:
            self._runs_on = {worker: name for worker, name in self._runs_on.items() if name in self.instances}
        if len(self._past.prices) > 1:
            # One for each source and kind is enough to name them, instead of every change of a Spot price.
            self._past.prices = dict.fromkeys({(p.source, p.kind): p for p in self._past.prices}.values())

    @property
    def _volume_hour(self) -> float:
        return EBS_GP3_GB_MONTH / HOURS_A_MONTH * self.volume_gb

    def _all(self, instance: InstanceCost, now: float) -> float:
        return instance.usd(now) + instance.hours(now) * (PUBLIC_IPV4_HOUR + self._volume_hour)

    def _saved(self, instance: InstanceCost, now: float) -> float:
        on_demand = self._known(instance.instance_type, Market.ON_DEMAND)
        if instance.market is not Market.SPOT or on_demand is None:
            return 0.0
        return on_demand.usd_per_hour * instance.hours(now) - instance.usd(now)

    def _price(self, instance: InstanceCost) -> Price | None:
        return self._known(instance.instance_type, instance.market, instance.zone)

    def _known(self, kind: str, market: Market, zone: str = "") -> Price | None:
        try:
            return self.prices.spot(kind, zone) if market is Market.SPOT else self.prices.on_demand(kind)
        except PriceUnknown:
            return None
