"""The parts of a cluster's cost, as text."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from dask_starburst.cost.bill import Cost, dollars
from dask_starburst.plan.requests.policies import MANAGED_TAG


def money_rows(cost: Cost) -> list[tuple[str, str]]:
    """Return the parts of the cost as titled rows; no rows while the cost is zero."""
    if not cost.usd:
        return []
    parts = {"instances": cost.instances, "public IPv4": cost.public_ipv4, "volumes": cost.storage}
    rows = [
        ("Spent on", shares(parts)),
        ("Spent in", shares(cost.by_group)),
        ("Spent while", shares(cost.by_cause)),
    ]
    if cost.saved > 0:
        whole = cost.usd + cost.saved
        rows.append(("Against on demand", f"{dollars(whole)}, so {cost.saved / whole:.0%} less"))
    return rows


def shares(parts: Mapping[str, float]) -> str:
    """Format amounts by name, largest first, each with its share."""
    total = sum(parts.values()) or 1.0
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {dollars(usd)} ({usd / total:.0%})" for name, usd in ordered if usd)


def explorer_query(pool: str, opened: float, closed: float) -> str:
    """Return the command that queries Cost Explorer for what AWS has billed for a pool on the days of a cluster."""
    start = datetime.fromtimestamp(opened, UTC).date()
    end = datetime.fromtimestamp(closed, UTC).date() + timedelta(days=1)
    return (
        f"aws ce get-cost-and-usage --time-period Start={start},End={end} --granularity DAILY --metrics UnblendedCost"
        f' --filter \'{{"Tags": {{"Key": "{MANAGED_TAG}", "Values": ["{pool}"]}}}}\''
    )
