"""``starburst plan``: the cost of a cluster before it is launched."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click
from rich.console import Console

from dask_starburst.cluster.quote import quote
from dask_starburst.settings import ARCHITECTURES, SPOT_POLICIES
from dask_starburst.views.quote import as_renderable


@click.command()
@click.option("--workers", "n_workers", type=click.IntRange(min=0), help="Number of workers. [default: adaptive]")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="Architecture, as in StarburstCluster.")
@click.option("--instance-type", "instance_types", multiple=True, help="May be given more than once.")
@click.option("--spot-policy", type=click.Choice(SPOT_POLICIES), help="Purchase option of the workers' instances.")
@click.option("--warm", type=int, help="Number of idle instances to keep ready.")
@click.option("--max-hourly-cost", type=float, metavar="USD")
@click.option("--max-total-cost", type=float, metavar="USD")
@click.option("--cloud", type=click.Choice(["local"]), help="The embedded AWS instead of an account.")
@click.option("--endpoint-url", metavar="URL", help="An endpoint other than AWS's.")
@click.option("--profile", help="A profile of your AWS configuration.")
@click.option("--region", help="AWS region. [default: that of your AWS configuration]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    as_json: bool,
    spot_policy: str | None,
    warm: int | None,
    max_hourly_cost: float | None,
    max_total_cost: float | None,
    **arguments: Any,
) -> None:
    """Show what a cluster would launch, its hourly cost and its cost caps. Nothing is launched.

    The settings are those of your Dask configuration and the options here.
    """
    arguments |= {
        "spot": _given(policy=spot_policy),
        "keep": _given(warm=warm),
        "money": _given(max_hourly_cost=max_hourly_cost, max_total_cost=max_total_cost),
    }
    found = quote(**_given(**arguments))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"usd_per_hour": found.usd_per_hour}, indent=2))
    else:
        Console().print(as_renderable(found))


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value not in (None, (), {})}
