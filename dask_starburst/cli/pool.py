"""``starburst pool`` and ``starburst gc``: show pools, and delete leftover resources."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.aws.regions import check_region
from dask_starburst.aws.session import AWS
from dask_starburst.cli.lazy import LazyGroup
from dask_starburst.errors import StarburstError
from dask_starburst.fleet.pool import discovery
from dask_starburst.plan.requests.garbage import Garbage, PoolFound

T = TypeVar("T")


def account_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that select the AWS account, region and endpoint."""
    for option in (
        click.option("--endpoint-url", metavar="URL", help="An endpoint other than AWS's."),
        click.option("--profile", help="A profile of your AWS configuration."),
        click.option("--region", help="AWS region. [default: that of your AWS configuration]"),
    ):
        command = option(command)
    return command


_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")


_WARM = (
    "dask_starburst.cli.warm:warm",
    "Keep WORKERS instances ready, and one for a scheduler, for the next cluster with the same settings.",
)


@click.group(cls=LazyGroup, lazy={"warm": _WARM})
def pool() -> None:
    """Manage the pools of your account: ECS clusters with their Auto Scaling groups, reused by Dask clusters."""


@pool.command("list")
@account_options
def list_pools(**account: str | None) -> None:
    """List the pools of the region with their owner, instances, warm instances and cost."""
    pools = run(account, lambda aws: discovery.find(aws, count_warm=True))
    if not pools:
        click.echo("No pools.")
        return
    Console().print(_pools(pools))


@pool.command()
@click.argument("name")
@account_options
def status(name: str, **account: str | None) -> None:
    """Show one pool and its groups."""
    found = run(account, lambda aws: discovery.find_one(aws, name))
    Console().print(_overview(found), _groups(found))


@pool.command()
@click.argument("name")
@_yes
@account_options
def stop(name: str, yes: bool, **account: str | None) -> None:
    """Terminate all instances of a pool that is yours or expired. A cluster that uses it stops working."""
    found = run(account, lambda aws: _stoppable(aws, name))
    if not yes:
        click.confirm(f"Terminate {found.running} instances of {name} ({found.state})?", abort=True)
    run(account, lambda aws: discovery.stop(aws, found))
    click.echo(f"{name}: all groups set to zero; AWS is terminating the instances.")


@pool.command()
@click.argument("name")
@_yes
@account_options
def delete(name: str, yes: bool, **account: str | None) -> None:
    """Delete a free or expired pool with all of its resources."""
    if not yes:
        click.confirm(f"Delete {name} with all of its resources?", abort=True)
    there = run(account, lambda aws: discovery.delete(aws, name))
    click.echo(f"{name}: {'deleted' if there else 'does not exist'}.")


@click.command()
@click.option("--delete", "really", is_flag=True, help="Delete the listed resources.")
@account_options
def gc(really: bool, **account: str | None) -> None:
    """List leftover resources that no cluster uses; delete them with --delete.

    A pool that is in use or has a valid lease is never deleted, nor a resource without our tag or prefix.
    """
    garbage = run(account, discovery.garbage)
    if not garbage:
        click.echo("Nothing to delete.")
        return
    table = _table("Would be deleted" if not really else "To delete", "name", "why")
    for found in garbage:
        table.add_row(found.name, found.why)
    Console().print(table)
    if not really:
        click.echo("Nothing was deleted. To delete these: starburst gc --delete")
        return
    failed = [found for found in garbage if not _collected(account, found)]
    if failed:
        raise SystemExit(1)


def _collected(account: dict[str, str | None], found: Garbage) -> bool:
    try:
        done = run(account, lambda aws: discovery.collect(aws, found))
    except StarburstError as error:  # continue with the others
        click.echo(f"{found.name}: {error}", err=True)
        return False
    click.echo(f"{found.name}: {'deleted' if done else 'skipped, gone or in use again'}.")
    return True


async def _stoppable(aws: AWS, name: str) -> PoolFound:
    found = await discovery.find_one(aws, name)
    await discovery.may_stop(aws, found)
    return found


def run(account: Mapping[str, str | None], work: Callable[[AWS], Awaitable[T]]) -> T:
    """Run a function with an AWS session, and close its connections.

    Raises
    ------
    BadArgument
        The region of the options is unknown.
    """
    if account.get("region") and not account.get("endpoint_url"):  # another endpoint may have other regions
        check_region(str(account["region"]))

    async def work_with() -> T:
        aws = AWS(**account)
        try:
            aws.require_credentials()
            return await work(aws)
        finally:
            aws.close()

    return asyncio.run(work_with())


def _pools(pools: tuple[PoolFound, ...]) -> Table:
    table = _table("Pools", "name", "state", "owner", "since", "running/desired", "warm", "lease until", "$/h")
    for one in pools:
        size = f"{one.running}/{one.desired}"
        table.add_row(one.name, one.state, *_who(one), size, str(one.warm), _time(one.lease), _usd(one))
    return table


def _overview(one: PoolFound) -> Table:
    table = Table(title=one.name, title_justify="left", show_header=False)
    owner, since = _who(one)
    table.add_row("state", one.state)
    table.add_row("owner", f"{owner} {one.claim.arn}" if one.claim else owner)
    table.add_row("session", one.claim.session if one.claim else "–")
    table.add_row("claimed since", since)
    table.add_row("instances", f"{one.running} running, {one.desired} desired")
    table.add_row("warm", f"{one.warm} idle instances for workers are connected")
    table.add_row("lease until", _time(one.lease))
    table.add_row("$/h now", f"{_usd(one)} (bundled prices; instances and public addresses)")
    return table


def _groups(one: PoolFound) -> Table:
    table = _table("Groups", "group", "market", "running/desired", "warm", "lease until")
    for group in one.groups:
        market = "Spot" if group.spot else "on demand"
        size = f"{len(group.types)}/{group.desired}"
        table.add_row(group.name, market, size, str(group.warm), _time(group.lease))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _who(one: PoolFound) -> tuple[str, str]:
    return (one.claim.owner, _time(one.claim.since)) if one.claim else ("–", "–")


def _time(at: float | None) -> str:
    return "–" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _usd(one: PoolFound) -> str:
    return "?" if one.usd_per_hour is None else f"{one.usd_per_hour:.4f}"
