"""Open a connection to AWS: to an account, or to the embedded AWS."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from dask_starburst.aws.regions import check_region
from dask_starburst.aws.session import AWS
from dask_starburst.cancellation import outlast
from dask_starburst.catalog import price_table
from dask_starburst.errors import BadArgument
from dask_starburst.plan.loop.adaptive import Patience
from dask_starburst.settings import AdaptiveSettings, Settings

if TYPE_CHECKING:
    from dask_starburst.local import LocalAWS

#: The embedded AWS runs any image in its own Python environment; only the name is needed.
LOCAL_IMAGE = "dask-starburst/local"
_LOCAL_CALLER = "127.0.0.1/32"
#: The embedded AWS answers in milliseconds, so it can be polled more often than an account.
_LOCAL_POLL = 0.25
#: Its instances boot in seconds, so adaptive scaling needs no more patience than Dask's own.
_LOCAL_INTERVAL = 1.0
_LOCAL_PATIENCE = Patience(least=2.0, boot=2.0, most=10.0)


@dataclass(frozen=True, slots=True)
class Cloud:
    """A connection to AWS, and the settings completed for it."""

    aws: AWS
    settings: Settings
    local: LocalAWS | None = None
    owned: bool = False

    @property
    def simulated(self) -> bool:
        """Whether it is the embedded AWS."""
        return self.local is not None

    @property
    def patience(self) -> Patience:
        """The default patience of adaptive scaling."""
        return _LOCAL_PATIENCE if self.simulated else Patience()

    async def close(self) -> None:
        """Close the connection; stop the embedded AWS if it was started here."""
        self.aws.close()
        if self.local is None or not self.owned:
            return
        try:
            await asyncio.to_thread(self.local.stop)
        except RuntimeError:  # the interpreter is exiting and cannot start a thread any more
            self.local.stop()


def with_region(settings: Settings) -> Settings:
    """Return the settings with the region that the cluster will run in, from which all choices follow.

    It is the one of the settings, of the embedded AWS, or of the AWS configuration: environment or profile.

    Raises
    ------
    BadArgument
        No region is configured.
    LocalAWSError
        The embedded AWS at the endpoint cannot be reached.
    """
    region = region_of(settings)
    if not region:
        raise BadArgument('no AWS region is configured; give region="us-east-1", for example.')
    return replace(settings, region=region)


def region_of(settings: Settings) -> str | None:
    """Return the region that the cluster will run in; None if none is configured."""
    if settings.cloud != "local":
        return AWS(region=settings.region, profile=settings.profile).region or None
    if settings.region is None and settings.endpoint_url is not None:
        from dask_starburst.local import LocalAWS

        return LocalAWS.connect(settings.endpoint_url).region
    return settings.region or "us-east-1"


async def open_cloud(settings: Settings) -> Cloud:
    """Return a connection to the AWS that the settings specify.

    Raises
    ------
    BadArgument
        No region is configured.
    LocalAWSError
        The embedded AWS cannot be started or reached.
    """
    if settings.cloud == "local":
        opening = asyncio.ensure_future(asyncio.to_thread(_open_local, settings))
        try:
            return await outlast(opening)
        except asyncio.CancelledError:
            if opening.done() and opening.exception() is None:
                await opening.result().close()
            raise
    return Cloud(_open_account(settings), settings)


def _open_account(settings: Settings) -> AWS:
    aws = AWS(region=settings.region, profile=settings.profile, endpoint_url=settings.endpoint_url)
    if not aws.region:
        raise BadArgument('no AWS region is configured; give region="us-east-1", for example.')
    if settings.endpoint_url is None:  # another endpoint may have other regions
        _check_region(aws.region)
    aws.require_credentials()
    return aws


def _check_region(region: str) -> None:
    if not price_table(region).rates:  # this list is faster to read than botocore's data
        check_region(region)


def _open_local(settings: Settings) -> Cloud:
    from dask_starburst.local import LocalAWS

    url = settings.endpoint_url
    if settings.region is not None:
        _check_region(settings.region)
    local = LocalAWS.connect(url) if url else LocalAWS(region=settings.region or "us-east-1")
    if url is None:
        local.start()
    if settings.region not in (None, local.region):
        raise BadArgument(
            f"region={settings.region!r}, but the embedded AWS at {url} simulates {local.region}; leave region out."
        )
    aws = AWS(endpoint_url=local.endpoint_url, session=local.session())
    return Cloud(aws, _complete(settings, local), local, owned=url is None)


def _complete(settings: Settings, local: LocalAWS) -> Settings:
    """Fill in the defaults for the embedded AWS, and keep what the user chose."""
    # If instances do not have addresses of their own, schedulers on one embedded AWS need different ports.
    port = local.scheduler_port if local.aliases else _free_port()
    dashboard = settings.scheduler.dashboard_port if local.aliases else 0
    scheduler = replace(settings.scheduler, port=port, dashboard_port=dashboard)
    network = settings.network
    if network.access == "private" and network.caller is None and not network.security_groups:
        network = replace(network, caller=_LOCAL_CALLER)  # this computer has no address in its VPC
    elif network.caller is None:
        network = replace(network, checkip_url=local.private_url("checkip", "caller"))
    poll = min(settings.timeouts.poll, _LOCAL_POLL)
    return replace(
        settings,
        image=settings.image or (LOCAL_IMAGE if settings.environment is None else None),
        scheduler=scheduler,
        network=network,
        timeouts=replace(settings.timeouts, poll=poll),
        adaptive=_faster(settings.adaptive),
    )


def _faster(chosen: AdaptiveSettings) -> AdaptiveSettings:
    """Shorten the interval if it has its default value; an explicit default cannot be distinguished."""
    untouched = chosen.interval == AdaptiveSettings().interval
    return replace(chosen, interval=_LOCAL_INTERVAL) if untouched else chosen


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
