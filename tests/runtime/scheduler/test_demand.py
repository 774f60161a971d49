"""A waiting scatter counts for adaptive scaling, with a scheduler of distributed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dask.config
import pytest
from distributed import Client, Scheduler, Worker

from dask_starburst.runtime.scheduler.demand import Demand, dask_setup
from dask_starburst.runtime.scheduler.unrunnable import Unrunnable
from tests.runtime.scheduler.test_retirement import in_a_loop, join


@asynccontextmanager
async def scheduler_and_client(usual: str = "30 s") -> AsyncIterator[tuple[Scheduler, Client]]:
    async with Scheduler(dashboard=False, dashboard_address=":0", host="127.0.0.1", port=0) as scheduler:
        with dask.config.set({"distributed.comm.timeouts.connect": usual}):
            Demand(scheduler)
        async with Client(scheduler.address, asynchronous=True) as client:
            yield scheduler, client


async def demanded(client: Client) -> int:
    """Wait until adaptive scaling is told of a worker, and return how many it is told of."""
    while not (target := await client.scheduler.adaptive_target()):
        await asyncio.sleep(0.02)
    return int(target)


@in_a_loop
@pytest.mark.parametrize("direct", [False, True])
async def test_a_scatter_without_workers_asks_for_one_and_is_done_when_it_comes(direct: bool) -> None:
    async with scheduler_and_client() as (scheduler, client):
        assert await client.scheduler.adaptive_target() == 0
        data = asyncio.ensure_future(client.scatter([1, 2], direct=direct))
        assert await asyncio.wait_for(demanded(client), 10) == 1
        worker: Worker = await join(scheduler, 0)
        assert await client.gather(await data) == [1, 2]
        assert await client.scheduler.adaptive_target() <= 1
        await worker.close()


@in_a_loop
@pytest.mark.parametrize("kinds", [(Demand, Unrunnable), (Unrunnable, Demand)])
async def test_demand_works_together_with_unrunnable_tasks(kinds: tuple[Any, Any]) -> None:
    async with Scheduler(dashboard=False, dashboard_address=":0", host="127.0.0.1", port=0) as scheduler:
        for kind in kinds:
            kind(scheduler)
        async with Client(scheduler.address, asynchronous=True) as client:
            waiting = asyncio.ensure_future(client.scatter(1))
            assert await asyncio.wait_for(demanded(client), 10) == 1
            waiting.cancel()


@in_a_loop
async def test_a_worker_that_accepts_no_data_does_not_count() -> None:
    async with scheduler_and_client() as (scheduler, client):
        worker = await join(scheduler, 0)
        while not scheduler.running:  # it says so by itself, after it has joined
            await asyncio.sleep(0.02)
        scheduler.handle_worker_status_change("paused", scheduler.workers[worker.address], "test")
        data = asyncio.ensure_future(client.scatter(1))
        while await client.scheduler.adaptive_target() != 2:
            assert not data.done()
            await asyncio.sleep(0.02)
        scheduler.handle_worker_status_change("running", scheduler.workers[worker.address], "test")
        assert await (await data) == 1
        await worker.close()


@in_a_loop
async def test_a_timeout_that_the_user_gives_holds_and_the_usual_one_is_as_long_as_a_boot_while_it_adapts() -> None:
    async with scheduler_and_client(usual="0.2 s") as (scheduler, client):
        with pytest.raises(TimeoutError, match="No valid workers"):
            await client.scatter(1, timeout=0.2)  # nothing adapts, so no worker is on its way
        await client.scheduler.adaptive_target()
        with pytest.raises(TimeoutError, match="No valid workers"):
            await client.scatter(1, timeout=0.1)
        data = asyncio.ensure_future(client.scatter(1, timeout=0.2))
        await asyncio.sleep(0.5)
        worker = await join(scheduler, 0)
        assert await (await data) == 1
        await worker.close()


@in_a_loop
async def test_a_disconnected_client_requests_no_worker() -> None:
    async with scheduler_and_client() as (scheduler, client):
        async with Client(scheduler.address, asynchronous=True) as other:
            waiting = asyncio.ensure_future(other.scatter(1))
            assert await asyncio.wait_for(demanded(client), 10) == 1
            waiting.cancel()
        async with asyncio.timeout(20):  # less than the 30 s for which Dask's own scatter waits
            while await client.scheduler.adaptive_target():
                await asyncio.sleep(0.02)


@in_a_loop
async def test_the_handlers_that_are_wrapped_are_there() -> None:
    async with Scheduler(dashboard=False, dashboard_address=":0", host="127.0.0.1", port=0) as scheduler:
        before = dict(scheduler.handlers)
        dask_setup(scheduler)
        changed = {name for name in before if scheduler.handlers[name] is not before[name]}
        assert changed == {"scatter", "adaptive_target", "ncores_running"}
