"""``starburst advise``: rank instance types for a worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import click
from dask.utils import parse_bytes
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from dask_starburst.aws.session import AWS
from dask_starburst.catalog import catalogue, sources
from dask_starburst.catalog.markets import Market
from dask_starburst.cli.pool import account_options
from dask_starburst.cost.price_book import PriceBook
from dask_starburst.errors import BadArgument, PriceUnknown, StarburstError
from dask_starburst.plan.money import advice
from dask_starburst.plan.money.advice import Candidate, Measured, Need, Sort

_HOME = "us-east-1"
_ANY = "any"
#: Below this width the table has no padding.
_WIDE = 100


@click.command()
@click.option("--vcpus", type=click.IntRange(min=1), default=4, show_default=True, help="Threads per worker.")
@click.option("--memory", default="7 GiB", show_default=True, help="Memory per worker.")
@click.option("--arch", type=click.Choice(["arm64", "x86_64", _ANY]), default=_ANY, show_default=True)
@click.option("--spot/--on-demand", default=True, help="Market of the price.", show_default=True)
@click.option("--gpu", is_flag=True, help="Only types with GPUs, for comparison.")
@click.option("--sort", type=click.Choice(get_args(Sort)), default="price", show_default=True)
@click.option("--top", type=click.IntRange(min=1), default=15, show_default=True, help="Number of types to show.")
@click.option(
    "--results", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="JSON file with benchmark results."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@account_options
def advise(
    vcpus: int,
    memory: str,
    arch: str,
    spot: bool,
    gpu: bool,
    sort: Sort,
    top: int,
    results: Path | None,
    as_json: bool,
    **account: str | None,
) -> None:
    """Rank the instance types that fit a worker by price, price per core, interruptions or measured time.

    With credentials the prices come from AWS, else from the bundled list. RESULTS is a JSON list of objects with
    "type", "seconds" and "date": the time of the same work on each type.
    """
    need = Need(vcpus, _bytes(memory), None if arch == _ANY else arch, gpu)
    types = advice.fitting(need, catalogue().values())
    if not types:
        raise BadArgument(
            f"no instance type fits a worker with {vcpus} threads and {memory}; reduce --vcpus or --memory."
        )
    book = asyncio.run(book_of(account, [kind.name for kind in types]))
    measured = read_results(results) if results is not None else {}
    found = candidates(book, need, Market.SPOT if spot else Market.ON_DEMAND, measured)
    if sort == "measured" and not any(one.measured for one in found):
        raise BadArgument("--sort measured: no fitting type was measured; give --results that contain one.")
    ranked = advice.rank(found, sort)[:top]
    if as_json:
        click.echo(json.dumps([plain(one) for one in ranked], indent=2))
        return
    console = Console()
    console.print(as_renderable(ranked, book.region, sort, narrow=console.width < _WIDE))
    if gpu:
        click.echo("- For comparison only: clusters do not launch types with accelerators yet.")
    if missing := sorted(measured.keys() - {one.type.name for one in ranked}):
        click.echo(f"- Measured, but not listed: {', '.join(missing)}.")


def candidates(book: PriceBook, need: Need, market: Market, measured: Mapping[str, Measured]) -> list[Candidate]:
    """Return the types that fit, with their prices and measurements.

    Raises
    ------
    PriceUnknown
        No type has a price in the region.
    """
    found, trouble = [], None
    for kind in advice.fitting(need, catalogue().values()):
        try:
            on_demand, spot = book.on_demand(kind.name), book.spot(kind.name)
        except PriceUnknown as error:
            trouble = error  # probably not available in the region
            continue
        found.append(Candidate(kind, on_demand, spot, market, advice.band(kind), measured.get(kind.name)))
    if not found and trouble is not None:
        raise trouble
    return found


async def book_of(account: Mapping[str, str | None], types: list[str]) -> PriceBook:
    """Return the best available prices."""
    aws = AWS(**account)
    book = PriceBook(aws.region or _HOME)
    try:
        aws.require_credentials()
        if aws.region:
            await book.refresh(aws, types, ())
    except StarburstError:
        pass  # each price names its source
    finally:
        aws.close()
    return book


def read_results(path: Path) -> dict[str, Measured]:
    """Read the results of a benchmark.

    Raises
    ------
    BadArgument
        The file is not a list of objects with a type and seconds.
    """
    try:
        rows = json.loads(path.read_text("utf-8"))
        found = {row["type"]: Measured(float(row["seconds"]), str(row.get("date", ""))) for row in rows}
        if not all(0 < one.seconds < float("inf") for one in found.values()):
            raise ValueError("seconds must be above zero")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadArgument(
            f'--results {path}: {error!r}; give a JSON list such as [{{"type": "c7g.xlarge", "seconds": 61.2, "date":'
            ' "2026-11-26"}].'
        ) from None


def as_renderable(ranked: list[Candidate], region: str, sort: Sort, *, narrow: bool = False) -> RenderableType:
    """Render the ranking for a terminal."""
    title = f"Instance types for this worker in {region}, by {sort}; USD an hour"
    table = Table(title=title, title_justify="left", padding=0 if narrow else (0, 1))
    measured = any(one.measured for one in ranked)
    # Both do not fit in 100 columns; --json has all.
    rates = ("measured",) if measured else ("a core", "a GiB")
    interrupted = "intr." if narrow else "interrupted"
    for title in ("type", "vCPU", "cores", "GiB", "on demand", "Spot", *rates, interrupted):
        table.add_column(title, justify="left" if title == "type" else "right", no_wrap=True)
    for one in ranked:
        table.add_row(*_cells(one, measured=measured))
    market = ranked[0].market.words
    worst = sources(one.price for one in ranked if one.price is not None)
    said = [advice.why(ranked[0], sort), *([f"Prices ({market}): {worst}"] if worst else [])]
    return Group(table, *(Text(f"- {sentence}.") for sentence in (*said, *advice.warnings(ranked))))


def plain(one: Candidate) -> dict[str, Any]:
    """Return a candidate as JSON-compatible values."""
    assert one.on_demand is not None
    assert one.spot is not None
    return {
        "type": one.type.name,
        "arch": one.type.arch,
        "vcpus": one.type.vcpus,
        "cores": one.type.cores,
        "memory_mib": one.type.memory_mib,
        "on_demand_usd": one.on_demand.usd_per_hour,
        "spot_usd": one.spot.usd_per_hour,
        "spot_kind": one.spot.kind,
        "spot_published": not one.spot_unpublished,
        "usd_per_core_hour": one.usd_per_core,
        "usd_per_gib_hour": one.usd_per_gib,
        "interruptions_percent": one.band,
        "measured_seconds": one.measured.seconds if one.measured else None,
        "burstable": one.type.burstable,
    }


def _cells(one: Candidate, *, measured: bool) -> list[str]:
    def usd(price: Any) -> str:
        return f"${price.usd_per_hour:.4f}"

    mark = "≤" if one.spot_unpublished else "~" if one.spot is not None and one.spot.assumed else ""
    return [
        f"{one.type.name}{' *' if one.type.burstable else ''}",
        str(one.type.vcpus),
        str(one.type.cores),
        f"{one.type.memory_mib / 1024:g}",
        usd(one.on_demand),
        f"{mark}{usd(one.spot)}",
        *([_run(one)] if measured else [f"${one.usd_per_core:.4f}", f"${one.usd_per_gib:.4f}"]),
        advice.band_text(one.band),
    ]


def _run(one: Candidate) -> str:
    return f"{one.measured.seconds:,.1f} s, ${one.usd_per_run:.4f}" if one.measured else "–"


def _bytes(text: str) -> int:
    try:
        return int(parse_bytes(text))
    except (ValueError, TypeError):
        raise BadArgument(f"--memory {text!r} is not a size; give one such as '8 GiB'.") from None
