"""The cost of a launch, as a table."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from dask_starburst.plan.money.quote import Quote, hedge, sentences


def as_renderable(quote: Quote) -> RenderableType:
    """Return a quote for a terminal."""
    table = Table(title=f"Quote for a launch in {quote.where}", title_justify="left", show_footer=True)
    table.add_column("", footer="an hour")
    table.add_column("count", justify="right")
    table.add_column("what", footer=hedge(quote))
    table.add_column("USD an hour", justify="right", footer=f"${quote.usd_per_hour:.4f}")
    for line in quote.lines:
        table.add_row(line.what, str(line.count), line.kind, f"${line.usd:.4f}")
    return Group(table, *(Text(f"- {sentence}") for sentence in sentences(quote)))
