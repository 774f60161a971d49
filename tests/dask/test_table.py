"""Actions have the same result on a LocalCluster and on a StarburstCluster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dask.config
import pytest
from dask.distributed import Client, LocalCluster

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS
from tests.dask import of_client, of_cluster, of_life
from tests.dask.side import Action, Side, error_of

#: Most actions share one cluster of each kind, and restore its state.
ACTIONS = [
    pytest.param(action, id=f"{module.__name__.rpartition('_')[2]}-{action.__name__}")
    for module in (of_cluster, of_client, of_life)
    for action in module.ACTIONS
]


def local_cluster(kind: type[LocalCluster] = LocalCluster, **arguments: Any) -> LocalCluster:
    return kind(**{"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", **arguments})


@pytest.fixture(scope="module")
def starburst_cluster(aws: LocalAWS) -> Callable[..., StarburstCluster]:
    def make(kind: type[StarburstCluster] = StarburstCluster, **arguments: Any) -> StarburstCluster:
        shape = {"nthreads": 1}
        common = {"cloud": "local", "endpoint_url": aws.endpoint_url, "quiet": True, "n_workers": 2, "worker": shape}
        return kind(**{**common, **arguments})

    return make


@pytest.fixture(scope="module")
def sides(starburst_cluster: Callable[..., StarburstCluster]) -> Iterator[tuple[Side, Side]]:
    """Yield a cluster of each kind with two workers, and a client of each."""
    with (
        starburst_cluster() as ours,
        Client(ours) as our_client,
        local_cluster() as theirs,
        Client(theirs) as their_client,
    ):
        our_client.wait_for_workers(2, timeout=100)
        their_client.wait_for_workers(2, timeout=100)
        yield Side(theirs, their_client, local_cluster), Side(ours, our_client, starburst_cluster)


def done_on(side: Side, action: Action) -> Any:
    with side.client.as_current():
        return action(side)


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_has_the_same_result_on_both_clusters(sides: tuple[Side, Side], action: Action) -> None:
    local, starburst = sides
    assert done_on(starburst, action) == done_on(local, action)


@dataclass(frozen=True)
class Difference:
    """An intended difference, with its reason."""

    action: Action
    local: Any
    starburst: Any
    reason: str


def scale_below_none(side: Side) -> Any:
    if isinstance(side.cluster, StarburstCluster):
        return error_of(lambda: side.cluster.scale(-1))[0]
    with side.another(n_workers=0) as empty:  # it would lose its workers
        return error_of(lambda: empty.scale(-1))[0]


def config_on_workers(side: Side) -> Any:
    with (
        dask.config.set({"of-a-user.setting": 5}),
        side.another(n_workers=1) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        return client.submit(dask.config.get, "of-a-user.setting", None).result()


DIFFERENCES = [
    Difference(
        lambda side: side.cluster.scheduler_address.partition(":")[0],
        "tcp",
        "tls",
        "the scheduler runs in a public cloud: Dask's connections always use mutual TLS",
    ),
    Difference(
        lambda side: set(side.cluster.get_logs()) - {"Cluster", "Scheduler"} == set(side.addresses),
        True,
        False,
        "logs include ended workers, which have no address any more: they are titled by name",
    ),
    Difference(
        scale_below_none,
        "KeyError",
        "BadArgument",
        "a negative number of workers is refused, where a LocalCluster removes all workers and raises afterwards",
    ),
    Difference(
        lambda side: asyncio.run(of_life.scaled_while_it_adapts(side))[1],
        "running",
        "stopped",
        "scale(n) stops adaptive scaling, which would otherwise undo it at once",
    ),
]


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.reason)
def test_an_intended_difference_is_as_documented(sides: tuple[Side, Side], difference: Difference) -> None:
    local, starburst = sides
    assert done_on(starburst, difference.action) == difference.starburst
    assert done_on(local, difference.action) == difference.local


def test_the_configuration_of_the_client_is_on_the_workers_of_both_clusters(sides: tuple[Side, Side]) -> None:
    local, starburst = sides
    assert done_on(starburst, config_on_workers) == done_on(local, config_on_workers) == 5


def test_the_table_has_about_a_hundred_actions() -> None:
    assert len(ACTIONS) >= 100
