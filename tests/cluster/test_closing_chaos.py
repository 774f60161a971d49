"""Hundreds of sessions are closed at a random moment while AWS fails: each ends, and nothing is left that costs money.

The loop, boto3 and HTTP are real; containers do not run processes, and a stand-in replaces the Dask scheduler.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest

from benchmarks.harness.stand_in import StandIn
from dask_starburst.aws.session import AWS
from dask_starburst.errors import StarburstError
from dask_starburst.events import EventLog, PoolKeptWarm, PoolLeft
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.session import Session
from dask_starburst.local import LocalAWS, faults
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.state import WorkerState
from dask_starburst.settings import Settings
from tests.support.cluster_asserts import costs_nothing, leftovers, wait_until

CLOSES = int(os.environ.get("CLOSES", "200"))
#: Sessions of one embedded AWS, one after another. `make closes` runs several embedded AWS at the same time.
BATCH = 5
#: Seconds after which a close hangs: `timeouts.close` is 90.
HANGS = 150.0
#: Faults that may happen meanwhile; most of the time there is none.
FAULTS: tuple[list[faults.Event], ...] = (
    [],
    [],
    [faults.Error(action="*", count=12)],
    [faults.Throttle(action="*", count=8)],
    [faults.LostResponse(action="autoscaling:UpdateAutoScalingGroup", count=1)],
    [faults.LostResponse(action="ssm:PutParameter", count=1)],
)


def settings_of(local: LocalAWS, **more: Any) -> Settings:
    return Settings.load(
        arch="arm64",
        endpoint_url=local.endpoint_url,
        image="chaos",
        network={"caller": "127.0.0.1/32"},
        timeouts={"poll": 0.1},
        **more,
    )


async def work(session: Session, dask: StandIn, workers: int) -> None:
    """Start, scale up, and stay idle until the session is closed."""
    controller = await session.start(dask, dict.fromkeys(range(workers), DEFAULT))
    await controller.until(lambda: all(w.state is WorkerState.READY for w in controller.roster.workers.values()))
    controller.roster.cancel(0)
    controller.roster.request(workers, DEFAULT)
    await controller.until(lambda: False)


async def closed_at_random(local: LocalAWS, dask: StandIn, seed: int) -> EventLog:
    """Start a session, close it at a random moment, and return its events; fail if that takes too long."""
    chance = random.Random(seed)
    warm = chance.random() < 0.3
    settings = settings_of(local, keep={"warm_timeout": 600 if warm else 0})
    aws = AWS(endpoint_url=local.endpoint_url, session=local.session())
    events = EventLog(now=aws.now)
    session = Session(aws, blueprint(settings, "{}"), events.emit)
    working = asyncio.ensure_future(work(session, dask, chance.randrange(1, 4)))
    await asyncio.wait([working], timeout=chance.choice((0.3, 2.0, 4.0)) * chance.random())
    events_to_play = chance.choice(FAULTS)
    if events_to_play:
        await asyncio.to_thread(local.play, events_to_play, seed=seed)
    try:
        async with asyncio.timeout(HANGS):
            working.cancel()
            with suppress(asyncio.CancelledError, StarburstError):
                await working
            if session.controller is not None:
                await session.controller.stop()
            await session.end(warm=warm, ended=lambda: True)
    finally:
        await asyncio.to_thread(local.play, [faults.Clear()])
        aws.close()
    return events


async def many(local: LocalAWS, seeds: Iterable[int]) -> None:
    async with StandIn(local) as dask:
        background = asyncio.all_tasks()
        for seed in seeds:
            events = await closed_at_random(local, dask, seed)
            assert not any(isinstance(event, PoolLeft) for event in events), (seed, events)
            if any(isinstance(event, PoolKeptWarm) for event in events):
                await asyncio.to_thread(local.advance, 600 + 240)
            await asyncio.to_thread(nothing_costs, local, seed)
            others = asyncio.all_tasks() - background
            assert not others, (seed, others)


def nothing_costs(local: LocalAWS, seed: int) -> None:
    # AWS empties the groups of a warm pool shortly after their lease.
    wait_until(lambda: costs_nothing(local), 60, f"nothing costs money after close {seed}")
    left = leftovers(local)
    assert not any(left.values()), (seed, left)


def test_sessions_closed_at_a_random_moment_end_and_leave_nothing() -> None:
    with LocalAWS(processes=False) as local:
        asyncio.run(many(local, range(4)))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", range(0, CLOSES, BATCH))
def test_hundreds_of_sessions_closed_at_a_random_moment_end_and_leave_nothing(first: int) -> None:
    with LocalAWS(processes=False) as local:
        asyncio.run(many(local, range(first, min(first + BATCH, CLOSES))))
