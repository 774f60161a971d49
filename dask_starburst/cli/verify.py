"""``starburst verify``: ask the account what only an account can tell."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import click

from dask_starburst.cli.finite import FiniteRange
from dask_starburst.cli.pool import account_options
from dask_starburst.cluster.cloud import open_cloud
from dask_starburst.settings import UNSET, Settings
from dask_starburst.verify.model import Context
from dask_starburst.verify.questions import QUESTIONS
from dask_starburst.verify.report import as_dict, as_lines
from dask_starburst.verify.run import verify as ask


@click.command()
@click.option("--max-cost", type=FiniteRange(min=0.05), required=True, help="The most it may cost (US dollars).")
@click.option("--local", is_flag=True, help="Ask the embedded AWS.")
@click.option("--report", "path", type=click.Path(dir_okay=False, path_type=Path), help="Write the report as JSON.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@account_options
def verify(max_cost: float, local: bool, path: Path | None, yes: bool, **account: str | None) -> None:
    """Launch small clusters and print what AWS answers beside what dask_starburst assumes.

    It uses two or three small instances at a time, and deletes what it has made. The report has no account numbers,
    keys, ids or addresses, so it can be attached to a bug report. Exits with 1 if an answer is not as assumed, or
    none is known.
    """
    if not yes and not local:
        click.confirm(f"Launch small clusters for at most ${max_cost:.2f}?", abort=True)
    report = asyncio.run(_verify(max_cost, local, account))
    click.echo("\n".join(as_lines(report)))
    if path is not None:
        path.write_text(json.dumps(report, indent=2), encoding="utf-8")
    verdicts = [answer["as_assumed"] for answer in report["answers"]]
    if False in verdicts or True not in verdicts:
        raise SystemExit(1)


async def _verify(max_cost: float, local: bool, account: dict[str, str | None]) -> dict[str, Any]:
    where = {name: value for name, value in account.items() if value is not None}
    if local:
        where["cloud"] = "local"
    cloud = await open_cloud(Settings.load(**{name: where.get(name, UNSET) for name in (*account, "cloud")}))
    if cloud.local is not None:
        where["endpoint_url"] = cloud.local.endpoint_url
    context = Context(cloud.aws, where, max_cost, lambda text: click.echo(text, err=True))
    try:
        context.simulated = cloud.simulated
        return as_dict(context, await ask(context, QUESTIONS))
    finally:
        await cloud.close()
