"""``starburst setup``: create what all clusters of an account share, once."""

from __future__ import annotations

from collections.abc import Iterable

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.aws import identity
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.cli.pool import account_options, run
from dask_starburst.events import Event
from dask_starburst.fleet.setup import Part, Seen, look, make, parts_of
from dask_starburst.plan.requests.account_template import account_template
from dask_starburst.settings import UNSET, Settings


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@click.option("--dry-run", is_flag=True, help="Only list.")
@click.option(
    "--print", "form", type=click.Choice(["cloudformation"]), help="Print a template that does the same; no AWS call."
)
@account_options
def setup(yes: bool, dry_run: bool, form: str | None, **account: str | None) -> None:
    """Create what all clusters of an account share: roles, instance profile, log group, security group.

    An administrator does this once; then users need no permission to create roles. It lists each resource with its
    price first, and may be interrupted at any moment: run it again. Nothing costs money while nothing runs.
    """
    settings = Settings.load(region=account["region"] or UNSET)
    if form:
        click.echo(account_template(settings.storage.log_retention), nl=False)
        return
    number, region, seen = run(account, lambda aws: _look(aws, settings))
    Console().print(_table(f"Account {number}, {region}", seen))
    for one in seen:
        if one.error:
            click.echo(f"{one.part.kind} {one.part.name}: {one.error}", err=True)
    todo = [one for one in seen if one.state != "there"]
    if not todo:
        click.echo("Everything is there.")
        return
    if dry_run:
        raise SystemExit(0)
    if not yes:
        click.confirm(f"Create or complete these {len(todo)} resources?", abort=True)
    names = {(one.part.kind, one.part.name) for one in todo}
    if not run(account, lambda aws: _make(aws, settings, names)):
        raise SystemExit(1)
    click.echo("The account is set up. Check it as a user with `starburst doctor`.")


async def _look(aws: AWS, settings: Settings) -> tuple[str, str, tuple[Seen, ...]]:
    number = (await identity.caller(aws)).account
    return number, aws.region, await look(await parts_of(aws, settings))


async def _make(aws: AWS, settings: Settings, names: set[tuple[str, str]]) -> bool:
    parts = [part for part in await parts_of(aws, settings) if (part.kind, part.name) in names]
    return await make(parts, Patience(settings.timeouts.consistency, _tell_event), _tell)


def _tell_event(event: Event) -> None:
    click.echo(event.message)


def _tell(part: Part, error: str) -> None:
    if error:
        click.echo(f"not created: {part.kind} {part.name}: {error}", err=True)
    else:
        click.echo(f"there: {part.kind} {part.name}")


def _table(title: str, seen: Iterable[Seen]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("resource", "name", "for", "costs while nothing runs", "state"):
        table.add_column(column, overflow="fold")
    for one in seen:
        table.add_row(one.part.kind, one.part.name, one.part.purpose, one.part.idle, one.state or "unknown")
    return table
