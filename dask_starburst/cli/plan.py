"""``starburst plan``: what a cluster would cost, before it is launched."""

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
@click.option("--workers", "n_workers", type=click.IntRange(min=0), help="How many; without it the cluster adapts.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="As in StarburstCluster; so are the others.")
@click.option("--instance-type", "instance_types", multiple=True, help="May be given more than once.")
@click.option("--spot-policy", type=click.Choice(SPOT_POLICIES), help="How the workers' instances are bought.")
@click.option("--warm", type=int, help="Spare instances.")
@click.option("--max-hourly-cost", type=float, metavar="USD")
@click.option("--max-total-cost", type=float, metavar="USD")
@click.option("--cloud", type=click.Choice(["local"]), help="The embedded AWS in place of an account.")
@click.option("--endpoint-url", metavar="URL", help="Another endpoint than AWS's own.")
@click.option("--profile", help="A profile of your AWS configuration.")
@click.option("--region", help="Default: your AWS configuration's.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def plan(as_json: bool, **arguments: Any) -> None:
    """Show what a cluster would be launched as, at what price an hour, within which caps. Nothing is launched.

    The settings are those of your Dask configuration, and the options here.
    """
    found = quote(**{name: value for name, value in arguments.items() if value not in (None, ())})
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(found) | {"usd_per_hour": found.usd_per_hour}, indent=2))
    else:
        Console().print(as_renderable(found))
