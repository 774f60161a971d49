"""``starburst image build``: build the image of an environment before the first launch."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

import click

from dask_starburst.cli.pool import account_options, run
from dask_starburst.environment.hook import import_image_module
from dask_starburst.events.event import Event
from dask_starburst.settings import ARCHITECTURES, BUILDERS, UNSET, Settings

_INTERRUPTED = (
    "\nInterrupted. An image is tagged last, so an incomplete one is never found. Finished layers are kept: run the"
    " same command to continue."
)
#: The shell's exit status after Ctrl-C.
_SIGINT = 128 + signal.SIGINT


@click.command()
@click.option("--environment", metavar="PATH", help="A lock, requirements or project file, or a folder with one.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="The required one; the other is built if possible.")
@click.option("--builder", type=click.Choice(BUILDERS), help="As configured: direct, which needs no Docker.")
@click.option("--base", metavar="IMAGE", help="The base image; {python} is the minor version.")
@click.option("--add", multiple=True, metavar="PACKAGE", help="A further package for workers. Repeatable.")
@click.option("--exclude", multiple=True, metavar="NAME", help="A package to leave out. Repeatable.")
@click.option("--dockerfile", metavar="FILE", help="With buildx: your Dockerfile to build on.")
@click.option("--apt", multiple=True, metavar="NAME", help="With buildx: a Debian package to install. Repeatable.")
@click.option("--again", "rebuild", is_flag=True, help="Build it even if it exists.")
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
    rebuild: bool,
    **account: str | None,
) -> None:
    """Build the worker image from the packages of this Python or of a file, and push it to ECR.

    StarburstCluster does the same before a launch. Nothing is built if nothing has changed.
    """
    how = {"builder": builder, "base": base, "add": add or None, "exclude": exclude or None}
    how |= {"dockerfile": dockerfile, "apt": apt or None}
    chosen: dict[str, Any] = {
        "environment": environment or UNSET,
        "arch": arch or UNSET,
        "region": account["region"] or UNSET,
        "build": {name: value for name, value in how.items() if value is not None},
    }
    settings = Settings.load(**chosen)
    image_module, begun = import_image_module("image"), time.monotonic()
    try:
        reference = run(account, lambda aws: image_module.find_or_build(aws, settings, _say, rebuild=rebuild))
    except KeyboardInterrupt:
        click.echo(_INTERRUPTED, err=True)
        raise SystemExit(_SIGINT) from None
    click.echo(f"{reference}\n{time.monotonic() - begun:.1f} s in total; StarburstCluster uses it at the next launch.")


def _say(event: Event) -> None:
    click.echo(event.message, err=event.level > logging.INFO)
