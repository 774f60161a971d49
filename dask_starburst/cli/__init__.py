"""``starburst``, also as ``dask starburst``: what can be done from a terminal.

Dask imports this module whenever `dask` is typed, so it imports next to nothing; `tests/test_imports.py` holds it to
that.
"""

from __future__ import annotations

from typing import Any

import click

from dask_starburst.cli.lazy import LazyGroup
from dask_starburst.errors import StarburstError

#: Where each command is, and the first sentence of its help.
_COMMANDS = {
    "advise": (
        "dask_starburst.cli.advise:advise",
        "Rank the instance types that hold a worker: by price, by core, by interruptions, by what was measured.",
    ),
    "cost": ("dask_starburst.cli.cost:cost", "What your clusters have cost."),
    "demo": (
        "dask_starburst.demo.command:demo",
        "Launch a cluster on the embedded AWS, compute, check the answers, and leave nothing running.",
    ),
    "gc": (
        "dask_starburst.cli.pool:gc",
        "List what clusters have left behind and no cluster uses; delete it with --delete.",
    ),
    "image": (
        "dask_starburst.cli.image:image",
        "The images of workers that are kept in your account's ECR.",
    ),
    "local": (
        "dask_starburst.cli.local:local",
        "An AWS on this computer: no account, no cost, real Dask processes.",
    ),
    "plan": (
        "dask_starburst.cli.plan:plan",
        "Show what a cluster would be launched as, at what price an hour, within which caps.",
    ),
    "pool": (
        "dask_starburst.cli.pool:pool",
        "The pools of your account: an ECS cluster with its Auto Scaling groups, kept for the next Dask cluster.",
    ),
    "prices": (
        "dask_starburst.cli.prices:prices",
        "Show what instance types cost an hour in a region, with the source and date of each price.",
    ),
    "quota": (
        "dask_starburst.cli.quota:quota",
        "The vCPU quotas of your account: what may run in a region at the same time, whoever launches it.",
    ),
    "status": (
        "dask_starburst.cli.status:status",
        "Show what runs in the region and what that costs an hour, and the idle bill: all that costs when nothing"
        " runs.",
    ),
}


class _Sentences(LazyGroup):
    """Shows our own errors as the sentences that they are, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StarburstError as error:
            raise click.ClickException(f"{type(error).__name__}: {error}") from error


# Dask adds the group to its own command line by this name.
@click.group("starburst", cls=_Sentences, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask-starburst", prog_name="starburst")
def main() -> None:
    """Dask clusters in your own AWS account, and an AWS on this computer to try them on."""
