"""``starburst image build``: the image of an environment, before the cluster that needs it."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

import click

from dask_starburst.cli.pool import account_options, run
from dask_starburst.environment.hook import part
from dask_starburst.settings import ARCHITECTURES, UNSET, Settings
from dask_starburst.settings.checks import BUILDERS

_INTERRUPTED = (
    "\nInterrupted. An image gets its tag last, so none that is half-made can be found. What was made is kept: the same"
    " command goes on from there."
)
#: What shells call a program that Ctrl-C has ended.
_SIGINT = 128 + signal.SIGINT


@click.command()
@click.option("--environment", metavar="PATH", help="A lock, requirements or project file, or a folder with one.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="What has to work; the other is built if it can be.")
@click.option("--builder", type=click.Choice(BUILDERS), help="As configured: direct, which needs no Docker.")
@click.option("--base", metavar="IMAGE", help="What the image stands on; {python} is the minor version.")
@click.option("--add", multiple=True, metavar="PACKAGE", help="A package that workers need beside. Repeatable.")
@click.option("--exclude", multiple=True, metavar="NAME", help="A package that they do not need. Repeatable.")
@click.option("--dockerfile", metavar="FILE", help="With buildx: your own, which the packages are put on.")
@click.option("--apt", multiple=True, metavar="NAME", help="With buildx: a Debian package to install. Repeatable.")
@click.option("--again", is_flag=True, help="Build it although it is there.")
@account_options
def build(
    environment: str | None,
    arch: str | None,
    builder: str | None,
    base: str | None,
    add: tuple[str, ...],
    exclude: tuple[str, ...],
    dockerfile: str | None,
    apt: tuple[str, ...],
    again: bool,
    **account: str | None,
) -> None:
    """Build the image that workers run, of the packages of this Python or of a file, and push it to ECR.

    It is what StarburstCluster does before a launch: nothing is built when nothing has changed.
    """
    chosen = {"builder": builder, "base": base, "add": add or None, "exclude": exclude or None}
    chosen |= {"dockerfile": dockerfile, "apt": apt or None}
    settings = Settings.load(
        environment=environment or UNSET,
        arch=arch or UNSET,
        region=account["region"] or UNSET,
        build={name: value for name, value in chosen.items() if value is not None},
    )
    making, begun = part("image"), time.monotonic()
    try:
        reference = run(account, lambda aws: making.make(aws, settings, _say, again=again))
    except KeyboardInterrupt:
        click.echo(_INTERRUPTED, err=True)
        raise SystemExit(_SIGINT) from None
    click.echo(f"{reference}\n{time.monotonic() - begun:.1f} s in all; StarburstCluster finds it by itself.")


def _say(kind: str, subject: str, message: str, level: int = logging.INFO, **facts: Any) -> None:
    click.echo(message, err=level > logging.INFO)
