"""Handle instances that AWS interrupts or drains, and replace their workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from dask_starburst.events.spot import SpotInterruption, SpotRebalance, WorkerLeaving, WorkerMovesBack
from dask_starburst.events.stream import Emit
from dask_starburst.events.workers import WorkerRetired
from dask_starburst.fleet.controller.background import Spawn
from dask_starburst.fleet.controller.narrator import was_lost
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.interruptions import Notice, Outcome, Succession, outcome, to_move_back, why_not_replaced
from dask_starburst.plan.loop.offerings import REFUSAL_TTL, Refusal
from dask_starburst.plan.loop.state import Instance, Name, Worker, WorkerState
from dask_starburst.plan.loop.worker import fell_back

logger = logging.getLogger(__name__)

#: Seconds before the scheduler is asked again after a lost response.
_PAUSE = 1.0


class InterruptionsClient(Protocol):
    """The scheduler's and SpecCluster's part in handling workers that leave."""

    async def notices(self, after: int) -> list[Notice]:
        """Wait for notices with a number above `after`; return none after a timeout."""

    async def counts(self) -> dict[str, float]:
        """Return the scheduler's counts: bytes moved, results lost, tasks recomputed."""

    async def announce_drain(self, name: Name) -> None:
        """Announce a worker whose instance is drained; the scheduler retires it as after a notice."""

    async def replace(self, name: Name) -> Name:
        """Request another worker in place of this one, and return its name."""

    async def withdraw(self, name: Name) -> None:
        """Cancel the request for a worker."""

    async def restore(self, new: Name, old: Name) -> None:
        """Request the old worker again in place of the new one."""

    async def exempt(self, names: Collection[Name]) -> None:
        """Exempt tasks from suspicion for the loss of these workers."""


@dataclass
class SpotCounts:
    """The effects of Spot on a cluster: counts, bytes, and worker-seconds without a requested worker."""

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


