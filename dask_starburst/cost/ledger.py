"""The books of one cluster: which instance ran for how long, and what AWS asks for that."""

from __future__ import annotations

import calendar
import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from dask_starburst.catalog import EBS_GP3_GB_MONTH, PUBLIC_IPV4_HOUR, Price, PriceTable, price_table
from dask_starburst.events import Event

Market = Literal["spot", "on-demand"]

MINIMUM_SECONDS = 60.0
"""EC2 bills Linux by the second and at least a minute an instance; so do EBS volumes and IPv4 addresses."""

HOURS_A_MONTH = 730.0
"""What AWS's own calculator divides a monthly price by."""


@dataclass(frozen=True, slots=True)
class Usage:
    """One instance and when it ran.

    Attributes
    ----------
    instance_type : str
        Such as ``"c7g.xlarge"``.
    market : {"spot", "on-demand"}
        How it was bought.
    started, ended : float
        Seconds on any clock, the same for both; ``ended`` is None while it runs.
    """

    instance_type: str
    market: Market
    started: float
    ended: float | None = None

    def billed_seconds(self, now: float) -> float:
        """Seconds that AWS bills up to `now`: those that it ran, one minute at the least."""
        return max(MINIMUM_SECONDS, (now if self.ended is None else self.ended) - self.started)


@dataclass(frozen=True, slots=True)
class Stopped:
    """Stopped instances of a warm pool: nothing is paid for but their volumes, from `started` on.

    The instances come and go one by one; all volumes count from the start, so that this is never too little.
    """

    count: int
    started: float
    ended: float | None = None

    def hours(self, now: float) -> float:
        """Return the hours of all volumes together."""
        return self.count * max(MINIMUM_SECONDS, (now if self.ended is None else self.ended) - self.started) / 3600


@dataclass(frozen=True, slots=True)
class Cost:
    """What some usage costs, by part, in US dollars without tax and discounts.

    Attributes
    ----------
    instances, public_ipv4, storage : float
        The EC2 instances, their public addresses, their gp3 volumes, also those of stopped instances.
    instance_hours : float
        Billed hours of all instances together.
    saved : float
        By how much the instances that were bought on Spot were cheaper than on demand.
    prices : tuple of Price
        The instance prices that it was reckoned with, each with its source and date.
    region : str
        The region whose prices they are.
    simulated : bool
        True if the instances were those of the embedded AWS, so that nobody pays.
    """

    instances: float = 0.0
    public_ipv4: float = 0.0
    storage: float = 0.0
    instance_hours: float = 0.0
    saved: float = 0.0
    prices: tuple[Price, ...] = ()
    region: str = "us-east-1"
    simulated: bool = False
    on_demand_date: str = ""
    spot_date: str = ""

    @property
    def usd(self) -> float:
        """All parts together."""
        return self.instances + self.public_ipv4 + self.storage

    def __str__(self) -> str:
        priced = f"bundled {self.region} prices of {self.on_demand_date}"
        caveats = [priced if self.on_demand_date else "nothing was launched"]
        if self.spot_date:
            caveats.append(f"Spot estimated from {_month(self.spot_date)} savings")
        if any("no Spot savings" in price.source for price in self.prices):
            caveats.append("Spot without published savings counted as on demand")
        if self.simulated:
            caveats.append("simulated run")
        return f"${self.usd:.4f} ({'; '.join(caveats)})"


@dataclass
class Ledger:
    """Adds up what instances cost. It is told; it asks nobody, and knows no clock.

    Parameters
    ----------
    table : PriceTable, optional
        The prices; the bundled ones by default.
    volume_gb : float, optional
        Size of the gp3 volume that each instance has, in GB.
    simulated : bool, optional
        Whether the instances are those of the embedded AWS.
    """

    table: PriceTable = field(default_factory=price_table)
    volume_gb: float = 30.0
    simulated: bool = False
    usages: dict[str, Usage] = field(default_factory=dict)
    stopped: Stopped | None = None

    def instance_started(self, instance_id: str, instance_type: str, market: Market, at: float) -> None:
        """Open the account of one instance.

        A second word about the same instance changes nothing, so that a repeated event costs nothing.

        Parameters
        ----------
        instance_id : str
        instance_type : str
        market : {"spot", "on-demand"}
        at : float
            When AWS began to bill, in seconds.

        Raises
        ------
        PriceUnknown
            If the type has no price: said at the start, not when somebody asks for the sum.
        """
        if instance_id not in self.usages:
            self._price(instance_type, market)
            self.usages[instance_id] = Usage(instance_type, market, at)

    def instance_ended(self, instance_id: str, at: float) -> None:
        """Close the account of one instance.

        An instance that never started here belongs to another cluster and is passed over; one that has ended
        keeps its first end.

        Parameters
        ----------
        instance_id : str
        at : float
            When it was terminated, in seconds.
        """
        usage = self.usages.get(instance_id)
        if usage is not None and usage.ended is None:
            self.usages[instance_id] = dataclasses.replace(usage, ended=at)

    def close(self, at: float) -> None:
        """Close every account that is still open, as when a whole pool is emptied.

        Parameters
        ----------
        at : float
            When the last instance was terminated, in seconds.
        """
        for instance_id in self.usages:
            self.instance_ended(instance_id, at)
        if self.stopped is not None and self.stopped.ended is None:
            self.stopped = dataclasses.replace(self.stopped, ended=at)

    def note(self, event: Event) -> None:
        """Book an event, if it is about an instance that comes or goes.

        Parameters
        ----------
        event : Event
            Any event of a cluster.
        """
        if event.kind == "instance-launched":
            self.instance_started(event.subject, event.facts["type"], event.facts["market"], event.time)
        elif event.kind == "instance-terminated":
            self.instance_ended(event.subject, event.time)
        elif event.kind == "stopped-wished":
            self.stopped = Stopped(event.facts["count"], event.time)

    def total(self, now: float) -> Cost:
        """Give what everything has cost up to `now`.

        Parameters
        ----------
        now : float
            Seconds on the clock of the other calls.

        Returns
        -------
        Cost
        """
        prices = [self._price(usage.instance_type, usage.market) for usage in self.usages.values()]
        hours = [usage.billed_seconds(now) / 3600 for usage in self.usages.values()]
        volumes = sum(hours) + (self.stopped.hours(now) if self.stopped is not None else 0.0)
        spot = any(usage.market == "spot" for usage in self.usages.values())
        return Cost(
            instances=sum(price.usd_per_hour * each for price, each in zip(prices, hours, strict=True)),
            public_ipv4=PUBLIC_IPV4_HOUR * sum(hours),
            storage=EBS_GP3_GB_MONTH / HOURS_A_MONTH * self.volume_gb * volumes,
            instance_hours=sum(hours),
            saved=sum(self._saving(usage) * each for usage, each in zip(self.usages.values(), hours, strict=True)),
            prices=tuple(dict.fromkeys(prices)),
            region=self.table.region,
            simulated=self.simulated,
            on_demand_date=self.table.on_demand_date,
            spot_date=self.table.spot_date if spot else "",
        )

    def _saving(self, usage: Usage) -> float:
        on_demand = self.table.on_demand(usage.instance_type).usd_per_hour
        return on_demand - self._price(usage.instance_type, usage.market).usd_per_hour

    def _price(self, instance_type: str, market: Market) -> Price:
        ask = self.table.spot_estimate if market == "spot" else self.table.on_demand
        return ask(instance_type)


def _month(date: str) -> str:
    """``"2025-06"`` as people write it: ``"June 2025"``."""
    year, month = date.split("-")[:2]
    return f"{calendar.month_name[int(month)]} {year}"
