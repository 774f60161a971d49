"""Every client reads why its cluster ends, also one of another process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from distributed import Client, Scheduler
from distributed.client import FutureCancelledError

from dask_starburst.plan.scheduler.shutdown_rules import Lifetimes
from dask_starburst.runtime.scheduler.busy_time import BusyTime
from dask_starburst.runtime.scheduler.ending import Ending
from dask_starburst.runtime.scheduler.lease_keeper import LeaseKeeper
from tests.runtime.scheduler.test_retirement import in_a_loop, until
from tests.support.cluster_asserts import read_until, script_process

WHY = "AWS refuses the credentials: The security token included in the request is expired."
WAITS = """
from distributed import Client
from distributed.client import FutureCancelledError

with Client("{address}") as client:
    waiting = client.submit(sum, [1, 2])
    print("WAITS", flush=True)
    try:
        waiting.result()
    except FutureCancelledError as error:
        print("READ", str(error).replace(chr(10), " "), flush=True)
"""


@asynccontextmanager
async def scheduler_and_client() -> AsyncIterator[tuple[Scheduler, Client]]:
    async with Scheduler(dashboard=False, dashboard_address=":0", host="127.0.0.1", port=0) as scheduler:
        scheduler.add_plugin(Ending(scheduler))
        async with Client(scheduler.address, asynchronous=True) as client:
            yield scheduler, client


async def error_of(waiting: Any) -> str:
    with pytest.raises(FutureCancelledError) as raised:
        async with asyncio.timeout(30):
            await waiting
    assert raised.value.reason == "cluster-ended"
    return str(raised.value.msg)


@in_a_loop
async def test_clients_of_two_processes_read_why_their_cluster_ends() -> None:
    async with scheduler_and_client() as (scheduler, client):
        waiting = asyncio.ensure_future(client.submit(sum, [3, 4]).result())
        with script_process(WAITS.format(address=scheduler.address)) as process:
            await asyncio.to_thread(read_until, process, "WAITS")
            await until(lambda: len(scheduler.tasks) == 2)
            await client.scheduler.starburst_end(message=WHY)
            await scheduler.close()  # discards what is not sent
            assert WHY in await asyncio.to_thread(read_until, process, "READ")
        assert await error_of(waiting) == WHY


@in_a_loop
async def test_a_future_that_is_submitted_after_the_end_is_cancelled_too_and_the_first_reason_stays() -> None:
    async with scheduler_and_client() as (_, client):
        await client.scheduler.starburst_end(message=WHY)
        await client.scheduler.starburst_end(message="the cluster is closed.")
        assert await error_of(client.submit(sum, [1, 2])) == WHY


@in_a_loop
async def test_a_scheduler_that_ends_its_own_cluster_tells_its_clients_why() -> None:
    async with scheduler_and_client() as (scheduler, client):
        waiting = client.submit(sum, [1, 2])
        await until(lambda: len(scheduler.tasks) == 1)
        limits = Lifetimes(lease=1800, idle=None, no_client=None, usd=0.0)
        keeper = LeaseKeeper(scheduler, "us-east-1", (), limits, BusyTime(scheduler, 0.0), ending=Ending(scheduler))
        keeper.begin()
        assert await error_of(waiting) == (
            "the scheduler has ended its cluster: it has cost $0.0000, and max_total_cost=0."
        )
        await keeper.end()
