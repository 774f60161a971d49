"""Which tasks count for which worker group, with a scheduler of distributed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from distributed import Client, Event, Scheduler, Worker

from dask_starburst.runtime.scheduler.demand import Demand
from dask_starburst.runtime.scheduler.group_demand import GroupDemand
from dask_starburst.runtime.scheduler.unrunnable import Unrunnable
from tests.runtime.scheduler.test_retirement import in_a_loop

RESOURCES = {"group-default": 1, "group-big": 2}


@asynccontextmanager
async def scheduler_and_client() -> AsyncIterator[tuple[Scheduler, Client]]:
    async with Scheduler(dashboard=False, dashboard_address=":0", host="127.0.0.1", port=0) as scheduler:
        Demand(scheduler)
        scheduler.add_plugin(GroupDemand(scheduler, RESOURCES, Unrunnable(scheduler, RESOURCES)))
        async with Client(scheduler.address, asynchronous=True) as client:
            yield scheduler, client


async def join(scheduler: Scheduler, name: Any, group: str) -> Worker:
    resources = {f"group-{group}": RESOURCES[f"group-{group}"]}
    worker: Worker = await Worker(scheduler.address, name=name, nthreads=2, resources=resources, dashboard=False)
    return worker


async def targets(client: Client, rest: str = "default") -> dict[str, int]:
    ask = client.scheduler.starburst_group_target
    groups = ("default", "big")
    return {g: (await ask(group=g, rest=g == rest, target_duration="5 s"))["target"] for g in groups}


async def all_known(scheduler: Scheduler, count: int) -> None:
    while len(scheduler.tasks) < count:
        await asyncio.sleep(0.01)


@in_a_loop
async def test_a_restricted_task_counts_for_its_group_and_any_other_for_the_rest() -> None:
    async with scheduler_and_client() as (scheduler, client):
        assert await targets(client) == {"default": 0, "big": 0}
        big = client.submit(int, 1, resources={"group-big": 1})
        await all_known(scheduler, 1)
        assert await targets(client) == {"default": 0, "big": 1}
        plain = client.submit(int, 2)
        await all_known(scheduler, 2)
        assert await targets(client) == {"default": 1, "big": 1}
        assert await targets(client, rest="big") == {"default": 0, "big": 1}
        assert not await client.scheduler.starburst_unrunnable(), "workers of every group will come"
        del big, plain


@in_a_loop
async def test_a_task_that_asks_for_more_than_the_group_has_asks_for_no_worker() -> None:
    async with scheduler_and_client() as (scheduler, client):
        future = client.submit(int, 1, resources={"group-big": 3})
        await all_known(scheduler, 1)
        assert await targets(client) == {"default": 0, "big": 0}
        assert "group-big" in str(await client.scheduler.starburst_unrunnable())
        del future


@in_a_loop
async def test_workers_of_a_group_that_have_nothing_to_do_may_go_and_others_stay() -> None:
    async with scheduler_and_client() as (scheduler, client):
        workers = [await join(scheduler, name, name.partition("-")[0]) for name in ("default-0", "big-0", "big-1")]
        go = Event(client=client)
        busy = client.submit(go.wait, workers=["big-0"], resources={"group-big": 1})
        while not scheduler.workers[workers[1].address].processing:
            await asyncio.sleep(0.01)
        try:
            assert await targets(client) == {"default": 0, "big": 1}
            close = client.scheduler.starburst_group_workers_to_close
            assert list(await close(group="big", n=1)) == ["big-1"], "the one that is idle"
            assert set(await close(group="big", n=2)) == {"big-0", "big-1"}
            assert list(await close(group="default", n=1)) == ["default-0"]
        finally:
            await go.set()  # a worker of this process does not close while its task runs
            await busy
        for worker in workers:
            await worker.close()


@in_a_loop
async def test_a_scatter_waits_for_a_worker_of_the_rest() -> None:
    async with scheduler_and_client() as (_, client):
        waiting = asyncio.ensure_future(client.scatter(1))
        while await targets(client) != {"default": 1, "big": 0}:
            await asyncio.sleep(0.02)
        waiting.cancel()
