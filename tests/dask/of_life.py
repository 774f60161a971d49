"""Actions on separate clusters: not started, closing, asynchronous."""

from __future__ import annotations

import asyncio
from typing import Any

from dask.distributed import Client

from tests.dask.side import Side, error_of


def _in_a_loop(side: Side, look: Any, **arguments: Any) -> Any:
    async def run() -> Any:
        cluster = side.another(asynchronous=True, **arguments)
        try:
            return await look(cluster)
        finally:
            await cluster.close()

    return asyncio.run(run())


def not_started(side: Side) -> Any:
    async def look(cluster: Any) -> Any:
        kinds = cluster.status.name, cluster.asynchronous, cluster.scheduler_address
        return kinds, set(cluster.plan), cluster.requested, cluster.observed, cluster.scheduler_info

    return _in_a_loop(side, look, n_workers=0)


def closed_twice_before_a_start(side: Side) -> Any:
    async def look(cluster: Any) -> Any:
        await cluster.close()
        await cluster.close()
        return cluster.status.name

    return _in_a_loop(side, look)


def awaited_when_closed(side: Side) -> Any:
    async def look(cluster: Any) -> Any:
        await cluster.close()
        try:
            await cluster
        except (TypeError, ValueError) as error:
            return type(error).__name__
        return "started"

    return _in_a_loop(side, look)


def named(side: Side) -> Any:
    async def look(cluster: Any) -> Any:
        return cluster.name, "(mine, " in repr(cluster)

    return _in_a_loop(side, look, name="mine")


def entered_without_async(side: Side) -> Any:
    async def look(cluster: Any) -> Any:
        return error_of(cluster.__enter__)

    return _in_a_loop(side, look)


def subclassed(side: Side) -> Any:
    async def run() -> Any:
        kind = type("Mine", (type(side.cluster),), {})
        cluster = side.another(kind=kind, asynchronous=True)
        text = repr(cluster)
        await cluster.close()
        return text.startswith(f"Mine({cluster.name}, "), isinstance(cluster, type(side.cluster))

    return asyncio.run(run())


def asynchronous_outside_of_a_loop(side: Side) -> Any:
    return error_of(lambda: side.another(asynchronous=True))


def wrong_loop(side: Side) -> Any:
    return error_of(lambda: side.another(loop="a loop"))[0]


def asynchronous_life(side: Side) -> Any:
    async def run() -> Any:
        async with side.another(asynchronous=True, n_workers=1) as cluster:
            async with Client(cluster, asynchronous=True) as client:
                answer = await client.submit(sum, [1, 2])
                names = sorted((await client.run(lambda dask_worker: dask_worker.name)).values())
            logs = set(await cluster.get_logs(workers=False))
            scaled = await cluster.scale(1)
            running = cluster.status.name
        await cluster.close()
        return answer, names, logs, scaled, running, cluster.status.name

    return asyncio.run(run())


async def scaled_while_it_adapts(side: Side) -> tuple[Any, str]:
    """Return the result of `await cluster.scale(n)` on an adaptive cluster, and the state of its adaptive scaling."""
    async with (
        side.another(asynchronous=True, n_workers=0) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        adaptive = cluster.adapt(minimum=0, maximum=4, interval="1 hour")
        await cluster.scale(2)
        asked = set(cluster.plan), cluster.requested
        await client.wait_for_workers(2, timeout=60)
        names = sorted((await client.run(lambda dask_worker: dask_worker.name)).values())
        await cluster.scale(1)
        return (asked, names, set(cluster.plan)), adaptive.state


def asynchronous_scale(side: Side) -> Any:
    return asyncio.run(scaled_while_it_adapts(side))[0]


def closed_by_shutdown(side: Side) -> Any:
    cluster = side.another(n_workers=0)
    client = Client(cluster, set_as_default=False)
    client.shutdown()
    closed = cluster.status.name, client.status
    return closed, cluster.close(), cluster.close(), error_of(lambda: cluster.wait_for_workers(1))[0] != ""


def closed_by_an_error(side: Side) -> Any:
    def work() -> None:
        with side.another(n_workers=0) as cluster:
            kept.append(cluster)
            raise ValueError("in the block")

    kept: list[Any] = []
    return error_of(work), kept[0].status.name, kept[0].plan, kept[0].observed


#: Each costs at most one start.
ACTIONS = [
    not_started,
    closed_twice_before_a_start,
    awaited_when_closed,
    named,
    entered_without_async,
    subclassed,
    asynchronous_outside_of_a_loop,
    wrong_loop,
    asynchronous_life,
    asynchronous_scale,
    closed_by_shutdown,
    closed_by_an_error,
]
