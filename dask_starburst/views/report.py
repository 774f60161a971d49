"""A snapshot of a cluster's state, and its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dask.utils import format_bytes

from dask_starburst.cost.bill import Cost, dollars
from dask_starburst.events.event import clock
from dask_starburst.plan.money.budget import Caps
from dask_starburst.views.bill import explorer_query, money_rows

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.interruptions import SpotCounts

#: How many instance types are named; more are counted.
_SHOWN = 3


@dataclass(frozen=True, slots=True, repr=False)
class ClusterReport:
    """A snapshot of a cluster. Its text is that of `as_table`.

    Attributes
    ----------
    name, status, address, dashboard : str
        As those of the cluster. The addresses are empty unless it runs.
    types : tuple of str
        The instance types that workers may have.
    members : tuple of mapping
        The scheduler's information about each connected worker.
    requested, failed : int
        Numbers of workers.
    cost : Cost
        The cost so far.
    region : str
        Empty if the cluster was not launched.
    simulated : bool
        Whether it runs on the embedded AWS.
    usd_per_hour : float
        The highest hourly cost of the pool now, in US dollars; 0 unless it runs.
    caps : Caps
        The cost caps.
    spot : SpotCounts, optional
        The effects of Spot so far.
    lease : float, optional
        When AWS empties the pool unless the lease is renewed (seconds since the epoch).
    pool : str
        Empty if the cluster has none.
    began, now : float
        When the first event happened, and when the report was made (seconds since the epoch).
    kind : str
        The name of the cluster's class.
    """

    name: str
    status: str
    address: str
    dashboard: str
    types: tuple[str, ...]
    members: tuple[Mapping[str, Any], ...]
    requested: int
    failed: int
    cost: Cost
    region: str = ""
    simulated: bool = False
    usd_per_hour: float = 0.0
    caps: Caps = field(default_factory=Caps)
    spot: SpotCounts | None = None
    lease: float | None = None
    pool: str = ""
    began: float = 0.0
    now: float = 0.0
    kind: str = "StarburstCluster"

    def __str__(self) -> str:
        return as_table(self)

    def __repr__(self) -> str:
        return as_table(self)

    @property
    def ready(self) -> int:
        """Number of connected workers."""
        return len(self.members)

    @property
    def threads(self) -> int:
        """Threads of all workers together."""
        return sum(w["nthreads"] for w in self.members)

    @property
    def memory(self) -> int:
        """Memory limit of all workers together, in bytes."""
        return sum(w["memory_limit"] for w in self.members)


def report_of(cluster: Any, cloud: Any, session: Any, types: Sequence[str]) -> ClusterReport:
    """Return the report of a StarburstCluster, even if it has never started."""
    running = cluster.status.name == "running"
    controller, pool, lease = (session.controller, session.pool, session.lease) if session else (None, None, None)
    now = cloud.aws.now() if cloud else 0.0
    return ClusterReport(
        kind=type(cluster).__name__,
        name=cluster.name,
        status=cluster.status.name,
        address=cluster.scheduler_address if running else "",
        dashboard=cluster.dashboard_link if running else "",
        types=tuple(types),
        members=tuple(cluster.scheduler_info.get("workers", {}).values()),
        requested=len(cluster.worker_spec),
        failed=len(controller.roster.failed()) if controller else 0,
        cost=cluster.cost,
        region=cloud.aws.region if cloud else "",
        simulated=cloud.simulated if cloud else False,
        usd_per_hour=controller.budget.rate if controller and running else 0.0,
        caps=controller.budget.cost_tracker.caps if controller else Caps(),
        spot=controller.spot.counts if controller else None,
        lease=lease.until if lease and running else None,
        pool=pool.name if pool else "",
        began=now if cluster.events.began is None else cluster.events.began,
        now=now,
    )


def as_text(report: ClusterReport) -> str:
    """Return the repr of the cluster."""
    rate = _rate(report)
    spot = f"; Spot: {text}" if (text := _spot(report)) else ""
    money = f"; {dollars(report.cost.usd)} so far" + (f", {rate}" if rate else "")
    return (
        f"{report.kind}({report.name}, {report.address!r}, {report.status},"
        f" workers={_workers(report)}, threads={report.threads},"
        f" memory={format_bytes(report.memory)}, {_types(report)} in {_where(report)}{money}{spot})"
    )


def as_table(report: ClusterReport) -> str:
    """Return the report as lines of text, one a row."""
    lines = [("Cluster", f"{report.kind} {report.name}"), *rows(report), ("Dashboard", report.dashboard or "none")]
    width = max(len(title) for title, _ in lines)
    return "\n".join(f"{title:<{width}}  {text}" for title, text in lines)


def rows(report: ClusterReport) -> list[tuple[str, str]]:
    """Return the report as titled rows."""
    shown = [
        ("Status", report.status),
        ("Workers", _workers(report)),
        ("Threads", str(report.threads)),
        ("Memory", format_bytes(report.memory)),
        ("Instances", _types(report)),
        ("Where", _where(report)),
        ("Cost so far", str(report.cost)),
        ("Cost now", _rate(report)),
        *money_rows(report.cost),
        ("What AWS bills", _query(report)),
        ("Spot", _spot(report)),
        ("Lease", _lease(report)),
    ]
    return [(title, text) for title, text in shown if text]


def _workers(report: ClusterReport) -> str:
    """Return the numbers of connected, requested and failed workers."""
    text = str(report.ready) if report.ready == report.requested else f"{report.ready} of {report.requested}"
    return f"{text} ({report.failed} failed)" if report.failed else text


def _types(report: ClusterReport) -> str:
    """Name a few types, or the first and the number of others."""
    types = report.types
    return ", ".join(types) if len(types) <= _SHOWN else f"{types[0]} and {len(types) - 1} similar types"


def _where(report: ClusterReport) -> str:
    return f"{'the embedded AWS' if report.simulated else 'AWS'}, {report.region}" if report.region else "not launched"


def _lease(report: ClusterReport) -> str:
    return "none" if report.lease is None else f"AWS empties the pool at {clock(report.lease)} unless renewed"


def _spot(report: ClusterReport) -> str:
    """Describe what happened on Spot so far; empty if nothing happened."""
    counts, parts = report.spot, []
    if counts:
        parts.append(
            f"{counts.interruptions} interruptions, {format_bytes(int(counts.bytes_moved))} moved,"
            f" {counts.results_lost} results lost, {counts.recomputed} tasks recomputed,"
            f" {counts.seconds_lost:.0f} worker-seconds lost"
            + (f", {counts.fallbacks} workers bought on demand instead" if counts.fallbacks else "")
            + (f", {counts.moved_back} moved back" if counts.moved_back else "")
        )
    if report.cost.saved > 0:
        parts.append(f"${report.cost.saved:.4f} less than on demand")
    return "; ".join(parts)


def _rate(report: ClusterReport) -> str:
    """Describe the current hourly cost and its caps; empty if nothing runs."""
    if not report.usd_per_hour:
        return ""
    caps = report.caps
    hourly = f", of max_hourly_cost={caps.hourly:g}" if caps.hourly is not None else ""
    total = f"; max_total_cost={caps.total:g}" if caps.total is not None else ""
    return f"{dollars(report.usd_per_hour)} an hour{hourly}{total}"


def _query(report: ClusterReport) -> str:
    """Return the Cost Explorer command if AWS bills the cluster; empty if it does not."""
    if not report.pool or report.simulated or not report.cost.usd:
        return ""
    return explorer_query(report.pool, report.began, report.now)
