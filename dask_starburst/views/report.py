"""A snapshot of a cluster's state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask.utils import format_bytes

from dask_starburst.cost.bill import Cost, dollars
from dask_starburst.views.bill import explorer_query, money_rows

#: How many instance types are named; more are counted.
_SHOWN = 3


@dataclass(frozen=True, slots=True, repr=False)
class ClusterReport:
    """A snapshot of a cluster; counts are numbers of workers.

    ``cost``, ``spot``, ``rate`` and ``lease`` are text; ``money`` holds the parts of the cost as titled rows.
    ``members`` is the scheduler's information about each connected worker; ``kind`` is the name of the cluster's class.
    """

    name: str
    status: str
    address: str
    dashboard: str
    where: str
    types: str
    members: tuple[Mapping[str, Any], ...]
    requested: int
    failed: int
    cost: str
    lease: str
    spot: str = ""
    rate: str = ""
    money: tuple[tuple[str, str], ...] = ()
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

    @property
    def workers(self) -> str:
        """Number of connected workers, of requested workers, and of failed ones."""
        text = str(self.ready) if self.ready == self.requested else f"{self.ready} of {self.requested}"
        return f"{text} ({self.failed} failed)" if self.failed else text


def report_of(cluster: Any, cloud: Any, session: Any, types: Sequence[str]) -> ClusterReport:
    """Return the report of a StarburstCluster, even if it has never started."""
    running = cluster.status.name == "running"
    cost = cluster.cost
    fleet, lease = (session.fleet, session.lease) if session else (None, None)
    return ClusterReport(
        kind=type(cluster).__name__,
        name=cluster.name,
        status=cluster.status.name,
        address=cluster.scheduler_address if running else "",
        dashboard=cluster.dashboard_link if running else "",
        where=str(cloud) if cloud else "not launched",
        types=_some(types),
        members=tuple(cluster.scheduler_info.get("workers", {}).values()),
        requested=len(cluster.worker_spec),
        failed=len(fleet.failed()) if fleet else 0,
        cost=str(cost),
        spot=_spot(fleet, cost.saved),
        rate=_rate(fleet) if running else "",
        money=(*money_rows(cost), *_query(session, cluster.events, cost)),
        lease=f"AWS empties the pool at {lease} unless renewed" if lease and running else "none",
    )


def _some(types: Sequence[str]) -> str:
    """Name a few types, or the first and the number of others."""
    return ", ".join(types) if len(types) <= _SHOWN else f"{types[0]} and {len(types) - 1} similar types"


def _spot(fleet: Any, saved: float) -> str:
    """Describe what happened on Spot so far; empty if nothing happened."""
    parts = [str(fleet.spot.counts)] if fleet is not None and fleet.spot.counts else []
    if saved > 0:
        parts.append(f"${saved:.4f} less than on demand")
    return "; ".join(parts)


def _rate(fleet: Any) -> str:
    """Describe the current hourly cost and its caps."""
    if fleet is None or not fleet.budget.rate:
        return ""
    caps = fleet.budget.cost_tracker.caps
    hourly = f", of max_hourly_cost={caps.hourly:g}" if caps.hourly is not None else ""
    total = f"; max_total_cost={caps.total:g}" if caps.total is not None else ""
    return f"{dollars(fleet.budget.rate)} an hour{hourly}{total}"


def _query(session: Any, events: Any, cost: Cost) -> tuple[tuple[str, str], ...]:
    """Return the Cost Explorer command if AWS bills the cluster."""
    if session is None or session.pool is None or cost.simulated or not cost.usd:
        return ()
    began = min(event.time for event in events)
    return (("What AWS bills", explorer_query(session.pool.name, began, session.aws.now())),)


def as_text(report: ClusterReport) -> str:
    """Return the repr of the cluster."""
    spot = f"; Spot: {report.spot}" if report.spot else ""
    money = f"; {report.cost.partition(' ')[0]} so far" + (f", {report.rate}" if report.rate else "")
    return (
        f"{report.kind}({report.name}, {report.address!r}, {report.status},"
        f" workers={report.workers}, threads={report.threads},"
        f" memory={format_bytes(report.memory)}, {report.types} in {report.where}{money}{spot})"
    )


def as_table(report: ClusterReport) -> str:
    """Return the report as lines of text, one a row."""
    lines = [("Cluster", f"{report.kind} {report.name}"), *rows(report), ("Dashboard", report.dashboard or "none")]
    width = max(len(title) for title, _ in lines)
    return "\n".join(f"{title:<{width}}  {text}" for title, text in lines)


def rows(report: ClusterReport) -> list[tuple[str, str]]:
    """Return the report as titled rows."""
    return [
        ("Status", report.status),
        ("Workers", report.workers),
        ("Threads", str(report.threads)),
        ("Memory", format_bytes(report.memory)),
        ("Instances", report.types),
        ("Where", report.where),
        ("Cost so far", report.cost),
        *([("Cost now", report.rate)] if report.rate else []),
        *report.money,
        *([("Spot", report.spot)] if report.spot else []),
        ("Lease", report.lease),
    ]
