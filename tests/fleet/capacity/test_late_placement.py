"""Workers start on an AWS that places tasks after RunTask has returned them (real-aws R1)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator

import pytest

from dask_starburst.events import CapacityRequested, TaskRefused
from dask_starburst.local import LocalAWS, faults
from dask_starburst.local.faults.events import Event
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.state import SCHEDULER
from tests.fleet.capacity.test_both import STUCK, Stage, on_ec2, states, up

NAMES = (0, 1, 2)
LATE = faults.LatePlacement


async def nothing(local: LocalAWS, stage: Stage) -> None:
    """Let nothing else happen."""


@pytest.fixture(autouse=True)
def clear_faults(embedded: LocalAWS) -> Iterator[None]:
    yield
    embedded.play([faults.Clear()])


async def started(
    local: LocalAWS,
    before: Iterable[Event] = (),
    after: Iterable[Event] = (),
    happens: Callable[[LocalAWS, Stage], Awaitable[None]] = nothing,
) -> Stage:
    """Start the scheduler with some faults, and three workers with others; return once all are up and checked."""
    local.play(before)
    async with asyncio.timeout(STUCK), on_ec2(local) as stage:
        controller, roster = stage.controller, stage.controller.roster
        await controller.until(lambda: SCHEDULER in roster.workers)
        if not before:
            await controller.until(lambda: states(controller) == up())
        local.play(after)
        for name in NAMES:
            roster.request(name, DEFAULT)
        await happens(local, stage)
        await controller.until(lambda: states(controller) == up(*NAMES))
        running = {task["id"] for task in local.tasks() if task["status"] == "RUNNING"}
        assert {str(w.task).rpartition("/")[2] for w in roster.workers.values()} == running, "each has one task"
        requested = [e.desired for e in stage.events if isinstance(e, CapacityRequested) and "head" not in e.placement]
        assert requested == [len(NAMES)], "no capacity is bought twice"
        assert [w.attempt for w in roster.workers.values()] == [0] * (1 + len(NAMES))
        return stage


@pytest.mark.parametrize("seconds", [0.0, 4.0, pytest.param(15.0, marks=pytest.mark.slow)])
def test_workers_start_however_late_ecs_places_them(embedded: LocalAWS, seconds: float):
    stage = asyncio.run(started(embedded, [LATE(seconds=seconds)]))
    assert not [event for event in stage.events if isinstance(event, TaskRefused)]


@pytest.mark.parametrize("reason", ["RESOURCE:MEMORY", "TaskFailedToStart: AGENT"])
def test_a_refusal_that_only_the_stopped_task_shows_is_told_and_the_task_is_started_again(
    embedded: LocalAWS, reason: str
):
    late = [LATE(seconds=0.2, fails=reason, count=2, family="*-worker*"), LATE(seconds=0.2)]
    stage = asyncio.run(started(embedded, late))
    refused = [event for event in stage.events if isinstance(event, TaskRefused)]
    assert len(refused) == 2
    assert all(reason in event.reason and event.passing for event in refused)


def test_an_aws_that_begins_to_place_late_is_asked_for_one_task_at_a_time(embedded: LocalAWS):
    before = embedded.status().calls.get("ecs:RunTask", 0)
    asyncio.run(started(embedded, after=[LATE(seconds=1.0)]))
    assert embedded.status().calls["ecs:RunTask"] - before <= 1 + len(NAMES) + len(NAMES)


def test_a_worker_whose_instance_is_lost_before_its_task_is_placed_starts_on_another(embedded: LocalAWS):
    async def lose_an_instance(local: LocalAWS, stage: Stage) -> None:
        roster = stage.controller.roster
        await stage.controller.until(lambda: all(n in roster.workers and roster.workers[n].awaits_place for n in NAMES))
        lost = roster.instance_of(roster.workers[1])
        assert lost is not None
        local.play([faults.HostDeath(instance=lost.id)])

    asyncio.run(started(embedded, [LATE(seconds=3.0)], happens=lose_an_instance))


def test_a_task_whose_answer_was_lost_is_found_before_it_is_placed(embedded: LocalAWS):
    lost = faults.LostResponse(action="ecs:RunTask", count=8)
    asyncio.run(started(embedded, [LATE(seconds=2.0), lost]))
