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
from dask_starburst.errors import PermissionDenied, StarburstError
from dask_starburst.plan.requests.pool import LEASE_ACTION

#: Seconds until a shortened lease ends, and the least that AWS accepts: a start time has to be in the future.
_SHORT_LEASE, _LEAST = 60.0, 5.0
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
@click.option("--until", type=float, default=0.0, help="The end of a lease that an earlier call has shortened.")
@_groups
@click.pass_obj
def zero(aws: AWS, groups: tuple[str, ...], until: float) -> None:
    """Set the groups to zero. The last one is the scheduler's own.

    Where AWS denies this, because it asks for the rights of the launch template (its pages contradict each other), the
    lease is shortened instead: AWS checks no template for a scheduled action.
    """
    asyncio.run(_zero(aws, groups, until))


async def _zero(aws: AWS, groups: tuple[str, ...], until: float) -> None:
    for group in groups:
        try:
            await autoscaling.set_zero(aws, group)
            _say(zero=group)
        except PermissionDenied as error:
            until = until if until > aws.now() + _LEAST else aws.now() + _SHORT_LEASE
            await autoscaling.put_lease(aws, group, LEASE_ACTION, until)
            _say(shortened=group, until=until, error=str(error))


if __name__ == "__main__":
    try:
        main()
    except StarburstError as error:
        _say(error=str(error))
