"""``starburst pool warm``: start instances before the cluster that uses them."""

from __future__ import annotations

from typing import Any

import click

from dask_starburst.aws.session import AWS
from dask_starburst.cli.pool import account_options, run
from dask_starburst.errors import BadArgument
from dask_starburst.fleet.blueprint import Blueprint, blueprint
from dask_starburst.fleet.prewarm import prewarm
from dask_starburst.plan.requests.garbage import GroupFound, usd_per_hour
from dask_starburst.plan.requests.reuse import SHORTEST_WARM, Kept
from dask_starburst.settings import ARCHITECTURES, SPOT_POLICIES, UNSET, Settings, check_count, parse_duration

#: Seconds. Limits the cost of a typing error.
_LONGEST = 24 * 3600.0


@click.command()
@click.argument("workers", type=click.IntRange(min=1))
@click.option("--for", "how_long", default="1 hour", show_default=True, help="How long to keep them.")
@click.option("--arch", type=click.Choice(ARCHITECTURES), help="Architecture, as in StarburstCluster.")
@click.option("--instance-type", "instance_types", multiple=True, help="May be given more than once.")
@click.option("--spot-policy", type=click.Choice(SPOT_POLICIES), help="Purchase option of the workers' instances.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask for confirmation.")
@account_options
def warm(
    workers: int,
    how_long: str,
    arch: str | None,
    instance_types: tuple[str, ...],
    spot_policy: str | None,
    yes: bool,
    **account: str | None,
) -> None:
    """Keep WORKERS instances ready, and one for a scheduler, for the next cluster with the same settings.

    The settings are those of your Dask configuration and the options here. AWS terminates unused instances when the
    time is over.
    """
    chosen: dict[str, Any] = {
        "arch": arch or UNSET,
        "instance_types": instance_types or UNSET,
        "spot": {"policy": spot_policy or UNSET},
        "region": account["region"] or UNSET,
    }
    settings = Settings.load(**chosen)
    check_count("WORKERS", workers, settings.max_workers)
    seconds = parse_duration("--for", how_long)
    if not SHORTEST_WARM <= seconds <= _LONGEST:
        raise BadArgument(
            f"--for {how_long!r}: give between {SHORTEST_WARM:g} s and 24 hours; every instance is billed until then."
        )
    plan = blueprint(settings, "")
    if not yes:
        click.confirm(f"{_offer(plan, workers, seconds)}. Continue?", abort=True)
    name, kept = run(account, lambda aws: _warm(aws, plan, workers, seconds))
    stop = f"`starburst pool stop {name}` terminates them now"
    click.echo(f"pool {name} is warm: {kept}. AWS terminates its instances then; {stop}.")


async def _warm(aws: AWS, plan: Blueprint, workers: int, seconds: float) -> tuple[str, Kept]:
    return await prewarm(aws, plan, workers, seconds, click.echo)


def _offer(plan: Blueprint, workers: int, seconds: float) -> str:
    policy, kind, head = plan.settings.spot.policy, plan.default.types[0].name, plan.head.types[0].name
    region = plan.settings.region or "us-east-1"
    groups = (
        GroupFound("", workers, policy != "on-demand", (kind,) * workers, None, region=region),
        GroupFound("", 1, False, (head,), None, region=region),
    )
    usd = usd_per_hour(groups)
    money = "an unknown price" if usd is None else f"${usd:.4f} an hour, ${usd * seconds / 3600:.2f} at most"
    return f"{workers} {kind} ({policy}) and 1 {head} for {seconds / 3600:.3g} h: {money}"
