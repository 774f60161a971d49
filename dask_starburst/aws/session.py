"""The AWS client: every call goes through ``await aws.call(...)``."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from email.utils import parsedate_to_datetime
from functools import cache
from threading import Lock
from typing import Any, cast
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, NoCredentialsError
from botocore.loaders import Loader, create_loader

from dask_starburst.aws import credentials
from dask_starburst.aws.addresses import past_proxies
from dask_starburst.aws.client_errors import explained
from dask_starburst.errors import StarburstError
from dask_starburst.plan.requests.rate_limits import LIMITS, Level, bucket_of, take

#: botocore's own retries: throttling, 5xx, lost connections (design §7).
_RETRIES = {"mode": "standard", "max_attempts": 6}
_HURRIED = {"mode": "standard", "total_max_attempts": 2}
#: Domain suffixes of AWS's endpoints, including private ones in a VPC.
_OWN_HOSTS = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws", ".api.amazonwebservices.com.cn")
#: Concurrent calls.
_THREADS = 16
#: Global services and their regions by partition; the embedded AWS answers for all regions at one URL. GovCloud has no
#: price list of its own, and its accounts cannot read the other ones (AWS GovCloud User Guide, "Services").
_HOMES = {"pricing": {"aws": "us-east-1", "aws-cn": "cn-northwest-1"}}
#: Keys of the next page: ECS and SSM, Auto Scaling and EC2, IAM.
_NEXT = ("nextToken", "NextToken", "Marker")
#: IAM's service prefix if it differs from boto3's name.
_IN_IAM = {"service-quotas": "servicequotas"}


def _session(region: str | None, profile: str | None) -> boto3.Session:
    """Return a boto3 session that uses the data loader shared by the process."""
    core = botocore.session.Session(profile=profile)
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    return boto3.Session(region_name=region, profile_name=profile, botocore_session=core)


def _retrieve(call: asyncio.Future[Any]) -> None:
    if not call.cancelled():
        call.exception()


@cache
def _loader(path: str | None) -> Loader:
    """Return a caching loader of service models; EC2's alone takes a second to load."""
    return create_loader(path)


