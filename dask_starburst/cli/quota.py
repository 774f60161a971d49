"""``starburst quota``: show vCPU quotas and their use, and request increases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.aws import service_quotas
from dask_starburst.aws.session import AWS
from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.quotas import QUOTAS, Quota, fargate_quota, quota_of
from dask_starburst.cli.pool import account_options, run
from dask_starburst.errors import BadArgument, PermissionDenied
from dask_starburst.fleet.blueprint import Blueprint, blueprint
from dask_starburst.plan.groups import MARKETS
from dask_starburst.plan.requests.quotas import Increase, Standing, number, usage
from dask_starburst.settings import UNSET, Settings

#: The times are users' experience; AWS gives none.
_HOW_LONG = (
    "AWS reviews each request: small increases are often approved within minutes, others go to AWS Support and take"
    " hours to days, and some are denied. Requests and quotas are free. The quota applies to the whole account in this"
    " region."
)

_NUMBERS = ("limit", "used", "free")


@dataclass(frozen=True)
class _Row:
    """A quota, and how many of your instances or tasks still fit: `room` of `what`, None without an example."""

    standing: Standing
    what: str | None
    room: int
    asked: Increase | None

    @property
    def words(self) -> str:
        if self.what is None:
            return "–"
        return f"{self.room:,} {self.what if self.room == 1 else self.what.replace('task', 'tasks')}"


@click.group()
def quota() -> None:
    """Show and raise the vCPU quotas of your account in a region."""


@quota.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@account_options
def status(as_json: bool, **account: str | None) -> None:
    """Show the quotas that apply to clusters: limit, current use, and how many workers still fit."""
    plan = blueprint(Settings.load(region=account["region"] or UNSET), "")
    region, rows, hidden = run(account, lambda aws: _rows(aws, plan))
    if as_json:
        click.echo(json.dumps({"region": region, "quotas": [_document(row) for row in rows]}, indent=2))
        return
    Console().print(_table(region, rows))
    for row in rows:
        if row.asked:
            click.echo(f"{row.standing.quota.label}: requested on {_day(row.asked.at)}: {row.asked}")
    kind = plan.head.types[0]
    head = quota_of(kind.name, Market.ON_DEMAND)
    if head is not None:
        click.echo(
            f"A scheduler takes {plan.head.types[0].vcpus} of {head.code} ({plan.head.types[0].name}, on demand)."
        )
    if hidden:
        click.echo(f"Requests are not shown: {hidden}")
    click.echo("To request more: starburst quota request VCPUS with --spot, --on-demand or --fargate")


@quota.command()
@click.argument("vcpus", type=click.IntRange(min=1))
@click.option("--spot", is_flag=True, help="The quota of Spot instances.")
@click.option("--on-demand", is_flag=True, help="The quota of on-demand instances. [default: that of your workers]")
@click.option("--fargate", is_flag=True, help="The quota of Fargate, with --spot of Fargate Spot.")
@click.option("--instance-type", metavar="NAME", help="The quota of this type's family. [default: your workers' type]")
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@account_options
def request(
    vcpus: int,
    spot: bool,
    on_demand: bool,
    fargate: bool,
    instance_type: str | None,
    yes: bool,
    **account: str | None,
) -> None:
    """Request a quota increase to VCPUS. This is the new total, not the amount to add."""
    if spot and on_demand:
        raise BadArgument("--spot and --on-demand are different quotas; request one at a time.")
    settings = Settings.load(region=account["region"] or UNSET)
    bought = Market.ON_DEMAND if fargate else MARKETS[settings.spot.policy][0]
    market = Market.SPOT if spot else Market.ON_DEMAND if on_demand else bought
    wanted = fargate_quota(market) if fargate else _of_instances(instance_type, settings, market)
    region, standing, asked = run(account, lambda aws: _look(aws, wanted))
    click.echo(f"{region}: {standing}")
    for one in asked:
        click.echo(f"requested on {_day(one.at)}: {one}")
    _refuse(vcpus, standing, asked)
    click.echo(_HOW_LONG)
    if not yes:
        click.confirm(f"Request {number(vcpus)} vCPUs instead of {number(standing.limit)}?", abort=True)
    made = run(account, lambda aws: service_quotas.request(aws, wanted, vcpus))
    click.echo(f"Requested {made} (request {made.id}). Check it with `starburst quota status`.")


def _of_instances(name: str | None, settings: Settings, market: Market) -> Quota:
    kind = name or blueprint(settings, "").default.types[0].name
    found = quota_of(kind, market)
    if found is None:
        raise BadArgument(
            f"no {market} quota is known for the family of {kind}; see Service Quotas in the AWS console."
        )
    return found


def _refuse(vcpus: int, standing: Standing, asked: Iterable[Increase]) -> None:
    """Raise an error for a request that AWS would reject."""
    if vcpus <= standing.limit:
        raise BadArgument(
            f"{standing.quota.code} is already {number(standing.limit)} vCPUs, and AWS accepts only requests for more;"
            " VCPUS is the new total."
        )
    waiting = next((one for one in asked if one.open), None)
    if waiting is not None:
        raise BadArgument(
            f"{number(waiting.vcpus)} vCPUs were requested on {_day(waiting.at)} ({waiting.status}), and AWS accepts"
            " one request for a quota at a time. Wait for the answer; support cases are in the AWS console."
        )


async def _look(aws: AWS, wanted: Quota) -> tuple[str, Standing, tuple[Increase, ...]]:
    limit, used, asked = await asyncio.gather(
        service_quotas.limit(aws, wanted), _used(aws, wanted.service == "fargate"), _asked(aws, wanted)
    )
    return aws.region, Standing(wanted, limit, used.get(wanted.code, 0)), asked


async def _asked(aws: AWS, wanted: Quota) -> tuple[Increase, ...]:
    try:
        return await service_quotas.requests(aws, wanted)
    except PermissionDenied:  # AWS then validates the new request itself
        return ()


async def _used(aws: AWS, fargate: bool) -> Mapping[str, float]:
    return await service_quotas.fargate_vcpus(aws) if fargate else usage(await service_quotas.running(aws))


async def _rows(aws: AWS, plan: Blueprint) -> tuple[str, list[_Row], str]:
    limits, instances, tasks, (asked, hidden) = await asyncio.gather(
        service_quotas.limits(aws, QUOTAS.values()), _used(aws, False), _used(aws, True), _all_asked(aws)
    )
    used = {**instances, **tasks}
    rows = []
    for code, one in QUOTAS.items():
        standing = Standing(one, limits[code], used.get(code, 0))
        what, vcpus = _example(one, plan)
        newest = next((each for each in asked if each.code == code), None)
        rows.append(_Row(standing, what, standing.room(vcpus), newest))
    return aws.region, rows, hidden


async def _all_asked(aws: AWS) -> tuple[tuple[Increase, ...], str]:
    try:
        return await service_quotas.all_requests(aws, sorted({one.service for one in QUOTAS.values()})), ""
    except PermissionDenied as error:
        return (), str(error)


def _example(one: Quota, plan: Blueprint) -> tuple[str | None, int]:
    """Return an instance type or task as the unit for the free vCPUs of a quota, and its vCPUs."""
    if one.service == "fargate":
        vcpus = plan.default.types[0].vcpus
        return f"task of {vcpus} vCPUs", vcpus
    mine = (kind for kind in plan.default.types if quota_of(kind.name, one.market) == one)
    kind = next(mine, None)
    return (kind.name, kind.vcpus) if kind is not None else (None, 1)


def _table(region: str, rows: Iterable[_Row]) -> Table:
    table = Table(title=f"vCPU quotas in {region}", title_justify="left")
    for column in ("quota", "code", "limit", "used", "free", "room for"):
        table.add_column(column, no_wrap=column == "code", justify="right" if column in _NUMBERS else "left")
    for row in rows:
        one = row.standing
        numbers = (number(vcpus) for vcpus in (one.limit, one.used, one.free))
        table.add_row(one.quota.label, one.quota.code, *numbers, row.words)
    return table


def _document(row: _Row) -> dict[str, Any]:
    one, asked = row.standing, row.asked
    return {
        "code": one.quota.code,
        "service": one.quota.service,
        "name": one.quota.name,
        "market": one.quota.market,
        "limit": one.limit,
        "used": one.used,
        "free": one.free,
        "room": {"what": row.what, "count": row.room} if row.what else None,
        "asked": {"vcpus": asked.vcpus, "status": asked.status, "at": asked.at} if asked else None,
    }


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d")
