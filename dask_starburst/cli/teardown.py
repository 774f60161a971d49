"""``starburst teardown``: remove everything of ours from an account and region."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.aws import identity
from dask_starburst.aws.session import AWS
from dask_starburst.cli.pool import account_options, run
from dask_starburst.fleet.pool import inventory
from dask_starburst.fleet.pool import teardown as removal
from dask_starburst.fleet.pool.inventory import Inventory
from dask_starburst.fleet.pool.teardown import Outcome
from dask_starburst.plan.requests.teardown import Kept, Resource, choose, total_cost
from dask_starburst.settings import UNSET, Settings


@dataclass(frozen=True, slots=True)
class _Plan:
    """Where, what is removed, what is kept, and what could not be listed."""

    account: str
    region: str
    gone: tuple[Resource, ...]
    kept: tuple[Kept, ...]
    unknown: tuple[str, ...]


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Only list.")
@click.option("--force", is_flag=True, help="Remove pools in use too; their clusters stop working.")
@click.option("--roles", is_flag=True, help="Remove the roles and the instance profile too, which all regions share.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; removes only with --yes.")
@account_options
def teardown(yes: bool, dry_run: bool, force: bool, roles: bool, as_json: bool, **account: str | None) -> None:
    """List everything of starburst in the account and region with its cost, ask, and remove it.

    It works in any state and may be interrupted at any moment: run it again. Pools in use and what they need are kept,
    unless --force. A resource without our tag or name is never touched. The service-linked roles of AWS stay.
    """
    settings = Settings.load(region=account["region"] or UNSET)
    plan = run(account, lambda aws: _plan(aws, settings.build.repository, force, roles))
    if not as_json:
        _show(plan)
    outcomes: tuple[Outcome, ...] = ()
    if plan.gone and not dry_run and (yes or not as_json):
        if not yes:
            click.confirm(f"Remove these {len(plan.gone)} resources for good?", abort=True)
        if not as_json and any(each.usd_per_hour != 0 for each in plan.gone):
            click.echo("AWS takes a minute or two to terminate instances; what needs them gone is removed after that.")
        tell = _ignore if as_json else _tell
        outcomes = run(account, lambda aws: removal.remove(aws, plan.gone, tell, force=force))
    if as_json:
        click.echo(json.dumps(_document(plan, outcomes), indent=2))
    elif outcomes:
        click.echo(_summary(outcomes))
    if plan.unknown or any(each.error for each in outcomes):
        raise SystemExit(1)


async def _plan(aws: AWS, repository: str, force: bool, roles: bool) -> _Plan:
    caller = await identity.caller(aws)
    found: Inventory = await inventory.find(aws, repository)
    gone, kept = choose(found.resources, found.pools, force=force, roles=roles)
    return _Plan(caller.account, aws.region, gone, kept, found.unknown)


def _show(plan: _Plan) -> None:
    where = f"account {plan.account}, {plan.region}"
    if plan.gone:
        Console().print(_table(f"To remove from {where}", plan.gone))
        click.echo(f"These cost {total_cost(plan.gone)} now.")
    else:
        click.echo(f"Nothing to remove from {where}.")
    for why in dict.fromkeys(each.why for each in plan.kept):
        names = sorted({_owner(each.resource) for each in plan.kept if each.why == why})
        click.echo(f"kept: {', '.join(names)} ({why})")
    for sentence in plan.unknown:
        click.echo(f"not listed: {sentence}", err=True)


def _table(title: str, resources: Iterable[Resource]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("resource", "name", "contains", "costs now"):
        table.add_column(column, overflow="fold")
    for each in sorted(resources, key=lambda one: (one.is_shared, one.pool, one.kind, one.name)):
        table.add_row(each.kind, each.name, each.detail, each.cost)
    return table


def _owner(resource: Resource) -> str:
    return f"{resource.kind} {resource.name}" if resource.is_shared else f"pool {resource.pool}"


def _tell(outcome: Outcome) -> None:
    each = outcome.resource
    if outcome.error:
        click.echo(f"not removed: {each.kind} {each.name}: {outcome.error}", err=True)
    else:
        click.echo(f"removed: {each.kind} {each.name}")


def _ignore(outcome: Outcome) -> None:
    """Print nothing: the outcomes are in the JSON."""


def _summary(outcomes: Iterable[Outcome]) -> str:
    found = tuple(outcomes)
    failed = sum(bool(each.error) for each in found)
    done = f"{len(found) - failed} removed"
    return f"{done}, {failed} not. Run it again when the cause is mended." if failed else f"{done}, nothing failed."


def _document(plan: _Plan, outcomes: Iterable[Outcome]) -> dict[str, Any]:
    return {
        "account": plan.account,
        "region": plan.region,
        "resources": [_resource(each) for each in plan.gone],
        "kept": [{**_resource(each.resource), "why": each.why} for each in plan.kept],
        "unknown": list(plan.unknown),
        "removed": [_resource(each.resource) for each in outcomes if not each.error],
        "failed": [{**_resource(each.resource), "error": each.error} for each in outcomes if each.error],
    }


def _resource(resource: Resource) -> dict[str, Any]:
    return {
        "kind": resource.kind,
        "name": resource.name,
        "pool": resource.pool,
        "usd_per_hour": resource.usd_per_hour,
        "usd_per_month": resource.usd_per_month,
    }
