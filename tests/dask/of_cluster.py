"""Actions on a running cluster: names, state, logs, scaling."""

from __future__ import annotations

import pickle
from typing import Any

from dask.distributed import Client
from distributed.deploy.adaptive import Adaptive
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.utils import Log, Logs

from tests.dask.side import Side, error_of
from tests.support.cluster_asserts import wait_until


def names_of_workers(side: Side) -> Any:
    return sorted(side.cluster.workers)


def types_of_names(side: Side) -> Any:
    spec, info = side.cluster.worker_spec, side.cluster.scheduler_info["workers"].values()
    return {type(name).__name__ for name in spec}, {type(worker["name"]).__name__ for worker in info}


def plan(side: Side) -> Any:
    return set(side.cluster.plan)


def requested(side: Side) -> Any:
    return side.cluster.requested


def observed(side: Side) -> Any:
    return side.cluster.observed


def plan_is_observed(side: Side) -> Any:
    return set(side.cluster.plan) == side.cluster.observed == side.cluster.requested


def plan_is_a_set(side: Side) -> Any:
    return isinstance(side.cluster.plan, set), side.cluster.plan & {1, 2}, side.cluster.plan - {1}


def worker_spec(side: Side) -> Any:
    return sorted(side.cluster.worker_spec)


def scheduler_info(side: Side) -> Any:
    info = side.cluster.scheduler_info
    return info["type"], sorted(info), sorted(w["name"] for w in info["workers"].values())


def workers_in_scheduler_info(side: Side) -> Any:
    workers = side.cluster.scheduler_info["workers"].values()
    # Ignore the additional entries of a worker with a dashboard; they are not a difference between clusters.
    return [(w["type"], w["name"], w["nthreads"], w["status"], w["resources"]) for w in workers if w["name"] == 0]


def memory_limits(side: Side) -> Any:
    return [w["memory_limit"] > 0 for w in side.cluster.scheduler_info["workers"].values()]


def status(side: Side) -> Any:
    return side.cluster.status.name


def is_asynchronous(side: Side) -> Any:
    return side.cluster.asynchronous, side.cluster.called_from_running_loop


def loop(side: Side) -> Any:
    return side.cluster.loop is side.client.loop, type(side.cluster.loop).__name__


def scheduler_address(side: Side) -> Any:
    address = side.cluster.scheduler_address
    return pickle.loads(pickle.dumps(address)) == address == side.client.scheduler.address


def scheduler_comm(side: Side) -> Any:
    return side.cluster.scheduler_comm.address == side.cluster.scheduler_address


def dashboard_link(side: Side) -> Any:
    # Our dashboard is disabled in tests, and Dask's cannot be: compare only that link and scheduler agree.
    return type(side.cluster.dashboard_link).__name__, side.client.dashboard_link == side.cluster.dashboard_link


def name(side: Side) -> Any:
    before = side.cluster.name
    side.cluster.name = "another"
    after, side.cluster.name = side.cluster.name, before
    return after, isinstance(before, str)


def bases(side: Side) -> Any:
    return isinstance(side.cluster, SpecCluster), isinstance(side.cluster, Cluster)


def equality(side: Side) -> Any:
    return side.cluster == side.cluster, side.cluster == object(), hash(side.cluster) == hash(side.cluster)


def representation(side: Side) -> Any:
    text, kind = repr(side.cluster), type(side.cluster).__name__
    return (
        text.startswith(f"{kind}({side.cluster.name}, {side.cluster.scheduler_address!r}"),
        "workers=2, threads=2, memory=" in text,
        text.endswith(")"),
        str(side.cluster) == text,
    )


def html(side: Side) -> Any:
    return side.cluster.name in side.cluster._repr_html_()


def sync(side: Side) -> Any:
    async def twice(x: int, *, more: int = 0) -> int:
        return 2 * x + more

    return side.cluster.sync(twice, 3, more=1)


def sync_that_takes_too_long(side: Side) -> Any:
    import asyncio

    # Which of two timeouts raises first, and so the message, depends on the load of the computer.
    return error_of(lambda: side.cluster.sync(asyncio.sleep, 60, callback_timeout=0.1))[0]


def sync_that_fails(side: Side) -> Any:
    async def fail() -> None:
        raise ValueError("in the loop")

    return error_of(lambda: side.cluster.sync(fail))


def get_client(side: Side) -> Any:
    return side.cluster.get_client() is side.client


def entered_twice(side: Side) -> Any:
    return side.cluster.__enter__() is side.cluster


