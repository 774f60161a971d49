"""``starburst``, also as ``dask starburst``: what can be done from a terminal."""

from __future__ import annotations

from typing import Any

import click

from dask_starburst.cli.advise import advise
from dask_starburst.cli.build import build
from dask_starburst.cli.cost import cost
from dask_starburst.cli.demo import demo
from dask_starburst.cli.image import image
from dask_starburst.cli.local import local
from dask_starburst.cli.plan import plan
from dask_starburst.cli.pool import gc, pool
from dask_starburst.cli.prices import prices
from dask_starburst.cli.quota import quota
from dask_starburst.cli.status import status
from dask_starburst.cli.warm import warm
from dask_starburst.errors import StarburstError


class _Sentences(click.Group):
    """Shows our own errors as the sentences that they are, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except StarburstError as error:
            raise click.ClickException(f"{type(error).__name__}: {error}") from error


# Dask adds the group to its own command line by this name.
@click.group("starburst", cls=_Sentences, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dask-starburst", prog_name="starburst")
def main() -> None:
    """Dask clusters in your own AWS account, and an AWS on this computer to try them on."""


main.add_command(advise)
main.add_command(cost)
main.add_command(demo)
main.add_command(gc)
main.add_command(image)
main.add_command(local)
main.add_command(plan)
main.add_command(pool)
main.add_command(status)
main.add_command(prices)
main.add_command(quota)
image.add_command(build)
pool.add_command(warm)
