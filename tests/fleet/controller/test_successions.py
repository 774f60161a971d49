"""The succession of workers that have to leave: what goes wrong on the way, and what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dask_starburst.events import Event, EventLog
from dask_starburst.events.spot import SpotInterruption, SpotRebalance, WorkerMovesBack
from dask_starburst.fleet.controller.background import Background
from dask_starburst.fleet.controller.interruptions import Interruptions
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.interruptions import REBALANCE_BYTES, Notice, NoticeKind
from dask_starburst.plan.loop.offerings import REFUSAL_TTL
from dask_starburst.plan.loop.state import Instance, Limits, Name, Observed, ScalingGroup, Worker, WorkerState
from tests.support.placements import ON_DEMAND, SPOT, WITH_FALLBACK

S = WorkerState
NOW = 1000.0


@dataclass
class Scheduler:
    """The scheduler and SpecCluster: they replace workers in the roster, or fail."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    fails: Exception | None = None
    roster: Roster | None = None
    incoming: list[list[Notice]] = field(default_factory=list)

    def _called(self, *call: Any) -> Roster:
        self.calls.append(call)
        if self.fails is not None:
            raise self.fails
        assert self.roster is not None
        return self.roster

    async def notices(self, after: int) -> list[Notice]:
        if not self.incoming:
            await asyncio.Event().wait()
        return [notice for notice in self.incoming.pop(0) if notice.number > after]

    async def counts(self) -> dict[str, float]:
        return {"bytes_moved": 2e9, "results_lost": 1.0, "recomputed": 3.0}

    async def announce_drain(self, name: Name) -> None:
        self._called("announce_drain", name)

    async def replace(self, name: Name) -> Name:
        roster, new = self._called("replace", name), 10 + len(self.calls)
        roster.request(new, DEFAULT)
        roster.cancel(name)  # SpecCluster closes its process
        return new

    async def withdraw(self, name: Name) -> None:
        self._called("withdraw", name).cancel(name)

    async def restore(self, new: Name, old: Name) -> None:
        roster = self._called("restore", new, old)
        roster.request(old, DEFAULT)
        roster.cancel(new)

    async def exempt(self, names: Collection[Name]) -> None:
        self._called("exempt", *names)


class Story:
    """One ready worker on a Spot instance, and what happens to it."""

    def __init__(self, worker: Worker | None = None, on_rebalance: str = "replace") -> None:
        self.now, self.events, self.dask = NOW, EventLog(), Scheduler()
        here = Instance("i-0", SPOT, "c7g.xlarge", "arn:0", connected=True, seen=True)
        groups = {place: ScalingGroup(place, 1) for place in (SPOT, ON_DEMAND)}
        worker = worker or Worker(0, SPOT, S.READY, since=900.0, task="task-0", instance="arn:0", launch=2)
        limits = Limits(placements=WITH_FALLBACK)
        self.roster = Roster(limits, lambda: self.now, [worker], Observed(groups, {"i-0": here}))
        self.dask.roster = self.roster
        self.background = Background()
        self.spot = Interruptions(self.roster, self.dask, self.events.emit, self.background.spawn, on_rebalance)
        self.roster.listen(self.spot.worker_changed)

    @property
    def workers(self) -> dict[Name, Worker]:
        return dict(self.roster.workers)

    @property
    def requested(self) -> set[Name]:
        return {name for name, worker in self.workers.items() if worker.requested}

    async def notice(self, kind: NoticeKind, seconds: float | None = 120.0, name: Name = 0) -> None:
        await self.spot.handle(Notice(1, name, kind, seconds, held=REBALANCE_BYTES))

    def becomes(self, name: Name, **changes: Any) -> None:
        """Let a worker change as an observation of AWS would change it."""
        self.roster._put(replace(self.roster.workers[name], **changes))

    def leaves(self, name: Name) -> None:
        """Let a worker be gone."""
        del self.roster._workers[name]

    async def polled(self, draining: Collection[str] = ()) -> None:
        """Follow up as after a poll, and wait for what that starts."""
        self.spot.update(draining)
        while self.background.tasks:
            await asyncio.gather(*self.background.tasks, return_exceptions=True)
            await asyncio.sleep(0)

    def said(self, *kinds: type[Event]) -> list[Event]:
        return [event for event in self.events if not kinds or isinstance(event, kinds)]


def test_the_next_interruption_of_the_same_worker_on_another_instance_counts() -> None:
    async def story_of() -> Story:
        story = Story()
        await story.notice("interruption")
        story.becomes(0, launch=3, requested=True, notice=None)
        await story.polled()
        await story.notice("interruption")
        return story

    assert asyncio.run(story_of()).spot.counts.interruptions == 2


def test_an_interrupted_worker_that_is_not_requested_any_more_is_not_replaced() -> None:
    story = Story()
    story.roster.cancel(0)
    asyncio.run(story.notice("interruption"))
    assert story.dask.calls == []
    [event] = story.said(SpotInterruption)
    assert isinstance(event, SpotInterruption)
    assert not event.replaced


