"""The pools and stored resources of an account and region, with their cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dask_starburst.plan.money.idle import FREE, IdleRow, cents, total, total_text
from dask_starburst.plan.requests.garbage import PoolFound
from dask_starburst.plan.requests.quotas import Standing, number


@dataclass(frozen=True, slots=True)
class Spent:
    """The cost of the clusters of a region that were closed on this computer since the month began (UTC)."""

    usd: float = 0.0
    clusters: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """The pools of an account and region, the quotas that apply, what was spent, and the cost of stored resources."""

    region: str
    pools: tuple[PoolFound, ...]
    idle: tuple[IdleRow, ...]
    trouble: tuple[str, ...] = ()
    account: str = ""
    quotas: tuple[Standing, ...] = ()
    spent: Spent = field(default_factory=Spent)

    @property
    def running(self) -> int:
        """Number of running instances."""
        return sum(pool.running for pool in self.pools)

    @property
    def usd_per_hour(self) -> float | None:
        """Current hourly cost with public addresses; None if a type has no price."""
        prices = [pool.usd_per_hour for pool in self.pools]
        return None if None in prices else sum(price for price in prices if price is not None)

    def as_dict(self) -> dict[str, Any]:
        """Return the status as JSON-compatible values."""
        return {
            "account": self.account,
            "region": self.region,
            "running": self.running,
            "usd_per_hour": self.usd_per_hour,
            "pools": [_pool(pool) for pool in self.pools],
            "quotas": [
                {"code": one.quota.code, "name": one.quota.label, "limit": one.limit, "used": one.used}
                for one in self.quotas
            ],
            "spent_this_month": {"usd": self.spent.usd, "clusters": self.spent.clusters},
            "idle_usd_per_month": total(self.idle),
            "trouble": self.trouble,
            "idle": [{"what": r.what, "amount": r.amount, "usd_per_month": r.usd_per_month} for r in self.idle],
        }


def as_renderable(status: Status) -> RenderableType:
    """Render a status for a terminal."""
    facts = [Text(sentence) for sentence in _facts(status)]
    return Group(_running(status), *facts, Text(""), _bill(status.idle, status.trouble))


def _facts(status: Status) -> Iterator[str]:
    used = (f"{one.quota.label} {number(one.used)} of {number(one.limit)} vCPUs" for one in status.quotas)
    if status.quotas:
        yield f"- quotas in use: {'; '.join(used)} (`starburst quota status`)"
    clusters = f"{status.spent.clusters} cluster{'' if status.spent.clusters == 1 else 's'}"
    yield (
        f"- this month: ${status.spent.usd:.2f} for {clusters} closed on this computer (`starburst cost report`; what"
        " AWS has billed: `starburst cost billed`)"
    )


def _running(status: Status) -> RenderableType:
    live = [pool for pool in status.pools if pool.running]
    free = len(status.pools) - len(live)
    if not live:
        empty = f" {free} empty pool{'' if free == 1 else 's'}, free of charge." if free else ""
        return Text(f"Nothing runs in {_where(status)}.{empty}")
    usd = status.usd_per_hour
    hour = "unknown" if usd is None else f"${usd:.4f}"
    table = Table(title=f"Running in {_where(status)}", title_justify="left", show_footer=True)
    table.add_column("pool", footer="total", overflow="fold")
    table.add_column("state")
    table.add_column("owner")
    table.add_column("lease until")
    table.add_column("instances", justify="right", footer=str(status.running))
    table.add_column("warm", justify="right")
    table.add_column("USD an hour", justify="right", footer=hour)
    for pool in live:
        price = "unknown" if pool.usd_per_hour is None else f"${pool.usd_per_hour:.4f}"
        owner = pool.claim.owner if pool.claim else "–"
        table.add_row(pool.name, pool.state, owner, _clock(pool.lease), str(pool.running), str(pool.warm), price)
    return table


def _where(status: Status) -> str:
    return f"{status.region} of account {status.account}" if status.account else status.region


def _clock(at: float | None) -> str:
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")


def _bill(rows: Sequence[IdleRow], trouble: Sequence[str]) -> RenderableType:
    table = Table(title="The idle bill: what a month costs when nothing runs", title_justify="left", show_footer=True)
    table.add_column("what", footer="total")
    table.add_column("how much")
    table.add_column("a GB and month", justify="right")
    table.add_column("a month", justify="right", footer=total_text(rows))
    for row in rows:
        table.add_row(row.what, row.amount, f"${row.usd_per_gb:.2f}", _usd(row))
    less = [Text(f"- {row.what} cost less with {row.less}") for row in rows if row.usd_per_month]
    denied = [Text(f"- {sentence}") for sentence in trouble]
    return Group(table, *less, *denied, Text(f"- free of charge: {'; '.join(FREE)}"))


def _usd(row: IdleRow) -> str:
    return "unknown" if row.usd_per_month is None else cents(row.usd_per_month)


def _pool(pool: PoolFound) -> dict[str, Any]:
    return {
        "name": pool.name,
        "state": pool.state,
        "owner": pool.claim.owner if pool.claim else None,
        "lease": pool.lease,
        "running": pool.running,
        "warm": pool.warm,
        "usd_per_hour": pool.usd_per_hour,
    }
