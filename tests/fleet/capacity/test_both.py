"""One small story on both platforms: the controller cannot tell EC2 from the simulator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from random import Random
from typing import NamedTuple

import pytest

from benchmarks.harness.simulator.aws import TICK, Process, SimulatedAWS
from benchmarks.harness.simulator.capacity import SimulatedCapacity, SimulatedScheduler
from benchmarks.harness.stand_in import StandIn
from dask_starburst.aws.session import AWS
from dask_starburst.events import EventLog
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.capacity.interface import Capacity
from dask_starburst.fleet.controller.loop import Controller
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.fleet.session import Session
from dask_starburst.local import LocalAWS
from dask_starburst.plan.groups import DEFAULT, HEAD
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Name, RunTask, Worker, WorkerState
from dask_starburst.settings import Settings
from tests.support import placements

S = WorkerState
#: Seconds of this computer after which the story has stuck.
STUCK = 240.0


class Stage(NamedTuple):
    """A running controller, its events, and what can happen to its workers."""

    controller: Controller
    events: EventLog
    refuse_next: Callable[[], None]
    end: Callable[[Name], None]


class RefusingAWS(SimulatedAWS):
    """A simulated AWS that refuses tasks on demand."""

    refusing = 0

    def run_task(self, action: RunTask) -> Process | None:
        if self.refusing:
            self.refusing -= 1
            return None
        return super().run_task(action)

    def refuse_next(self) -> None:
        self.refusing = 1

    def end(self, name: Name) -> None:
        """End the process of a worker."""
        self._end(self.processes[self.members[name]], 137, "OutOfMemoryError")


@asynccontextmanager
async def simulated(embedded: LocalAWS) -> AsyncIterator[Stage]:
    aws = RefusingAWS(Random(0), desired={placements.HEAD: 0, placements.SPOT: 0})
    capacity: Capacity = SimulatedCapacity(aws, TICK)
    events, limits = EventLog(quiet=True, now=capacity.now), Limits(placements=placements.ONLY_SPOT)
    scheduler = SimulatedScheduler(aws)
    controller = Controller(capacity, scheduler, events.emit, limits, Lease(1e9, 0.0), 0.001)
    scheduler.roster = controller.roster
    controller.roster.request(SCHEDULER, HEAD)
    controller.start()
    yield Stage(controller, events, aws.refuse_next, aws.end)
    await controller.stop()


@asynccontextmanager
async def on_ec2(embedded: LocalAWS) -> AsyncIterator[Stage]:
    settings = Settings.load(
        arch="arm64",
        endpoint_url=embedded.endpoint_url,
        image="both",
        network={"caller": "127.0.0.1/32"},
        timeouts={"poll": 0.1},
    )
    aws = AWS(endpoint_url=embedded.endpoint_url, session=embedded.session())
    events = EventLog(quiet=True, now=aws.now)
    session = Session(aws, blueprint(settings, "{}"), events.emit)
    message = "ECS was unable to assume the role 'arn:aws:iam::1:role/r' that was provided for this task."
    async with StandIn(embedded) as dask:
        yield Stage(
            await session.start(dask, {}),
            events,
            lambda: embedded.inject("ecs:RunTask", "ClientException", message),
            lambda name: embedded.end_task(dask.up[name]),
        )
        assert session.controller is not None
        await session.controller.stop()
        assert await session.end(warm=False, ended=lambda: True) == []
    aws.close()


def states(controller: Controller) -> dict[Name, WorkerState]:
    return {name: worker.state for name, worker in controller.roster.workers.items()}


def up(*names: Name) -> dict[Name, WorkerState]:
    return {SCHEDULER: S.READY} | dict.fromkeys(names, S.READY)


def instances(controller: Controller) -> int:
    """Return the number of instances for workers."""
    return sum(not i.placement.is_head for i in controller.roster.observed.instances.values())


async def play(stage: Stage) -> list[Worker]:
    """Request three workers of which one is refused, lose one, cancel one, scale to zero."""
    controller, roster = stage.controller, stage.controller.roster
    await controller.until(lambda: states(controller) == up())
    stage.refuse_next()
    for name in range(3):
        roster.request(name, DEFAULT)
    await controller.until(lambda: states(controller) == up(0, 1, 2))
    first = roster.workers[1]
    await asyncio.to_thread(stage.end, 1)
    await controller.until(lambda: states(controller) == up(0, 1, 2) and roster.workers[1].task != first.task)
    second = roster.workers[1]
    roster.cancel(2)
    await controller.until(lambda: states(controller) == up(0, 1) and instances(controller) == 2)
    for name in (0, 1):
        roster.cancel(name)
    await controller.until(lambda: states(controller) == up() and instances(controller) == 0)
    return [first, second]


@pytest.mark.parametrize("platform", [simulated, on_ec2])
def test_workers_of_which_some_are_refused_and_one_is_lost_come_and_go(
    platform: Callable[[LocalAWS], AbstractAsyncContextManager[Stage]], embedded: LocalAWS
):
    async def work() -> tuple[Stage, list[Worker]]:
        async with asyncio.timeout(STUCK), platform(embedded) as stage:
            return stage, await play(stage)

    stage, (first, second) = asyncio.run(work())
    told = [(event.kind, event.subject) for event in stage.events if event.kind.startswith(("worker-", "task-"))]
    assert second.launch == first.launch + 1, "a lost worker keeps its name and gets another client token"
    assert "task-refused" in [kind for kind, _ in told]
    assert [name for kind, name in told if kind == "worker-lost"] == [1]
    assert sorted(name for kind, name in told if kind == "worker-retiring") == [0, 1, 2]
    assert sorted(str(name) for kind, name in told if kind == "worker-ready") == ["0", "1", "1", "2", SCHEDULER]
    groups = stage.controller.roster.observed.groups.values()
    assert {group.desired for group in groups if not group.placement.is_head} == {0}
    assert not [t for t in stage.controller.roster.observed.tasks.values() if not t.stopped and t.worker != SCHEDULER]
    assert stage.controller.error is None
