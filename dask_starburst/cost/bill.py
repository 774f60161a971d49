"""The cost of a cluster, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dask_starburst.catalog import Price, sources


@dataclass(frozen=True, slots=True, repr=False)
class Cost:
    """The cost of some usage in US dollars, without tax and discounts.

    Attributes
    ----------
    instances, public_ipv4, storage : float
        The EC2 instances, their public addresses, their gp3 volumes.
    instance_hours : float
        Billed hours of all instances together.
    saved : float
        Savings of Spot instances against on-demand prices.
    by_group : mapping of str to float
        Total cost by worker group: ``head`` for the scheduler, ``default``, and those of ``worker_groups``.
    by_market : mapping of str to float
        Total cost by purchase option: ``spot`` and ``on-demand``.
    by_cause : mapping of str to float
        Total cost by use of the time: ``scheduler``, ``boot``, ``work``, ``idle``, ``interrupted``.
    prices : tuple of Price
        The instance prices used, each with its source and date.
    unpriced : tuple of str
        Types that ran and have no known price. They are not in the sum.
    region : str
        The region of the prices.
    simulated : bool
        Whether the instances were those of the embedded AWS, which cost nothing.
    """

    instances: float = 0.0
    public_ipv4: float = 0.0
    storage: float = 0.0
    instance_hours: float = 0.0
    saved: float = 0.0
    by_group: Mapping[str, float] = field(default_factory=dict)
    by_market: Mapping[str, float] = field(default_factory=dict)
    by_cause: Mapping[str, float] = field(default_factory=dict)
    prices: tuple[Price, ...] = ()
    unpriced: tuple[str, ...] = ()
    region: str = "us-east-1"
    simulated: bool = False

    @property
    def usd(self) -> float:
        """The total."""
        return self.instances + self.public_ipv4 + self.storage

    @property
    def source(self) -> str:
        """Source and date of the least reliable price."""
        return sources(self.prices)

    def __str__(self) -> str:
        caveats = [self.source or "nothing was launched"]
        if self.unpriced:
            caveats.append(f"without {', '.join(self.unpriced)}, whose price is unknown")
        if self.simulated:
            caveats.append("simulated run")
        return f"{dollars(self.usd)} ({'; '.join(caveats)})"

    def __repr__(self) -> str:
        parts = {"instances": self.instances, "public IPv4": self.public_ipv4, "storage": self.storage}
        parts |= {f"{name} (group)": usd for name, usd in self.by_group.items()}
        parts |= {f"{name} (cause)": usd for name, usd in self.by_cause.items()}
        return "\n".join([str(self), *(f"  {name:<21}{dollars(usd)}" for name, usd in parts.items() if usd)])


def dollars(usd: float) -> str:
    """Format an amount with about three significant digits: ``"$12.34"``, ``"$0.0123"``."""
    return f"${usd:.2f}" if usd >= 1 else f"${usd:.4f}"