@dataclass
class Interruptions:
    """Listens to the scheduler's notices, replaces workers that leave, and counts the effects of Spot.

    Parameters
    ----------
    roster : Roster
        The workers.
    dask : InterruptionsClient
        The scheduler and SpecCluster.
    emit : callable
        Emits an event.
    spawn : callable
        Runs a coroutine in the background.
    on_rebalance : {"replace", "ignore"}
        What to do after a rebalance recommendation.
    """

    roster: Roster
    dask: InterruptionsClient
    emit: Emit
    spawn: Spawn
    on_rebalance: str = "replace"
    counts: SpotCounts = field(default_factory=SpotCounts)
    _gaps: dict[Name, tuple[Name, float | None]] = field(default_factory=dict)
    _announced: set[tuple[Name, int]] = field(default_factory=set)
    _interrupted_launches: set[tuple[Name, int]] = field(default_factory=set)
    _move_back_after: float = 0.0
    _last_rebalance: float | None = None
    _busy: bool = False

    async def listen(self) -> None:
        """Handle every notice as soon as the scheduler receives it."""
        after = 0
        while True:
            try:
                for notice in await self.dask.notices(after):
                    after = max(after, notice.number)
                    await self.handle(notice)
                if self.counts:
                    self._count(await self.dask.counts())
            except OSError:
                await asyncio.sleep(_PAUSE)
            except Exception:  # the loop's edge: later notices must still be handled
                logger.exception("listening for Spot notices failed; retrying")
                await asyncio.sleep(_PAUSE)

    async def handle(self, notice: Notice) -> None:
        """Handle one notice."""
        worker = self.roster.workers.get(notice.name)
        if worker is None:
            return
        instance = self.roster.instance_of(worker)
        stays = worker.requested and not self.roster.held(worker.name)
        if notice.kind == "retired":
            await self._retired(worker, stays)
            return
        if notice.kind == "interruption":
            self._interrupted(worker, instance, notice, stays)
        if notice.kind == "rebalance" and stays:
            await self._rebalance(worker, instance, notice.held)
        elif stays:
            await self._replace_leaving(worker, instance, notice)

    async def _retired(self, worker: Worker, stays: bool) -> None:
        """Cancel the request of a worker that the user retired with ``retire_workers``, as a LocalCluster does."""
        if stays:
            self.emit(WorkerRetired(name=worker.name))
            await self.dask.withdraw(worker.name)

    async def _rebalance(self, worker: Worker, instance: Instance | None, held: int) -> None:
        self.counts.rebalances += 1
        now = self.roster.clock()
        why = "on_rebalance is 'ignore'"
        if self.on_rebalance != "ignore":
            why = why_not_replaced(held, now, self._last_rebalance)
        where, kind = _place(instance)
        self.emit(SpotRebalance(name=worker.name, instance=where, type=kind, ignored=bool(why), why=why))
        if not why:
            self._last_rebalance = now
            self._avoid(instance, "a rebalance recommendation")
            await self._start_succession(worker, None)

    def _interrupted(self, worker: Worker, instance: Instance | None, notice: Notice, stays: bool) -> None:
        """Count and emit an interruption once; ECS may have drained the instance before the notice arrives."""
        if (worker.name, worker.launch) in self._interrupted_launches:
            return
        self._interrupted_launches.add((worker.name, worker.launch))
        self.counts.interruptions += 1
        self._avoid(instance, "a Spot interruption")
        where, kind = _place(instance)
        event = SpotInterruption(
            name=worker.name, instance=where, type=kind, seconds=notice.seconds or 0.0, replaced=stays
        )
        self.emit(event)

    async def _replace_leaving(self, worker: Worker, instance: Instance | None, notice: Notice) -> None:
        if instance is not None:
            self.roster.cordon(instance.id)
        self.roster.leave(worker, self.roster.clock() + (notice.seconds or 0.0))
        if notice.kind != "interruption":
            where, kind = _place(instance)
            self.emit(WorkerLeaving(name=worker.name, instance=where, type=kind))
        new = await self.dask.replace(worker.name)
        self._gaps[new] = (worker.name, None)

    async def _start_succession(self, worker: Worker, placement: Placement | None) -> None:
        self.roster.hold(worker.name)
        try:
            new = await self.dask.replace(worker.name)
        except BaseException:  # without a successor it could never be cancelled again
            self.roster.release(worker.name)
            raise
        self.roster.succeed(Succession(worker.name, new, placement))

    def worker_changed(self, old: Worker, new: Worker) -> None:
        """Count a fallback; exempt tasks from suspicion for a worker whose instance AWS took without a notice."""
        self.counts.fallbacks += fell_back(old, new, self.roster.limits)
        if was_lost(old, new) and not new.is_scheduler:
            instance = self.roster.instance_of(old)
            if instance is None or instance.terminating:
                self.spawn(self._exempt(new.name))

    async def _exempt(self, name: Name) -> None:
        with suppress(OSError):  # then the scheduler is gone, and its suspicion with it
            await self.dask.exempt([name])

    def update(self, draining: Collection[str]) -> None:
        """Follow up successions and drained workers after each poll; `draining` holds draining container instances."""
        self._close_gaps()
        self._prune()
        if self._busy:
            return
        due = [
            (one, what) for one in self.roster.successions if (what := outcome(one, self.roster.workers)) is not None
        ]
        going = [w for w in self.roster.workers.values() if w.instance in draining and w.requested]
        drained = [w for w in going if (w.name, w.launch) not in self._announced]
        back: tuple[Worker, Placement] | None = None
        if not self.roster.successions and self.roster.clock() >= self._move_back_after:
            back = to_move_back(self.roster.workers.values(), self.roster.observed, self.roster.limits)
        if due or drained or back:
            self._busy = True
            self.spawn(self._act(due, drained, back))

    async def _act(
        self, due: list[tuple[Succession, Outcome]], drained: list[Worker], back: tuple[Worker, Placement] | None
    ) -> None:
        try:
            for one, what in due:
                await self._end_succession(one, what)
            for worker in drained:
                with suppress(OSError):  # the next poll announces it again
                    await self.dask.announce_drain(worker.name)
                    self._announced.add((worker.name, worker.launch))
            if back is not None:
                worker, preferred = back
                self.emit(WorkerMovesBack(name=worker.name, placement=str(preferred)))
                await self._start_succession(worker, preferred)
        finally:
            self._busy = False

    async def _end_succession(self, one: Succession, what: Outcome) -> None:
        self.roster.end_succession(one)
        try:
            if what.withdraw:
                self._move_back_after = self.roster.clock() + REFUSAL_TTL
                await self.dask.restore(one.new, one.old)
        finally:
            self.roster.release(one.old)
        if what.retire:
            new = self.roster.workers.get(one.new)
            self.counts.moved_back += one.placement is not None and new is not None and new.state is WorkerState.READY
            self.roster.cancel(one.old)

    def _avoid(self, instance: Instance | None, why: str) -> None:
        """Request the replacement from another offering."""
        if instance is not None:
            now = self.roster.clock()
            text = f"{why} of {instance.id}"
            self.roster.refuse(Refusal(instance.placement, "capacity", text, now, instance.type))

    def _close_gaps(self) -> None:
        """Add up the time without either the old worker or the new one."""
        now, workers = self.roster.clock(), self.roster.workers
        for new, (old, gone) in list(self._gaps.items()):
            if gone is None and old not in workers:
                self._gaps[new] = (old, now)
            if new not in workers or workers[new].state is WorkerState.READY:
                if new in workers and gone is not None:
                    self.counts.seconds_lost += now - gone
                del self._gaps[new]

    def _prune(self) -> None:
        """Forget the announcements of workers that are gone, or that run on another instance by now."""
        here = (
            {(w.name, w.launch) for w in self.roster.workers.values()}
            if self._interrupted_launches or self._announced
            else set()
        )
        self._interrupted_launches &= here
        self._announced &= here

    def _count(self, found: dict[str, float]) -> None:
        self.counts.bytes_moved = found.get("bytes_moved", 0.0)
        self.counts.results_lost = int(found.get("results_lost", 0))
        self.counts.recomputed = int(found.get("recomputed", 0))


def _place(instance: Instance | None) -> tuple[str, str]:
    """Return the ID and the type of an instance; empty if it is unknown."""
    return (instance.id, instance.type) if instance is not None else ("", "")
