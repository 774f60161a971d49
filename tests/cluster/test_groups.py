"""A cluster with two worker groups: arm64 and x86_64, one of a fixed size and one adaptive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import dask
import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.catalog import find
from dask_starburst.errors import BadArgument
from dask_starburst.local import LocalAWS, faults
from dask_starburst.settings.arguments import WorkerShapeDict
from tests.support.cluster_asserts import leftovers, wait_until

SMALL: WorkerShapeDict = {"nthreads": 1, "memory_limit": "1 GiB"}
LARGE: WorkerShapeDict = {"nthreads": 2, "memory_limit": "2 GiB"}
BIG = {"group-big": 1}


@pytest.fixture(scope="module")
def cluster(aws: LocalAWS) -> Iterator[StarburstCluster]:
    with StarburstCluster(
        cloud="local",
        endpoint_url=aws.endpoint_url,
        quiet=True,
        arch="arm64",
        spot={"policy": "on-demand"},
        n_workers=1,
        worker=SMALL,
        max_workers=6,
        adaptive={"maximum": 4},
        worker_groups={"big": {"arch": "x86_64", "policy": "spot", "worker": LARGE, "maximum": 2}},
    ) as running:
        yield running
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}


@pytest.fixture
def client(cluster: StarburstCluster) -> Iterator[Client]:
    with Client(cluster) as connected:
        yield connected


def of_group(cluster: StarburstCluster, group: str) -> set[Any]:
    """Return the workers of a group that are up."""
    return {name for name in cluster.observed if str(name).startswith(f"{group}-")}


def whoami(number: int = 0) -> Any:
    from distributed import get_worker

    return get_worker().name


def test_restricted_tasks_start_workers_of_their_group_and_run_there(
    cluster: StarburstCluster, client: Client, aws: LocalAWS
) -> None:
    client.wait_for_workers(1)
    assert cluster.plan == {0}, "nothing asks for a large worker"
    assert client.submit(whoami, pure=False).result(60) == 0
    assert cluster.plan == {0}, "and a task without a group does not"
    names = {future.result(60) for future in client.map(whoami, range(4), resources=BIG, pure=False)}
    assert names <= of_group(cluster, "big")
    with dask.annotate(resources=BIG):
        assert dask.delayed(whoami)(pure=False).compute() in of_group(cluster, "big")
    workers = {w["name"]: w for w in client.scheduler_info()["workers"].values()}
    assert workers[0]["resources"] == {"group-default": 1}
    assert workers["big-0"]["resources"] == {"group-big": 2}
    assert (workers[0]["nthreads"], workers["big-0"]["nthreads"]) == (1, 2)
    assert workers["big-0"]["memory_limit"] == 2 * 2**30
    instances = [i for i in aws.instances() if i["state"] == "running"]
    assert {find(i["type"]).arch for i in instances} == {"arm64", "x86_64"}
    costs = cluster.cost
    assert costs.by_group.keys() == {"head", "default", "big"}
    assert all(costs.by_group.values())
    assert sum(costs.by_group.values()) == pytest.approx(costs.usd)


def test_an_idle_group_shrinks_and_the_other_one_stays(cluster: StarburstCluster, client: Client) -> None:
    client.submit(whoami, resources=BIG, pure=False).result(60)
    wait_until(lambda: cluster.plan == {0}, 120, "no large worker is needed any more")
    wait_until(lambda: cluster.observed == {0}, 60, "they are gone")


def test_each_group_has_its_own_size(cluster: StarburstCluster, client: Client) -> None:
    cluster.scale(2, group="big")
    assert cluster.plan == {0, "big-0", "big-1"}
    client.wait_for_workers(3, timeout=90)
    assert cluster.plan == cluster.observed
    cluster.scale(2)
    client.wait_for_workers(4, timeout=90)
    assert cluster.observed == {0, 1, "big-0", "big-1"}
    cluster.scale(cores=2, group="big")
    wait_until(lambda: cluster.observed == {0, 1, "big-0"}, 60, "two threads are one large worker")
    cluster.adapt(minimum=0, maximum=1, group="big")
    wait_until(lambda: cluster.observed == {0, 1}, 120, "and none is needed")
    cluster.scale(1)
    wait_until(lambda: cluster.observed == {0}, 60, "the default group follows only its own call")


def test_an_interrupted_worker_is_replaced_in_its_group(
    cluster: StarburstCluster, client: Client, aws: LocalAWS
) -> None:
    cluster.scale(1, group="big")
    client.wait_for_workers(2, timeout=90)
    (old,) = of_group(cluster, "big")
    aws.play([faults.Interrupt(group="*-big-spot", notice=60)])
    wait_until(lambda: cluster.observed == cluster.plan != {0, old}, 90, "another large worker")
    assert len(of_group(cluster, "big")) == 1
    cluster.adapt(group="big")
    wait_until(lambda: cluster.observed == {0}, 120, "it is not needed")


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda c: c.scale(1, group="huge"), "group='huge' is not a worker group of this cluster"),
        (lambda c: c.adapt(group="huge"), "its groups are 'default', 'big'"),
        (lambda c: c.scale(6, group="big"), "n=6 is above max_workers=5"),
    ],
)
def test_what_a_group_cannot_do_is_refused(cluster: StarburstCluster, call: Any, text: str) -> None:
    with pytest.raises(BadArgument, match=re.escape(text)):
        call(cluster)


def test_a_quote_has_a_line_for_each_group(cluster: StarburstCluster) -> None:
    lines = {line.what: line for line in cluster.quote().lines}
    assert (lines["workers"].count, lines["workers of big"].count) == (1, 2)
    assert "on demand" in lines["workers"].kind
    assert "Spot" in lines["workers of big"].kind
