"""``starburst prices``: hourly prices of instance types, with their source and date."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import click
from rich.console import Console
from rich.table import Table

from dask_starburst.aws.session import AWS
from dask_starburst.catalog import InstanceType, Price, catalogue, find
from dask_starburst.cli.pool import account_options
from dask_starburst.cost.price_book import PriceBook
from dask_starburst.errors import BadArgument, PriceUnknown, StarburstError

_HOME = "us-east-1"
#: Below this width the table has no padding.
_WIDE = 100


@dataclass(frozen=True, slots=True)
class _Line:
    """A type with its prices, or the reason why they are unknown."""

    type: InstanceType
    on_demand: Price | None
    spot: Price | None
    trouble: str = ""


@click.command()
@click.argument("types", nargs=-1, metavar="[TYPE]...")
@click.option("--spot", is_flag=True, help="Also show Spot prices, of the most expensive zone.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@account_options
def prices(types: tuple[str, ...], spot: bool, as_json: bool, **account: str | None) -> None:
    """Show the hourly prices of instance types in a region, with the source and date of each price.

    TYPE is a type or a family: c7g.xlarge or c7g. Without TYPE, show all types that have a price. With credentials the
    prices come from AWS (pricing:GetProducts, with --spot ec2:DescribeSpotPriceHistory), else from the bundled list.
    """
    chosen = _chosen(types)
    book, note = asyncio.run(_book(account, [kind.name for kind in chosen], spot))
    lines = [_line(book, kind, spot) for kind in chosen]
    unknown = [line for line in lines if line.on_demand is None]
    if len(unknown) == len(lines) and not types:
        book.on_demand(chosen[0].name)  # an unknown region: raise the error that lists the known ones
    if as_json:
        click.echo(json.dumps([_plain(line, book.region) for line in lines if types or line.on_demand], indent=2))
    else:
        known = [line for line in lines if line.on_demand is not None]
        if known:
            console = Console()
            console.print(_table(known, book.region, spot, narrow=console.width < _WIDE))
        _explain(known, unknown, note, named=bool(types))
    if types and unknown:
        raise SystemExit(1)


def _chosen(words: tuple[str, ...]) -> list[InstanceType]:
    """Return the types of the arguments without duplicates.

    Raises
    ------
    BadArgument
        An argument is neither a type nor a family.
    """
    known = catalogue()
    if not words:
        return list(known.values())
    families = {each.family for each in known.values()}
    found: dict[str, InstanceType] = {}
    for word in words:
        of_family = [each for each in known.values() if each.family == word] if word in families else [find(word)]
        found.update({each.name: each for each in of_family})
    return list(found.values())


async def _book(account: Mapping[str, str | None], types: list[str], spot: bool) -> tuple[PriceBook, str]:
    """Return the best available prices, and a note about what is missing."""
    try:
        aws = AWS(**account)
    except BadArgument as error:
        if account.get("profile"):
            raise
        return PriceBook(account.get("region") or _HOME), str(error)
    try:
        region, note = (
            aws.region or _HOME,
            "" if aws.region else f"no AWS region is configured; these are the prices in {_HOME}.",
        )
        book = PriceBook(region)
        try:
            aws.require_credentials()
        except StarburstError as error:
            return book, f"{note} No live prices: {str(error).partition('. ')[0]}.".strip()
        if aws.region:
            await book.refresh(aws, types, [], spot=spot)
        return book, note
    finally:
        aws.close()


def _line(book: PriceBook, kind: InstanceType, spot: bool) -> _Line:
    try:
        return _Line(kind, book.on_demand(kind.name), book.spot(kind.name) if spot else None)
    except PriceUnknown as error:
        return _Line(kind, None, None, str(error))


def _plain(line: _Line, region: str) -> dict[str, object]:
    about = asdict(line.type)
    about.pop("units")
    prices = {"on_demand": line.on_demand and asdict(line.on_demand), "spot": line.spot and asdict(line.spot)}
    return {**about, "region": region, **prices, **({"error": line.trouble} if line.trouble else {})}


def _table(lines: list[_Line], region: str, spot: bool, *, narrow: bool) -> Table:
    title = f"USD an hour in {region}, Linux, without tax and discounts"
    table = Table(title=title, title_justify="left", padding=0 if narrow else (0, 1))
    gpus = any(line.type.gpus for line in lines)
    # In a narrow terminal the source folds below its date, and no number is cut.
    table.add_column("type", no_wrap=True)
    for name in ("vCPU", "GiB", *(["GPU"] if gpus else [])):
        table.add_column(name, justify="right", no_wrap=name != "GPU")
    for money in ("$", "Spot $") if spot else ("$",):
        table.add_column(money, justify="right", no_wrap=True)
        table.add_column("from", min_width=10)
    for line in lines:
        kind = line.type
        model = f"{kind.gpus}×{kind.gpu_name}" if kind.gpus else ""
        costs = [price for price in (line.on_demand, line.spot) if price is not None]
        cells = [cell for price in costs for cell in (_usd(price), f"{price.date} {price.kind}")]
        table.add_row(kind.name, str(kind.vcpus), f"{kind.memory_mib / 1024:g}", *([model] if gpus else []), *cells)
    return table


def _usd(price: Price) -> str:
    return f"{price.usd_per_hour:.5f}".rstrip("0")


def _explain(known: list[_Line], unknown: list[_Line], note: str, *, named: bool) -> None:
    """Print the source of the prices in a table, each once, with why there is no better one."""
    for price in dict.fromkeys(
        (price.kind, price.source if price.kind != "assumed" else "", price.why)
        for line in known
        for price in (line.on_demand, line.spot)
        if price is not None
    ):
        kind, source, why = price
        words = source or "Spot estimated from on demand by the family's published savings, or the on-demand price"
        click.echo(f"{kind}: {words}" + (f" ({why})" if why else ""))
    if note:
        click.echo(note)
    if named:
        for line in unknown:
            click.echo(line.trouble, err=True)
    elif unknown:
        click.echo(f"{len(unknown)} more types have no price: they are not available in the region, or too new.")