def test_after_a_rebalance_recommendation_the_old_worker_goes_once_the_new_one_is_ready() -> None:
    async def story_of() -> None:
        story = Story()
        await story.notice("rebalance")
        assert [type(event) for event in story.said()] == [SpotRebalance]
        await story.polled()
        assert story.requested == {0, 11}, "nothing is lost until the new worker is ready"
        story.becomes(11, state=S.READY)
        await story.polled()
        assert story.requested == {11}
        assert story.spot.counts.rebalances == 1
        assert story.spot.counts.moved_back == 0

    asyncio.run(story_of())


@pytest.mark.parametrize("error", [OSError("connection lost"), RuntimeError("our own bug")], ids=repr)
def test_a_worker_whose_replacement_cannot_be_requested_can_still_be_cancelled(error: Exception) -> None:
    """Else it would run, and cost money, until the cluster closes."""

    async def story_of() -> None:
        story = Story()
        story.dask.fails = error
        with pytest.raises(type(error)):
            await story.notice("rebalance")
        story.roster.cancel(0)
        assert not story.workers[0].requested

    asyncio.run(story_of())


def fallen(worker: Worker | None = None) -> Story:
    """Return the story of a worker that fell back to on demand."""
    return Story(worker or Worker(0, ON_DEMAND, S.READY, since=900.0, task="task-0", instance="arn:0"))


def test_a_worker_on_demand_moves_back_to_spot_as_soon_as_capacity_looks_available() -> None:
    async def story_of() -> None:
        story = fallen()
        await story.polled()
        [event] = story.said()
        assert isinstance(event, WorkerMovesBack)
        assert story.workers[11].placement == SPOT
        story.becomes(11, state=S.READY)
        await story.polled()
        assert not story.workers[0].requested
        assert story.spot.counts.moved_back == 1

    asyncio.run(story_of())


async def refused_again(story: Story) -> None:
    """Move a worker back, and let its new worker fall back again."""
    await story.polled()
    story.becomes(11, placement=ON_DEMAND)
    await story.polled()


def test_a_move_back_without_capacity_is_withdrawn_and_not_tried_again_for_a_while() -> None:
    async def story_of() -> None:
        story = fallen()
        await refused_again(story)
        assert [call[0] for call in story.dask.calls] == ["replace", "restore"]
        assert story.workers[0].requested
        assert not story.workers[11].requested
        story.leaves(11)
        await story.polled()
        assert len(story.dask.calls) == 2
        story.now += REFUSAL_TTL
        await story.polled()
        assert story.dask.calls[-1][0] == "replace"

    asyncio.run(story_of())


def test_a_worker_whose_move_back_cannot_be_withdrawn_can_still_be_cancelled() -> None:
    async def story_of() -> None:
        story = fallen()
        await story.polled()
        story.dask.fails = OSError("connection lost")
        story.becomes(11, placement=ON_DEMAND)
        await story.polled()
        story.roster.cancel(0)
        assert not story.workers[0].requested

    asyncio.run(story_of())


def test_while_a_worker_moves_no_other_one_does() -> None:
    async def story_of() -> None:
        story = fallen()
        await story.polled()
        await story.polled()
        assert [call[0] for call in story.dask.calls] == ["replace"]

    asyncio.run(story_of())


def test_a_worker_on_a_draining_instance_is_announced_once_and_again_if_the_scheduler_did_not_hear_it() -> None:
    async def story_of() -> None:
        story = Story()
        story.dask.fails = OSError("connection lost")
        await story.polled({"arn:0"})
        story.dask.fails = None
        await story.polled({"arn:0"})
        await story.polled({"arn:0"})
        assert story.dask.calls == [("announce_drain", 0)] * 2

    asyncio.run(story_of())


def test_no_time_is_lost_if_the_replacement_is_ready_before_the_old_worker_goes() -> None:
    async def story_of() -> Story:
        story = Story()
        await story.notice("interruption")
        story.becomes(11, state=S.READY)
        await story.polled()
        story.now += 60
        story.leaves(0)
        await story.polled()
        return story

    assert asyncio.run(story_of()).spot.counts.seconds_lost == 0


def test_a_notice_that_cannot_be_handled_does_not_keep_later_ones(caplog: pytest.LogCaptureFixture) -> None:
    async def story_of() -> Story:
        story = Story()
        broken = Notice(1, 0, "unknown-kind", 1.0)  # type: ignore[arg-type]  # an unknown kind
        story.dask.fails = RuntimeError("our own bug")
        story.dask.incoming = [[broken], [broken, Notice(2, 0, "retired")]]
        listening = asyncio.ensure_future(story.spot.listen())
        while not story.dask.calls:
            await asyncio.sleep(0)
        story.dask.fails = None
        story.becomes(0, requested=True)
        while len(story.dask.calls) < 2:
            await asyncio.sleep(0.01)
        listening.cancel()
        return story

    story = asyncio.run(story_of())
    assert story.dask.calls[-1] == ("withdraw", 0)
    assert "listening for Spot notices failed; retrying" in caplog.text


def test_the_scheduler_counts_what_an_interruption_cost() -> None:
    async def story_of() -> Story:
        story = Story()
        story.dask.incoming = [[Notice(1, 0, "interruption", 120.0)]]
        listening = asyncio.ensure_future(story.spot.listen())
        while not story.spot.counts.bytes_moved:
            await asyncio.sleep(0)
        listening.cancel()
        return story

    counts = asyncio.run(story_of()).spot.counts
    assert (counts.bytes_moved, counts.results_lost, counts.recomputed) == (2e9, 1, 3)
