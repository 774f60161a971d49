"""The scheduler's AWS calls, as a short-lived program.

``python -m dask_starburst.runtime.scheduler.aws_calls renew|zero …``, run by `aws_process`. It prints one JSON object a
line for each successful call; on failure the last line holds the error. boto3 gets the credentials of the task role
from the container credentials endpoint.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import click

from dask_starburst.aws import autoscaling, identity
from dask_starburst.aws.session import AWS
from dask_starburst.errors import StarburstError
from dask_starburst.plan.requests.pool import LEASE_ACTION

_groups = click.option("--group", "groups", multiple=True, required=True)


def _say(**facts: Any) -> None:
    print(json.dumps(facts), flush=True)


@click.group()
@click.option("--region", required=True)
@click.pass_context
def main(context: click.Context, region: str) -> None:
    """Call AWS and exit."""
    context.obj = AWS(region=region)


@main.command()
@click.option("--lease", type=float, required=True)
@_groups
@click.pass_obj
def renew(aws: AWS, groups: tuple[str, ...], lease: float) -> None:
    """Schedule the groups to be set to zero at the end of the lease, counted from now by AWS's clock."""
    asyncio.run(_renew(aws, groups, lease))


async def _renew(aws: AWS, groups: tuple[str, ...], lease: float) -> None:
    await identity.caller(aws)  # needs no permission, and returns AWS's time
    until = aws.now() + lease
    for group in groups:
        await autoscaling.put_lease(aws, group, LEASE_ACTION, until)
    _say(until=until)


@main.command()
@_groups
@click.pass_obj
def zero(aws: AWS, groups: tuple[str, ...]) -> None:
    """Set the groups to zero. The last one is the scheduler's own."""
    asyncio.run(_zero(aws, groups))


async def _zero(aws: AWS, groups: tuple[str, ...]) -> None:
    for group in groups:
        await autoscaling.set_zero(aws, group)
        _say(zero=group)


if __name__ == "__main__":
    try:
        main()
    except StarburstError as error:
        _say(error=str(error))
