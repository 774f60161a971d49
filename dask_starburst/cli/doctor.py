"""``starburst doctor``: examine everything that a launch needs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace

import click

from dask_starburst.aws.session import AWS
from dask_starburst.cli.pool import account_options, run
from dask_starburst.errors import BadArgument, CredentialsExpired, NoCredentials
from dask_starburst.fleet.doctor import Finding, State, examine, healthy, versions
from dask_starburst.settings import UNSET, Settings

_MARKS: Mapping[State, tuple[str, str]] = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}
_WIDTH = 14


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@account_options
def doctor(as_json: bool, **account: str | None) -> None:
    """Check everything that a launch needs: credentials, rights, quotas, network, image. Nothing is changed.

    Marks: ✓ works, ! may not work or could not be checked, ✗ does not work. The exit code is 1 with a ✗.
    """
    settings = Settings.load(region=account["region"] or UNSET)
    try:
        findings = run(account, lambda aws: _examine(aws, settings))
    except (NoCredentials, CredentialsExpired, BadArgument) as error:
        findings = (Finding("credentials", "failed", str(error)), *versions(settings))
    if as_json:
        click.echo(json.dumps([asdict(each) for each in findings], indent=2))
    else:
        _show(findings)
    if not healthy(findings):
        raise SystemExit(1)


async def _examine(aws: AWS, settings: Settings) -> tuple[Finding, ...]:
    return await examine(aws, replace(settings, region=aws.region))


def _show(findings: Iterable[Finding]) -> None:
    for each in findings:
        mark, color = _MARKS[each.state]
        click.echo(f"{click.style(mark, fg=color)} {each.name:<{_WIDTH}}{each.text}")
        if each.fix:
            click.echo(f"  {'':<{_WIDTH}}→ {each.fix}")
