"""The command line ``starburst``, also available as ``dask starburst``.

Dask imports this module for every `dask` command, so it imports very little; `tests/test_imports.py` checks this.
"""

from __future__ import annotations

from typing import Any

import click

from dask_starburst.cli.lazy import LazyGroup
from dask_starburst.errors import StarburstError

#: The import path of each command, and the first sentence of its help.
_COMMANDS = {
    "advise": (
        "dask_starburst.cli.advise:advise",
        "Rank the instance types that fit a worker by price, price per core, interruptions or measured time.",
    ),
    "cost": ("dask_starburst.cli.cost:cost", "Show the cost of your clusters."),
    "demo": (
        "dask_starburst.demo.command:demo",
        "Launch a cluster on the embedded AWS, run a job, check the results and clean up.",
    ),
    "doctor": (
        "dask_starburst.cli.doctor:doctor",
        "Check everything that a launch needs: credentials, rights, quotas, network, image. Nothing is changed.",
    ),
    "gc": (
        "dask_starburst.cli.pool:gc",
        "List leftover resources that no cluster uses; delete them with --delete.",
    ),
    "image": (
        "dask_starburst.cli.image:image",
        "Manage the worker images in your account's ECR.",
    ),
    "local": (
        "dask_starburst.cli.local:local",
        "An AWS on this computer: no account, no cost, real Dask processes.",
    ),
    "plan": (
        "dask_starburst.cli.plan:plan",
        "Show what a cluster would launch, its hourly cost and its cost caps.",
    ),
    "policy": (
        "dask_starburst.cli.policy:policy",
        "Print the IAM policies that administrators, users and roles need.",
    ),
    "pool": (
        "dask_starburst.cli.pool:pool",
        "Manage the pools of your account: ECS clusters with their Auto Scaling groups, reused by Dask clusters.",
    ),
    "prices": (
        "dask_starburst.cli.prices:prices",
        "Show the hourly prices of instance types in a region, with the source and date of each price.",
    ),
    "quota": (
        "dask_starburst.cli.quota:quota",
        "Show and raise the vCPU quotas of your account in a region.",
    ),
    "setup": (
        "dask_starburst.cli.setup:setup",
        "Create what all clusters of an account share: roles, instance profile, log group, security group.",
    ),
    "status": (
        "dask_starburst.cli.status:status",
        "Show what runs in the region and its hourly cost, and the cost of stored resources while nothing runs.",
    ),
    "teardown": (
        "dask_starburst.cli.teardown:teardown",
        "List everything of starburst in the account and region with its cost, ask, and remove it.",
    ),
    "verify": (
        "dask_starburst.cli.verify:verify",
        "Launch small clusters and print what AWS answers beside what dask_starburst assumes.",
    ),
}


class _Sentences(LazyGroup):
    """Prints errors of this package without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StarburstError as error:
            raise click.ClickException(f"{type(error).__name__}: {error}") from error


# Dask adds the group to its command line under this name.
@click.group("starburst", cls=_Sentences, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask-starburst", prog_name="starburst")
def main() -> None:
    """Dask clusters in your AWS account, and an embedded AWS on this computer to test them."""
