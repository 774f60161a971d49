"""The choice of a pool for a new cluster, and the description of a pool that is kept for reuse."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from dask_starburst.catalog.markets import Market
from dask_starburst.plan.requests.garbage import GroupFound, usd_per_hour
from dask_starburst.plan.requests.policies import NAMESPACE

#: Tag of every group: the digest of the specification that it was created from.
SPEC_TAG = f"{NAMESPACE}:spec"
#: Tag of a group that is kept for reuse: when AWS scales it to zero, in seconds since the epoch.
WARM_TAG = f"{NAMESPACE}:warm-until"
#: A lease that expires within this many seconds is not renewed: AWS may be about to execute it.
EXPIRY_MARGIN = 15.0
#: Shortest time for which a pool is kept for reuse: Auto Scaling may act two minutes late (aws-facts, finding 8).
SHORTEST_WARM = 60.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pool that is not claimed.

    Parameters
    ----------
    name : str
        Name of the pool.
    instances, workers : int
        Numbers of instances that are not terminating: all, and those for workers.
    until : float, optional
        When AWS scales it to zero (seconds since the epoch), if it is kept for reuse.
    """

    name: str
    instances: int = 0
    workers: int = 0
    until: float | None = None

    def expiring(self, now: float) -> bool:
        """Whether its instances are about to terminate, so that it counts neither as warm nor as cold."""
        return self.instances > 0 and self.until is not None and self.until < now + EXPIRY_MARGIN


def preferred(found: Iterable[Candidate], requested: int, now: float) -> list[Candidate]:
    """Return the pools in the order in which to try them.

    The smallest warm one with enough instances for `requested` workers, so that a large one is left for a larger
    cluster; then the largest warm ones; then the cold ones by name. A pool whose instances are about
    to terminate is left out, because renewing its lease does not stop that.

    Parameters
    ----------
    found : iterable of Candidate
        Unclaimed pools of one specification.
    requested : int
        Number of workers.
    now : float
        Seconds since the epoch, AWS's clock.
    """

    def rank(one: Candidate) -> tuple[int, int, int, str]:
        if not one.instances:
            return (2, 0, 0, one.name)
        enough = one.workers >= requested
        return (0 if enough else 1, one.workers if enough else -one.workers, -one.instances, one.name)

    return sorted((one for one in found if not one.expiring(now)), key=rank)


@dataclass(frozen=True, slots=True)
class Kept:
    """The part of a pool that is kept for reuse: its groups, and the end time (seconds since the epoch)."""

    groups: tuple[GroupFound, ...]
    until: float

    @property
    def instances(self) -> int:
        """Number of instances that are kept."""
        return sum(len(group.types) for group in self.groups)

    def __str__(self) -> str:
        kinds = Counter((kind, "spot" if g.spot else "on-demand") for g in self.groups for kind in g.types)
        what = ", ".join(f"{count} {kind} {market}" for (kind, market), count in sorted(kinds.items()))
        return f"{what}, {price(self.groups)}, until {clock(self.until)}"


def price_of_spares(kind: str, count: int, market: Market, *, region: str = "us-east-1") -> str:
    """Describe the cost of spare instances."""
    group = GroupFound("", count, market is Market.SPOT, (kind,) * count, None, region=region)
    return f"{count} spare {kind} {'is' if count == 1 else 'are'} kept ready while the cluster runs: {price([group])}"


def price(groups: Iterable[GroupFound]) -> str:
    """Format the hourly cost of groups, with public addresses and without volumes."""
    usd = usd_per_hour(groups)
    return "at a price that is not in the catalogue" if usd is None else f"${usd:.4f} an hour"


def clock(at: float) -> str:
    """Format a time of day."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
