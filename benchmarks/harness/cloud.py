"""The embedded AWS as benchmarks use it, and what runs on it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask_starburst import StarburstCluster
from dask_starburst.aws.session import AWS
from dask_starburst.local import LocalAWS
from dask_starburst.settings import Settings
from dask_starburst.settings.arguments import NetworkDict

#: The most workers that run as processes of this computer.
MOST_PROCESSES = 20
#: Seconds until workers have started.
PATIENCE = 1200.0
_NETWORK: NetworkDict = {"caller": "127.0.0.1/32"}


@contextmanager
def limited_aws(timing: str, seed: int, **options: Any) -> Iterator[LocalAWS]:
    """Run an embedded AWS with AWS's documented request limits, whose containers import everything as real ones do."""
    with LocalAWS(timing=timing, seed=seed, fork=False, **options) as local:
        local.throttle(True)
        yield local


class Calls:
    """The calls that reached AWS since this was created, retries and refused calls included."""

    def __init__(self, local: LocalAWS) -> None:
        self._local = local
        self._before = Counter(local.status().calls)

    def so_far(self) -> Counter[str]:
        """Return the number of calls of each action."""
        return Counter(self._local.status().calls) - self._before


def cluster_as_in_an_account(local: LocalAWS, workers: int, **more: Any) -> StarburstCluster:
    """Start a cluster with the poll interval and the timeouts that it has on AWS, which ``cloud="local"`` shortens."""
    os.environ.update(local.environment)
    return StarburstCluster(
        n_workers=workers, image="benchmark", endpoint_url=local.endpoint_url, network=_NETWORK, quiet=True, **more
    )


def controller_settings(local: LocalAWS, workers: int) -> Settings:
    """Return the settings of a controller without Dask, which may have this number of workers."""
    return Settings.load(
        arch="arm64",
        endpoint_url=local.endpoint_url,
        image="benchmark",
        max_workers=max(500, workers),
        network=_NETWORK,
    )


@contextmanager
def account(local: LocalAWS) -> Iterator[AWS]:
    """Make calls as the owner of the account."""
    aws = AWS(endpoint_url=local.endpoint_url, session=local.session())
    try:
        yield aws
    finally:
        aws.close()
