"""``starburst status``: running and stored resources, and their cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import click
from rich.console import Console

from dask_starburst.aws import identity
from dask_starburst.aws.session import AWS
from dask_starburst.cli.pool import account_options, run
from dask_starburst.cost.idle_resources import idle_resources
from dask_starburst.cost.record import Record, load_records
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.pool import discovery, preflight
from dask_starburst.plan.money.idle import idle_bill
from dask_starburst.settings import UNSET, Settings
from dask_starburst.views.status import Spent, Status, as_renderable


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@account_options
def status(as_json: bool, **account: str | None) -> None:
    """Show what runs in the region and its hourly cost, and the cost of stored resources while nothing runs."""
    settings = Settings.load(region=account["region"] or UNSET)
    found = run(account, lambda aws: _status(aws, settings))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2))
    else:
        Console().print(as_renderable(found))


async def _status(aws: AWS, settings: Settings) -> Status:
    settings = replace(settings, region=aws.region)
    requests = blueprint(settings, "").requests()
    caller = await identity.caller(aws)
    pools, kept, quotas = await asyncio.gather(
        discovery.find(aws, count_warm=True),
        idle_resources(aws, settings.build.repository),
        preflight.fetch_quotas(aws, requests),
    )
    trouble = (*kept.trouble, *((quotas.unknown,) if quotas.unknown else ()))
    standings = preflight.standings(quotas, requests)
    spent = _spent(load_records(), aws.region, datetime.now(UTC))
    return Status(aws.region, pools, idle_bill(kept), trouble, caller.account, standings, spent)


def _spent(records: Iterable[Record], region: str, now: datetime) -> Spent:
    begin = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()
    found = [each for each in records if each.closed >= begin and each.region == region and not each.simulated]
    return Spent(sum(each.usd for each in found), len(found))