def no_logs(side: Side) -> Any:
    logs = side.cluster.get_logs(cluster=False, scheduler=False, workers=False)
    return dict(logs), isinstance(logs, Logs)


def logs_of_the_cluster(side: Side) -> Any:
    logs = side.cluster.get_logs(scheduler=False, workers=False)
    return set(logs), isinstance(logs["Cluster"], Log)


def logs_of_the_scheduler(side: Side) -> Any:
    logs = side.cluster.get_logs(cluster=False, workers=False)
    return set(logs), isinstance(logs["Scheduler"], Log), "Scheduler at" in logs["Scheduler"]


def logs_of_one_worker(side: Side) -> Any:
    address = side.addresses[0]
    logs = side.cluster.get_logs(cluster=False, scheduler=False, workers=[address])
    return set(logs) == {address}, isinstance(logs[address], Log)


def logs_of_all(side: Side) -> Any:
    return len(side.cluster.get_logs()) >= 2 + len(side.addresses)


def wait_for_workers(side: Side) -> Any:
    return side.cluster.wait_for_workers(2), side.client.wait_for_workers(2, timeout=90)


def wait_for_no_workers(side: Side) -> Any:
    return error_of(lambda: side.cluster.wait_for_workers(0)), error_of(lambda: side.client.wait_for_workers(-1))


def wait_for_workers_by_text(side: Side) -> Any:
    return error_of(lambda: side.cluster.wait_for_workers("2"))


def wait_for_too_many_workers(side: Side) -> Any:
    return error_of(lambda: side.cluster.wait_for_workers(5, timeout=0.3))


def scale_to_current_size(side: Side) -> Any:
    return side.cluster.scale(2), side.cluster.scale(cores=2), side.cluster.scale(n=2, memory="1 B"), plan(side)


def scale_up_and_down(side: Side) -> Any:
    cluster, client = side.cluster, side.client
    cluster.scale(3)
    client.wait_for_workers(3, timeout=60)
    wait_until(lambda: len(cluster.observed) == 3, 60, "the cluster knows of three")
    grown = set(cluster.plan), cluster.observed
    cluster.scale(2)
    wait_until(lambda: len(cluster.observed) == 2, 60, "two workers")
    return grown, set(cluster.plan), cluster.observed


def scale_with_text(side: Side) -> Any:
    return error_of(lambda: side.cluster.scale("many"))[0] != ""


def supports_scaling(side: Side) -> Any:
    return side.cluster._supports_scaling


def adapt(side: Side) -> Any:
    adaptive = side.cluster.adapt(minimum=2, maximum=2, interval="10 s", target_duration="1s")
    bounds = adaptive.minimum, adaptive.maximum, isinstance(adaptive, Adaptive), side.cluster._adaptive is adaptive
    adaptive.stop()
    return bounds, plan(side)


class Own(Adaptive):
    """A user's adaptive class."""


def adapt_with_own_class(side: Side) -> Any:
    adaptive = side.cluster.adapt(Adaptive=Own, minimum=2, maximum=2, interval="10 s", wait_count=2)
    adaptive.stop()
    return type(adaptive).__name__, adaptive.minimum, adaptive.maximum, plan(side)


def another_client(side: Side) -> Any:
    with Client(side.cluster, set_as_default=False) as client:
        return client.submit(sum, [1, 2]).result(), client.cluster is side.cluster, client is side.client


def client_by_address(side: Side) -> Any:
    cluster = side.cluster
    with Client(cluster.scheduler_address, security=cluster.security, set_as_default=False) as client:
        return client.submit(sum, [1, 2]).result(), client.cluster


ACTIONS = [
    names_of_workers,
    types_of_names,
    plan,
    requested,
    observed,
    plan_is_observed,
    plan_is_a_set,
    worker_spec,
    scheduler_info,
    workers_in_scheduler_info,
    memory_limits,
    status,
    is_asynchronous,
    loop,
    scheduler_address,
    scheduler_comm,
    dashboard_link,
    name,
    bases,
    equality,
    representation,
    html,
    sync,
    sync_that_takes_too_long,
    sync_that_fails,
    get_client,
    entered_twice,
    no_logs,
    logs_of_the_cluster,
    logs_of_the_scheduler,
    logs_of_one_worker,
    logs_of_all,
    wait_for_workers,
    wait_for_no_workers,
    wait_for_workers_by_text,
    wait_for_too_many_workers,
    scale_to_current_size,
    scale_up_and_down,
    scale_with_text,
    supports_scaling,
    adapt,
    adapt_with_own_class,
    another_client,
    client_by_address,
]
