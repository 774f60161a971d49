"""``starburst cost``: the cost of clusters."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.aws.cost_explorer import REQUEST_USD, billed
from dask_starburst.cli.pool import account_options, run
from dask_starburst.cost.bill import dollars
from dask_starburst.cost.record import Record, load_records
from dask_starburst.plan.requests.policies import MANAGED_TAG
from dask_starburst.views.bill import explorer_query, shares

_DAY = 86400.0


@click.group()
def cost() -> None:
    """Show the cost of your clusters."""


@cost.command()
@click.argument("name", required=False)
@click.option(
    "--days", type=click.IntRange(min=1, max=365), default=30, show_default=True, help="Number of days to look back."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def report(name: str | None, days: int, as_json: bool) -> None:
    """Show the cost of the clusters that were closed on this computer; with NAME the details of one.

    The cost is computed from the running time and price of each instance. A day later, `starburst cost billed` shows
    what AWS has billed.
    """
    found = [r for r in load_records(time.time() - days * _DAY) if name is None or r.name == name]
    if as_json:
        click.echo(json.dumps([asdict(record) for record in found], indent=2))
    elif not found:
        which = f"cluster {name}" if name else "cluster"
        click.echo(f"No {which} was closed on this computer in the last {days} days.")
    elif name is None:
        Console().print(_list(found))
    else:
        for record in found:
            Console().print(_one(record))


@cost.command("billed")
@click.option(
    "--days", type=click.IntRange(min=1, max=365), default=30, show_default=True, help="Number of days to look back."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@account_options
def ask_billed(days: int, yes: bool, **account: str | None) -> None:
    """Show what AWS has billed for each pool, from Cost Explorer. AWS charges $0.01 for the request."""
    if not yes:
        click.confirm(f"AWS charges ${REQUEST_USD:.2f} for the request. Continue?", abort=True)
    end = datetime.now(UTC).date() + timedelta(days=1)
    found = run(account, lambda aws: billed(aws, MANAGED_TAG, _before(end, days), end))
    if not found:
        click.echo(
            f"Cost Explorer has no charges with the tag {MANAGED_TAG}. Activate it once as a cost allocation tag"
            " in the billing console; charges appear within a day."
        )
        return
    table = Table(title=f"Billed in the last {days} days, by pool", show_footer=True)
    table.add_column("pool", footer="total")
    table.add_column("USD", justify="right", footer=dollars(sum(found.values())))
    for pool, usd in sorted(found.items(), key=lambda one: -one[1]):
        table.add_row(pool, dollars(usd))
    Console().print(table)


def _before(end: date, days: int) -> date:
    return end - timedelta(days=days)


def _list(found: list[Record]) -> Table:
    real = [record for record in found if not record.simulated]
    table = Table(title="Clusters that were closed on this computer", show_footer=True)
    table.add_column("closed", footer="paid")
    table.add_column("cluster")
    table.add_column("region")
    table.add_column("instance hours", justify="right", footer=f"{sum(r.instance_hours for r in real):.2f}")
    table.add_column("cost", justify="right", footer=dollars(sum(r.usd for r in real)))
    table.add_column("against on demand", justify="right", footer=f"-{dollars(sum(r.saved for r in real))}")
    for r in found:
        usd = f"{dollars(r.usd)} simulated" if r.simulated else dollars(r.usd)
        table.add_row(_clock(r.closed), r.name, r.region, f"{r.instance_hours:.2f}", usd, f"-{dollars(r.saved)}")
    return table


def _one(record: Record) -> Table:
    table = Table(title=f"Cluster {record.name}", show_header=False)
    whole = record.usd + record.saved
    rows = {
        "ran": f"{_clock(record.opened)} to {_clock(record.closed)} in {record.region}, pool {record.pool}",
        "cost": f"{dollars(record.usd)}{' (simulated, not billed)' if record.simulated else ''}",
        "prices": record.source,
        "spent in": shares(record.by_group),
        "spent while": shares(record.by_cause),
        "against on demand": f"{dollars(whole)}, so {record.saved / whole:.0%} less"
        if record.saved > 0
        else "the same",
        "what AWS billed": explorer_query(record.pool, record.opened, record.closed),
    }
    for title, text in rows.items():
        table.add_row(title, text)
    return table


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
