"""What a cluster would be launched as and cost: asked before anything is launched."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from dask_starburst.aws.session import AWS
from dask_starburst.catalog import Price, fargate_rates
from dask_starburst.cluster.cloud import Cloud, has_region, open_cloud
from dask_starburst.cost.idle_resources import idle_resources
from dask_starburst.cost.ledger import Ledger
from dask_starburst.cost.price_book import PriceBook
from dask_starburst.errors import BudgetExceeded, NoCredentials, PriceUnknown, QuotaExceeded, StarburstError
from dask_starburst.fleet.blueprint import Blueprint, blueprint, caps_of, within_caps
from dask_starburst.fleet.pool import preflight
from dask_starburst.plan.money.idle import idle_bill
from dask_starburst.plan.money.quote import LaunchSpec, Quote, compute_quote, on_fargate
from dask_starburst.plan.requests.pool import FALLBACK_GROUPS
from dask_starburst.settings import Settings

#: Where prices are from when no region is configured, and nobody can be asked.
_REGION = "us-east-1"


def quote(**settings: Any) -> Quote:
    """Say what a cluster would be launched as and cost; nothing is launched, nothing is made.

    With credentials AWS is asked for its prices and for what the account may have; without, what is bundled counts.

    Parameters
    ----------
    **settings
        Arguments of :class:`.StarburstCluster`.

    Returns
    -------
    Quote
        Its repr is for people.

    Raises
    ------
    BadArgument
        Some argument is wrong.

    Examples
    --------
    >>> quote(n_workers=10, arch="arm64")  # doctest: +SKIP
    """
    loaded = Settings.load(**settings)
    with ThreadPoolExecutor(1) as thread:  # a notebook's own loop runs already
        return thread.submit(asyncio.run, preview(loaded)).result()


async def preview(settings: Settings) -> Quote:
    """Return what a cluster of these settings would cost.

    Raises
    ------
    BadArgument
        An instance type is unknown, of the wrong architecture or too small for the worker.
    """
    facts: tuple[str, ...] = ()
    if not has_region(settings):
        settings = replace(settings, region=_REGION)
        facts = (f"no AWS region is configured: the prices are those of {_REGION}",)
    planned = blueprint(settings, "")
    try:
        cloud = await open_cloud(settings)
    except NoCredentials:
        return await offline(planned, *facts, "no AWS credentials here: nothing was asked of AWS")
    try:
        return await _priced(planned, cloud, facts)
    finally:
        await cloud.close()


async def quote_in(cloud: Cloud | None, planned: Blueprint, pool: str) -> Quote:
    """Return the same for a cluster in its own cloud; None: before it has begun to start.

    What runs in its `pool` already is part of the plan, and does not count twice against a quota.
    """
    return await (preview(planned.settings) if cloud is None else _priced(planned, cloud, (), pool))


async def offline(planned: Blueprint, *facts: str) -> Quote:
    """Return the same with nobody asked: bundled prices count."""
    return await _priced(planned, None, facts)


async def _priced(planned: Blueprint, cloud: Cloud | None, facts: tuple[str, ...], pool: str = "") -> Quote:
    settings = planned.settings
    region = cloud.aws.region if cloud is not None else settings.region or _REGION
    book = PriceBook(region)
    if cloud is not None:
        await book.refresh(cloud.aws, planned.types, ())
    ledger = Ledger(book, settings.storage.volume_size, types=planned.types)
    caps, refusals = caps_of(settings), []
    try:
        planned = within_caps(planned, caps, ledger.rates())
    except BudgetExceeded as error:
        refusals.append(str(error))
    account = await _account(cloud.aws, planned, pool) if cloud is not None else _Account()
    return compute_quote(
        f"the embedded AWS, {region}" if cloud is not None and cloud.simulated else region,
        wanted(planned),
        {
            (kind, market): book.spot(kind) if market == "spot" else book.on_demand(kind)
            for kind in planned.types
            for market in ("spot", "on-demand")
        },
        caps=caps,
        facts=(*facts, *account.facts),
        refusal=" ".join([*refusals, *account.refusals]),
        idle=account.idle,
        simulated=cloud is not None and cloud.simulated,
        fargate=_fargate(planned, region),
    )


def _fargate(planned: Blueprint, region: str) -> Price | None:
    """Say what Fargate would charge for as much; None where the bundled list has nothing."""
    head, worker, workers = planned.head_type, planned.worker_types[0], wanted(planned).workers
    with suppress(PriceUnknown):
        return on_fargate(((1, head), (workers, worker)), fargate_rates(region, worker.arch))
    return None


@dataclass
class _Account:
    """What an account says of a plan."""

    facts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    idle: list[tuple[str, float]] = field(default_factory=list)

    def tell(self, kind: str, subject: str, message: str, level: int = 0, **facts: Any) -> None:
        """Hear what a launch would tell of quotas."""
        self.facts.append(message.removesuffix("."))


async def _account(aws: AWS, planned: Blueprint, pool: str) -> _Account:
    """Ask for the quotas, and for what is kept when nothing runs; who is denied that gets a plan all the same."""
    found, asked = _Account(), wanted(planned)
    request = planned.request(asked.workers + asked.spares)
    quotas = await preflight.look(aws, request)
    try:
        preflight.check(quotas, request, pool, found.tell)
        if not found.facts:
            found.facts.append(f"all of it fits in the account's vCPU quotas in {aws.region}")
    except QuotaExceeded as error:
        found.refusals.append(str(error))
    with suppress(StarburstError):
        rows = idle_bill(await idle_resources(aws, planned.settings.build.repository))
        found.idle = [(row.what, row.usd_per_month) for row in rows if row.usd_per_month]
    return found


def wanted(planned: Blueprint) -> LaunchSpec:
    """Return what a blueprint asks for, as far as it costs something."""
    settings = planned.settings
    return LaunchSpec(
        head=planned.head_type.name,
        types=tuple(t.name for t in planned.worker_types),
        workers=settings.adaptive.maximum if settings.n_workers is None else settings.n_workers,
        groups=FALLBACK_GROUPS[settings.spot_policy],
        adaptive=settings.n_workers is None,
        spares=settings.warm,
        volume_gb=settings.storage.volume_size,
    )
