"""``starburst status``: running and stored resources, and their cost."""

from __future__ import annotations

import json

import click
from rich.console import Console

from dask_starburst.aws.session import AWS
from dask_starburst.cli.pool import account_options, run
from dask_starburst.cost.idle_resources import idle_resources
from dask_starburst.fleet.pool import discovery
from dask_starburst.plan.money.idle import idle_bill
from dask_starburst.settings import UNSET, Settings
from dask_starburst.views.status import Status, as_renderable


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
    pools = await discovery.find(aws, count_warm=True)
    found = await idle_resources(aws, settings.build.repository)
    return Status(aws.region, pools, idle_bill(found), found.trouble)
