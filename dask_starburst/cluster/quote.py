"""Show what a cluster would launch and cost, before anything is launched."""

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
from dask_starburst.events.event import Event
from dask_starburst.fleet.blueprint import Blueprint, blueprint, caps_of, within_caps
from dask_starburst.fleet.pool import preflight
from dask_starburst.plan.money.idle import idle_bill
from dask_starburst.plan.money.quote import LaunchSpec, Quote, compute_quote, on_fargate
from dask_starburst.plan.requests.pool import FALLBACK_GROUPS
from dask_starburst.settings import Settings

#: The region of the prices if none is configured.
_REGION = "us-east-1"


def quote(**settings: Any) -> Quote:
    """Return what a cluster would launch and cost, without launching or creating anything.

    With credentials, prices and the account's quotas are read from AWS; without, the bundled prices are used.

    Parameters
    ----------
    **settings
        Arguments of :class:`.StarburstCluster`.

    Returns
    -------
    Quote
        Its repr is for users.

    Raises
    ------
    BadArgument
        An argument is not valid.

    Examples
    --------
    >>> quote(n_workers=10, arch="arm64")  # doctest: +SKIP
    """
    loaded = Settings.load(**settings)
    with ThreadPoolExecutor(1) as thread:  # a notebook has a running loop already
        return thread.submit(asyncio.run, preview(loaded)).result()


async def preview(settings: Settings) -> Quote:
    """Return the quote of a cluster with these settings.

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
        return await offline(planned, *facts, "no AWS credentials were found: AWS was not queried")
    try:
        return await _priced(planned, cloud, facts)
    finally:
        await cloud.close()


async def quote_in(cloud: Cloud | None, planned: Blueprint, pool: str) -> Quote:
    """Return the quote of a cluster through its own connection; `cloud` is None before the cluster starts.

    Instances that already run in its `pool` are part of the plan, and do not count twice against a quota.
    """
    return await (preview(planned.settings) if cloud is None else _priced(planned, cloud, (), pool))


async def offline(planned: Blueprint, *facts: str) -> Quote:
    """Return the quote without querying AWS: the bundled prices are used."""
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
        requested(planned),
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
    """Return the price of the same capacity on Fargate; None if the bundled list lacks the region."""
    head, worker, workers = planned.head_type, planned.worker_types[0], requested(planned).workers
    with suppress(PriceUnknown):
        return on_fargate(((1, head), (workers, worker)), fargate_rates(region, worker.arch))
    return None


@dataclass
class _Account:
    """The account's facts about a plan: quotas, refusals, and the cost of idle resources."""

    facts: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    idle: list[tuple[str, float]] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        """Collect the messages that a launch would emit about quotas."""
        self.facts.append(event.message.removesuffix("."))


async def _account(aws: AWS, planned: Blueprint, pool: str) -> _Account:
    """Read the quotas and the idle resources of the account; a denied call does not prevent a quote."""
    found, sizes = _Account(), requested(planned)
    request = planned.request(sizes.workers + sizes.spares)
    quotas = await preflight.fetch_quotas(aws, request)
    try:
        preflight.check(quotas, request, pool, found.emit)
        if not found.facts:
            found.facts.append(f"all of it fits in the account's vCPU quotas in {aws.region}")
    except QuotaExceeded as error:
        found.refusals.append(str(error))
    with suppress(StarburstError):
        rows = idle_bill(await idle_resources(aws, planned.settings.build.repository))
        found.idle = [(row.what, row.usd_per_month) for row in rows if row.usd_per_month]
    return found


def requested(planned: Blueprint) -> LaunchSpec:
    """Return the parts of a blueprint that cost something."""
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
