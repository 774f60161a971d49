"""Hearing of instances that AWS takes back, and seeing to the workers that follow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from dask.utils import format_bytes

from dask_starburst.plan.loop.interruptions import Notice, Outcome, Succession, outcome, to_move_back
from dask_starburst.plan.loop.offerings import REFUSAL_TTL, Refusal
from dask_starburst.plan.loop.state import Instance, Limits, Name, Worker, WorkerState

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Fleet

logger = logging.getLogger(__name__)

#: Seconds before the scheduler is asked again after an answer that was lost.
_PAUSE = 1.0
_THEN = "it hands over what it holds, another worker is asked for"


class InterruptionsClient(Protocol):
    """What has to be known of Dask, and asked of it, about workers that go."""

    async def notices(self, after: int) -> list[Notice]:
        """Wait for notices with a higher number than `after`; none after a while without any."""

    async def counts(self) -> dict[str, float]:
        """Return what the scheduler has counted: bytes moved, results lost, tasks recomputed."""

    async def announce(self, name: Name) -> None:
        """Have the scheduler retire a worker that somebody drains, as it does after a notice."""

    async def replace(self, name: Name) -> Name:
        """Wish for another worker in the place of this one, and return its name."""

    async def withdraw(self, name: Name) -> None:
        """Cancel the request for a worker."""

    async def take_back(self, new: Name, old: Name) -> None:
        """Wish for the old worker again in the place of the new one."""

    async def clear_suspicion(self, names: Collection[Name]) -> None:
        """Have the scheduler not blame tasks for the loss of these workers."""


@dataclass
class SpotCounts:
    """What Spot has done to a cluster: counts, bytes, and worker-seconds without a worker that was wished for."""

    interruptions: int = 0
    rebalances: int = 0
    fallbacks: int = 0
    moved_back: int = 0
    bytes_moved: float = 0.0
    results_lost: int = 0
    recomputed: int = 0
    seconds_lost: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.interruptions or self.rebalances or self.fallbacks)

    def __str__(self) -> str:
        return (
            f"{self.interruptions} interruptions, {format_bytes(int(self.bytes_moved))} moved,"
            f" {self.results_lost} results lost, {self.recomputed} tasks recomputed,"
            f" {self.seconds_lost:.0f} worker-seconds lost"
            + (f", {self.fallbacks} workers bought on demand instead" if self.fallbacks else "")
            + (f", {self.moved_back} moved back" if self.moved_back else "")
        )


@dataclass
class Interruptions:
    """Listens to the scheduler for one fleet, and keeps its books about Spot.

    Parameters
    ----------
    fleet : Fleet
        Whose workers.
    dask : SpotSide
        The scheduler and SpecCluster.
    limits : Limits
        With the ladder of groups.
    on_rebalance : {"replace", "ignore"}
        What a rebalance recommendation leads to.
    """

    fleet: Fleet
    dask: InterruptionsClient
    limits: Limits
    on_rebalance: str = "replace"
    counts: SpotCounts = field(default_factory=SpotCounts)
    pending_replacement: set[Name] = field(default_factory=set)
    _successions: list[Succession] = field(default_factory=list)
    _gaps: dict[Name, tuple[Name, float | None]] = field(default_factory=dict)
    _announced: set[tuple[Name, int]] = field(default_factory=set)
    _taken: set[tuple[Name, int]] = field(default_factory=set)
    _back_from: float = 0.0
    _busy: bool = False

    async def listen(self) -> None:
        """Hear of every notice as soon as the scheduler does."""
        after = 0
        while True:
            try:
                for notice in await self.dask.notices(after):
                    after = max(after, notice.number)
                    await self.heard(notice)
                if self.counts:
                    self._count(await self.dask.counts())
            except OSError:
                await asyncio.sleep(_PAUSE)
            except Exception:  # the loop's edge: the next notice may be the one that matters
                logger.exception("listening for Spot notices failed; it goes on")
                await asyncio.sleep(_PAUSE)

    async def heard(self, notice: Notice) -> None:
        """Do what one notice asks for."""
        worker = self.fleet.workers.get(notice.name)
        if worker is None:
            return
        instance, stays = self._instance(worker), worker.requested and notice.name not in self.pending_replacement
        if notice.kind == "retired":
            await self._retired(worker, stays)
            return
        if notice.kind == "interruption":
            self._interrupted(worker, instance, notice, stays)
        if notice.kind == "rebalance" and stays:
            await self._rebalance(worker, instance)
        elif stays:
            await self._goes(worker, instance, notice)

    async def _retired(self, worker: Worker, stays: bool) -> None:
        """Let a worker go for good that a client had Dask retire, as on a LocalCluster."""
        if stays:
            text = f"worker {worker.name} was retired by retire_workers(); nothing replaces it until scale() or adapt()"
            self.fleet.tell("worker-retired", worker.name, text)
            await self.dask.withdraw(worker.name)

    async def _rebalance(self, worker: Worker, instance: Instance | None) -> None:
        self.counts.rebalances += 1
        ignored = self.on_rebalance == "ignore"
        then = "ignored, as on_rebalance says" if ignored else "it goes once another worker has taken its place"
        text = f"AWS expects to take the instance of worker {worker.name} back: {then}"
        self.fleet.tell("spot-rebalance", worker.name, text, logging.INFO if ignored else logging.WARNING)
        if not ignored:
            self._avoid(instance, "a rebalance recommendation")
            await self._follow(worker, None)

    def _interrupted(self, worker: Worker, instance: Instance | None, notice: Notice, stays: bool) -> None:
        """Count and tell of an interruption once; ECS may have drained the instance before we hear of it."""
        if (worker.name, worker.launch) in self._taken:
            return
        self._taken.add((worker.name, worker.launch))
        self.counts.interruptions += 1
        self._avoid(instance, "a Spot interruption")
        what = f"is taken back by AWS in {notice.seconds or 0:.0f} s (Spot interruption)"
        text = f"{_place(instance)} of worker {worker.name} {what}: {_THEN if stays else 'it is leaving already'}"
        where = instance.id if instance is not None else ""
        self.fleet.tell("spot-interruption", worker.name, text, logging.WARNING, instance=where)

    async def _goes(self, worker: Worker, instance: Instance | None, notice: Notice) -> None:
        fleet, now = self.fleet, self.fleet.pool.aws.now()
        if instance is not None:
            fleet.cordon(instance.id)
        # The scheduler retires it by itself. Not wished from here on: another notice must not replace it again.
        fleet.workers[worker.name] = replace(worker, requested=False, notice=now + (notice.seconds or 0.0))
        if notice.kind != "interruption":
            text = f"{_place(instance)} of worker {worker.name} is drained or stopped: {_THEN}"
            where = instance.id if instance is not None else ""
            fleet.tell("worker-leaving", worker.name, text, logging.WARNING, instance=where)
        new = await self.dask.replace(worker.name)
        self._gaps[new] = (worker.name, None)

    async def _follow(self, worker: Worker, group: str | None) -> None:
        self.pending_replacement.add(worker.name)
        new = await self.dask.replace(worker.name)
        self._successions.append(Succession(worker.name, new, group))

    def lost(self, worker: Worker) -> None:
        """Have no task blamed for a worker whose instance AWS took without a word."""
        instance = self._instance(worker)
        if instance is None or instance.terminating:
            self.fleet.spawn(self._clear_suspicion(worker.name))

    async def _clear_suspicion(self, name: Name) -> None:
        with suppress(OSError):  # then the scheduler is gone, and nothing is left to be blamed
            await self.dask.clear_suspicion([name])

    def look(self, draining: Collection[str]) -> None:
        """See how things stand after each look of the fleet; `draining` holds container instances that ECS drains."""
        self._close_gaps()
        self._forget_the_gone()
        if self._busy:
            return
        due = [(one, what) for one in self._successions if (what := outcome(one, self.fleet.workers)) is not None]
        going = [w for w in self.fleet.workers.values() if w.instance in draining and w.requested]
        drained = [w for w in going if (w.name, w.launch) not in self._announced]
        back = None
        if not self._successions and self.fleet.pool.aws.now() >= self._back_from:
            back = to_move_back(self.fleet.workers.values(), self.fleet.observed, self.limits)
        if due or drained or back:
            self._busy = True
            self.fleet.spawn(self._act(due, drained, back))

    async def _act(self, due: list[tuple[Succession, Outcome]], drained: list[Worker], back: Worker | None) -> None:
        try:
            for one, what in due:
                await self._end(one, what)
            for worker in drained:
                with suppress(OSError):  # then the next look announces it
                    await self.dask.announce(worker.name)
                    self._announced.add((worker.name, worker.launch))
            if back is not None:
                preferred = self.limits.fallback_groups[0]
                text = f"worker {back.name} moves back to {preferred} once that has an instance for it"
                self.fleet.tell("worker-moves-back", back.name, text)
                await self._follow(back, preferred)
        finally:
            self._busy = False

    async def _end(self, one: Succession, what: Outcome) -> None:
        self._successions.remove(one)
        if what.withdraw:
            self._back_from = self.fleet.pool.aws.now() + REFUSAL_TTL
            await self.dask.take_back(one.new, one.old)
        self.pending_replacement.discard(one.old)
        if what.retire:
            new = self.fleet.workers.get(one.new)
            self.counts.moved_back += one.group is not None and new is not None and new.state is WorkerState.READY
            self.fleet.cancel(one.old)

    def _instance(self, worker: Worker) -> Instance | None:
        found = self.fleet.observed.instances.values()
        return next((i for i in found if i.arn is not None and i.arn == worker.instance), None)

    def _avoid(self, instance: Instance | None, why: str) -> None:
        """Have the replacement come from another offering."""
        if instance is not None:
            now = self.fleet.pool.aws.now()
            text = f"{why} of {instance.id}"
            self.fleet.refuse(Refusal(instance.group, "capacity", text, now, instance.type))

    def _close_gaps(self) -> None:
        """Add up for how long there was neither the old worker nor the new one."""
        now, workers = self.fleet.pool.aws.now(), self.fleet.workers
        for new, (old, gone) in list(self._gaps.items()):
            if gone is None and old not in workers:
                self._gaps[new] = (old, now)
            if new not in workers or workers[new].state is WorkerState.READY:
                if new in workers and gone is not None:
                    self.counts.seconds_lost += now - gone
                del self._gaps[new]

    def _forget_the_gone(self) -> None:
        """Forget what was told of workers that are gone, or run on another instance by now."""
        here = {(w.name, w.launch) for w in self.fleet.workers.values()} if self._taken or self._announced else set()
        self._taken &= here
        self._announced &= here

    def _count(self, found: dict[str, float]) -> None:
        self.counts.bytes_moved = found.get("bytes_moved", 0.0)
        self.counts.results_lost = int(found.get("results_lost", 0))
        self.counts.recomputed = int(found.get("recomputed", 0))


def _place(instance: Instance | None) -> str:
    return f"instance {instance.id} ({instance.type})" if instance is not None else "the instance"