class AWS:
    """Calls AWS from asyncio within AWS's rate limits, counts the calls and tracks AWS's clock.

    Parameters
    ----------
    region, profile : str, optional
        As in the AWS configuration; None for the default.
    endpoint_url : str, optional
        Another endpoint than AWS's own, such as the embedded AWS.
    session : boto3.Session, optional
        A session with its own credentials and region, in place of the configured ones.

    Attributes
    ----------
    credentials_pause : float
        Minimum seconds between reloads of credentials that AWS refuses.

    Raises
    ------
    BadArgument
        The profile does not exist, or no region is configured.
    """

    def __init__(
        self,
        *,
        region: str | None = None,
        profile: str | None = None,
        endpoint_url: str | None = None,
        session: boto3.Session | None = None,
    ) -> None:
        self._configured = None if session is not None else (region, profile)
        self._session = self._with_events(session)
        self._renewed, self.credentials_pause = time.monotonic(), 5.0
        self.endpoint_url = endpoint_url
        self.calls: Counter[str] = Counter()
        direct = past_proxies(endpoint_url or os.environ.get("AWS_ENDPOINT_URL"))
        self._config = Config(
            retries=_RETRIES, max_pool_connections=_THREADS, connect_timeout=10, read_timeout=30, **direct
        )
        self._executor = ThreadPoolExecutor(_THREADS, "starburst-aws")
        self._lock = Lock()
        self._clients: dict[str, Any] = {}
        self._under_way: set[Future[Any]] = set()  # in threads, which outlive a cancelled caller
        self._ahead = 0.0
        self._meter = Lock()
        self._levels: dict[str, Level] = {}

    def _with_events(self, session: boto3.Session | None) -> boto3.Session:
        """Return a session whose calls are counted, by default the configured one."""
        try:
            made = session or _session(*(self._configured or (None, None)))
        except BotoCoreError as error:
            raise explained(error, "sts:GetCallerIdentity") from error
        made.events.register("before-call", self._count)
        made.events.register("after-call", self._set_clock)
        return made

    def renew_credentials(self) -> None:
        """Reload the configured credentials: profile, helper program, login cache. At most every few seconds.

        A session keeps the credentials that it has loaded, even if the file changes. A session passed by the
        user refreshes its own; only the clients are recreated.
        """
        if time.monotonic() - self._renewed < self.credentials_pause:
            return
        self._renewed = time.monotonic()
        with self._lock:
            if self._configured is not None:
                with suppress(StarburstError):  # the profile may be missing at this moment; keep the old session
                    self._session = self._with_events(None)
            self._clients = {}

    @property
    def region(self) -> str:
        """The region of the calls."""
        return str(self._session.region_name or "")

    @property
    def partition(self) -> str:
        """The partition of the region: ``aws``, ``aws-cn`` or ``aws-us-gov``."""
        return str(self._session.get_partition_for_region(self.region)) if self.region else "aws"

    def require_credentials(self) -> None:
        """Raise an error with instructions if there are no credentials.

        Raises
        ------
        NoCredentials
            None are configured.
        CredentialsExpired
            The login of the credentials has expired.
        """
        try:
            found = self._session.get_credentials()
        except Exception as error:
            raise credentials.fault(error) or explained(error, "sts:GetCallerIdentity") from error
        if found is None:
            raise explained(NoCredentialsError(), "sts:GetCallerIdentity")

    def now(self) -> float:
        """Return AWS's time in seconds since the epoch.

        A laptop's clock may be wrong by minutes, and a lease uses AWS's time. So the
        offset is taken from the ``Date`` header of AWS's answers.
        """
        return time.time() + self._ahead

    async def call(self, service: str, operation: str, **request: Any) -> dict[str, Any]:
        """Call one AWS operation, in a thread.

        Parameters
        ----------
        service : str
            boto3's name for the service: ``"ecs"``.
        operation : str
            AWS's name for the operation: ``"RunTask"``.
        **request
            The parameters of the operation.

        Returns
        -------
        dict
            AWS's answer.

        Raises
        ------
        StarburstError
            AWS refused the call; see `aws.faults`.
        """
        method = xform_name(operation)
        await self._admit(service, operation)
        return cast(
            dict[str, Any],
            await self._run(service, operation, lambda c: getattr(c, method)(**request)),
        )

    async def pages(self, service: str, operation: str, key: str, **request: Any) -> list[Any]:
        """Call a paginated operation and return the items of all pages under `key`."""
        method = xform_name(operation)

        def begin(client: Any) -> Any:
            return iter(client.get_paginator(method).paginate(**request))

        found: list[Any] = []
        pages = await self._run(service, operation, begin)
        more = True
        while more:
            # Page by page: each counts as a call against AWS's limits.
            await self._admit(service, operation)
            page = await self._run(service, operation, lambda _: next(pages, {}))
            found += page.get(key, [])
            more = any(page.get(token) for token in _NEXT)
        return found

    async def is_real(self, service: str) -> bool:
        """Return whether a service's endpoint is AWS's own, and not a simulated AWS.

        botocore resolves the endpoint, because settings such as ``AWS_ENDPOINT_URL`` may change it.
        """
        url: str = await self._run(service, "endpoint", lambda client: client.meta.endpoint_url)
        host = urlsplit(url).hostname or ""
        return host.endswith(_OWN_HOSTS)

    async def wait_for_calls(self, within: float) -> None:
        """Wait for calls whose caller was cancelled, at most `within` seconds.

        A thread cannot be cancelled: after Ctrl-C its call still reaches AWS, and the resources that it creates
        must be known before the clean-up.
        """
        calls = [asyncio.wrap_future(call) for call in tuple(self._under_way)]
        if calls:
            done, _ = await asyncio.wait(calls, timeout=within)
            for call in done:
                call.exception()  # retrieved, so that asyncio does not warn

    def shorten_timeouts(self) -> None:
        """Shorten botocore's timeouts and retries from now on: closing repeats its calls within its own timeout."""
        self._config = self._config.merge(Config(retries=_HURRIED, connect_timeout=5, read_timeout=10))
        with self._lock:
            self._clients.clear()

    def close(self) -> None:
        """Shut down the threads."""
        self._executor.shutdown(wait=False)

    async def _admit(self, service: str, operation: str) -> None:
        """Wait until AWS's rate limit admits a call."""
        name = bucket_of(service, operation)
        if name is None:
            return
        with self._meter:
            self._levels[name], seconds = take(LIMITS[name], self._levels.get(name), time.monotonic())
        if seconds:
            await asyncio.sleep(seconds)

    async def _run(self, service: str, operation: str, use: Callable[[Any], Any]) -> Any:
        def run() -> Any:
            try:
                return use(self._client(service))
            except Exception as error:  # credential providers run external code
                action = f"{_IN_IAM.get(service, service)}:{operation}"
                raise credentials.fault(error) or explained(error, action, self.region) from error

        try:
            future = self._executor.submit(run)
        except RuntimeError:
            # The interpreter is exiting and cannot start threads. Only the clean-up is left,
            # so blocking the loop is fine.
            return run()
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        call = asyncio.wrap_future(future)
        # `shield` forgets a call whose caller is cancelled, and asyncio would warn of its error.
        call.add_done_callback(_retrieve)
        return await asyncio.shield(call)

    def _client(self, service: str) -> Any:
        # Creating a boto3 client is slow and not thread-safe.
        with self._lock:
            if service not in self._clients:
                self._clients[service] = self._session.client(
                    service,
                    region_name=_HOMES.get(service, {}).get(self.partition),
                    endpoint_url=self.endpoint_url,
                    config=self._config,
                )
            return self._clients[service]

    def _count(self, model: Any, **_: Any) -> None:
        self.calls[f"{model.service_model.signing_name}:{model.name}"] += 1

    def _set_clock(self, http_response: Any, **_: Any) -> None:
        date = http_response.headers.get("date")
        if not date:
            return
        # The header has whole seconds; half a second is the mean of the truncation.
        ahead = parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
        if abs(ahead - self._ahead) > 1.0:
            self._ahead = ahead
