"""Which pool a new cluster takes, and what one that is given back warm says of itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from dask_starburst.plan.requests.garbage import GroupFound, usd_per_hour
from dask_starburst.plan.requests.policies import NAMESPACE

#: The tag of every group that says which specification it was made from.
SPEC_TAG = f"{NAMESPACE}:spec"
#: The tag of a group that was given back warm: when AWS empties it, in seconds since the epoch.
WARM_TAG = f"{NAMESPACE}:warm-until"
#: A lease that is due within so many seconds is not renewed any more: AWS may be about to carry it out.
EXPIRY_MARGIN = 15.0
#: Auto Scaling may act two minutes late (aws-facts, finding 8), so what would be kept for less is given back cold.
SHORTEST_WARM = 60.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pool that nobody has claimed.

    Parameters
    ----------
    name : str
        Its name.
    instances, workers : int
        Instances that are not on their way out: all, and those for workers.
    until : float, optional
        When AWS empties it (seconds since the epoch), if it was given back warm.
    """

    name: str
    instances: int = 0
    workers: int = 0
    until: float | None = None

    def expiring(self, now: float) -> bool:
        """Whether its instances are about to go, so that it is neither warm nor cold."""
        return self.instances > 0 and self.until is not None and self.until < now + EXPIRY_MARGIN


def preferred(found: Iterable[Candidate], requested: int, now: float) -> list[Candidate]:
    """Return the pools in the order in which to try them.

    The smallest warm one that has enough for `requested` workers, so that a large one is left to who
    needs it; then the largest warm ones; then the cold ones by name. One whose instances are about
    to go is left out: what AWS has begun is not stopped by a renewal.

    Parameters
    ----------
    found : iterable of Candidate
        The pools of one specification that nobody has claimed.
    wanted : int
        Workers.
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
    """What stays of a pool that is given back warm: its groups, and until when (seconds since the epoch)."""

    groups: tuple[GroupFound, ...]
    until: float

    @property
    def instances(self) -> int:
        """How many instances stay."""
        return sum(len(group.types) for group in self.groups)

    def __str__(self) -> str:
        kinds = Counter((kind, "spot" if g.spot else "on-demand") for g in self.groups for kind in g.types)
        what = ", ".join(f"{count} {kind} {market}" for (kind, market), count in sorted(kinds.items()))
        return f"{what}, {price(self.groups)}, until {clock(self.until)}"


def price_of_spares(kind: str, count: int, *, spot: bool, region: str = "us-east-1") -> str:
    """Say what spares cost as long as the cluster lives."""
    group = GroupFound("", count, spot, (kind,) * count, None, region=region)
    return f"{count} spare {kind} {'is' if count == 1 else 'are'} kept ready while the cluster lives: {price([group])}"


def price(groups: Iterable[GroupFound]) -> str:
    """Say what groups cost an hour, with public addresses and without volumes."""
    usd = usd_per_hour(groups)
    return "at a price that is not in the catalogue" if usd is None else f"${usd:.4f} an hour"


def clock(at: float) -> str:
    """Return a time of day for people."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
