"""Show what a cluster would launch and cost, before anything is launched."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Unpack

from dask_starburst.aws.session import AWS
from dask_starburst.catalog import Price, fargate_rates
from dask_starburst.catalog.markets import Market
from dask_starburst.cluster.cloud import Cloud, open_cloud, region_of
from dask_starburst.cost.idle_resources import idle_resources
from dask_starburst.cost.ledger import Ledger
from dask_starburst.cost.price_book import PriceBook
from dask_starburst.errors import BudgetExceeded, NoCredentials, PriceUnknown, QuotaExceeded, StarburstError
from dask_starburst.events.event import Event
from dask_starburst.fleet.blueprint import Blueprint, blueprint, caps_of, within_caps
from dask_starburst.fleet.pool import preflight
from dask_starburst.plan.money.idle import idle_bill
from dask_starburst.plan.money.quote import GroupSpec, LaunchSpec, Quote, compute_quote, on_fargate
from dask_starburst.settings import Arguments, Settings, shows_settings

#: The region of the prices if none is configured.
_REGION = "us-east-1"


@shows_settings
def quote(**settings: Unpack[Arguments]) -> Quote:
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
    region = region_of(settings)
    if region is None:
        facts = (f"no AWS region is configured: the prices are those of {_REGION}",)
    settings = replace(settings, region=region or _REGION)
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
            (kind, market): book.spot(kind) if market is Market.SPOT else book.on_demand(kind)
            for kind in planned.types
            for market in Market
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
    head, counts = planned.head.types[0], {group.name: group.workers for group in requested(planned).groups}
    workers = [(counts[group.name], group.types[0]) for group in planned.groups]
    with suppress(PriceUnknown):
        return on_fargate([(1, head), *workers], fargate_rates(region, planned.default.arch))
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
    found = _Account()
    requests = planned.requests({group.name: group.workers + group.spares for group in requested(planned).groups})
    quotas = await preflight.fetch_quotas(aws, requests)
    try:
        preflight.check(quotas, requests, pool, found.emit)
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
    groups = []
    for group in planned.groups:
        spares = settings.keep.warm if group is planned.default else 0
        adaptive = settings.groups[group.name].n_workers is None
        workers = settings.most_workers(group.name)
        groups.append(GroupSpec(group.name, group.type_names, group.markets, workers, adaptive, spares))
    return LaunchSpec(planned.head.types[0].name, tuple(groups), settings.storage.volume_size)
