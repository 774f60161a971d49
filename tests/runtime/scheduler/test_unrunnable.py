"""Tasks that no worker can run request none, with a scheduler of distributed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import dask.config
from distributed import Client, Scheduler, Worker, WorkerPlugin

from dask_starburst.plan.scheduler.unrunnable import SUSPECT
from dask_starburst.runtime.scheduler.unrunnable import Unrunnable
from tests.runtime.scheduler.test_retirement import in_a_loop, join, until

GPU = {"GPU": 1}


@asynccontextmanager
async def from_zero(**configured: Any) -> AsyncIterator[tuple[Scheduler, Unrunnable, Client]]:
    async with Scheduler(dashboard=False, dashboard_address=":0", host="127.0.0.1", port=0) as scheduler:
        with dask.config.set({f"distributed.worker.{name}": value for name, value in configured.items()}):
            unrunnable = Unrunnable(scheduler)
        async with Client(scheduler.address, asynchronous=True) as client:
            yield scheduler, unrunnable, client


async def waiting(scheduler: Scheduler, tasks: int) -> None:
    await until(lambda: len(scheduler.unrunnable) == tasks)


@in_a_loop
async def test_a_task_for_which_no_worker_has_the_resources_asks_for_no_worker_from_the_first_look_on():
    async with from_zero() as (scheduler, unrunnable, client):
        gpu = client.submit(sum, [1], resources=GPU)
        await waiting(scheduler, 1)
        assert await client.scheduler.adaptive_target() == 0
        [text] = (await unrunnable.starburst_unrunnable()).values()
        assert str(gpu.key) in text
        work = client.submit(sum, [1, 2])
        await until(lambda: bool(scheduler.queued))
        assert await client.scheduler.adaptive_target() == 1
        assert {gpu.status, work.status} == {"pending"}


@in_a_loop
async def test_a_task_for_a_worker_that_is_not_there_asks_for_none_as_a_new_one_has_another_address():
    async with from_zero() as (scheduler, _, client):
        lost = client.submit(sum, [1], workers=["nowhere"])
        await waiting(scheduler, 1)
        assert await client.scheduler.adaptive_target() == 0
        assert lost.status == "pending"


@in_a_loop
async def test_configured_resources_are_requested():
    async with from_zero(resources={"GPU": 1}) as (scheduler, unrunnable, client):
        one, two = client.submit(sum, [1], resources=GPU), client.submit(sum, [2], resources={"GPU": 2})
        await waiting(scheduler, 2)
        assert await client.scheduler.adaptive_target() == 1
        [text] = (await unrunnable.starburst_unrunnable()).values()
        assert str(two.key) in text
        assert str(one.key) not in text


class OfAUser(WorkerPlugin):
    """It may do anything with a worker."""


@in_a_loop
async def test_a_plugin_may_add_resources_so_the_first_worker_shows_them():
    async with from_zero() as (scheduler, unrunnable, client):
        await client.register_plugin(OfAUser())
        gpu = client.submit(sum, [1], resources=GPU)
        await waiting(scheduler, 1)
        assert await client.scheduler.adaptive_target() == 1
        assert await unrunnable.starburst_unrunnable() == {}
        assert SUSPECT < 60
        worker = await Worker(scheduler.address, dashboard=False, host="127.0.0.1", resources=GPU)
        assert await gpu == 1
        await worker.close()


@in_a_loop
async def test_the_first_worker_with_the_plugins_shows_which_resources_are_missing():
    async with from_zero(preload=["theirs"]) as (scheduler, unrunnable, client):
        gpu = client.submit(sum, [1], resources=GPU)
        await waiting(scheduler, 1)
        assert await client.scheduler.adaptive_target() == 1
        worker = await join(scheduler, 0)
        unrunnable.poll()
        await worker.close()
        assert await client.scheduler.adaptive_target() == 0
        assert gpu.status == "pending"
