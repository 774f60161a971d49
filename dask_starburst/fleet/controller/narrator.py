"""Turn changes of the roster into events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from dask_starburst.errors import SchedulerFailed, StarburstError
from dask_starburst.events.capacity import LaunchFailed
from dask_starburst.events.instances import InstanceConnected, InstanceLaunched, InstanceTerminated
from dask_starburst.events.stream import Emit
from dask_starburst.events.workers import (
    TaskRefused,
    WorkerDelayed,
    WorkerFallback,
    WorkerLost,
    WorkerReady,
    WorkerRetiring,
    WorkerRetried,
    WorkerStartFailed,
    WorkerStopped,
)
from dask_starburst.fleet.capacity.interface import Capacity
from dask_starburst.fleet.controller import explain
from dask_starburst.fleet.controller.background import Spawn
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.loop.state import Instance, Observed, Worker, WorkerState
from dask_starburst.plan.loop.transitions import refused_late
from dask_starburst.plan.loop.worker import fell_back

S = WorkerState

#: How long the last lines of a process take to appear (seconds): Docker's awslogs driver sends them every five seconds.
_LOG_LATE = 5.0
#: Closes the cluster because of an error.
Fail: TypeAlias = Callable[[StarburstError], None]


def was_lost(old: Worker, new: Worker) -> bool:
    """Whether a worker that was up is gone without having been retired."""
    return old.state is S.READY and new.state in (S.LOST, S.REQUESTED, S.CAPACITY)


@dataclass
class Narrator:
    """Emits what happens to workers and instances.

    Parameters
    ----------
    roster : Roster
        The workers.
    capacity : Capacity
        Reads the log of a process, which explains a failed start.
    emit : callable
        Emits an event.
    spawn : callable
        Runs a coroutine in the background.
    fail : callable
        Closes the cluster; called if the scheduler was given up.
    explained : callable
        Called, and awaited, after a failed start was explained.
    """

    roster: Roster
    capacity: Capacity
    emit: Emit
    spawn: Spawn
    fail: Fail
    explained: Callable[[], Awaitable[None]] = field(repr=False)

    def worker_changed(self, old: Worker, new: Worker) -> None:
        """Emit a worker's change, if it is one of its state or placement."""
        if fell_back(old, new, self.roster.limits):
            before = str(old.placement)
            self.emit(WorkerFallback(name=new.name, placement=str(new.placement), before=before, reason=new.reason))
        if refused_late(old, new) and new.reason != old.reason:  # the same answer to each attempt is emitted once
            self.emit(TaskRefused(name=new.name, reason=new.reason, passing=True))
        if (new.state, new.attempt) == (old.state, old.attempt):
            return
        if new.attempt > old.attempt or new.state is S.FAILED:
            self.spawn(self._explain(old, new))
        elif old.state is S.FAILED and new.rounds > old.rounds:
            self.emit(WorkerRetried(name=new.name))
        elif new.transient_failures > old.transient_failures:
            self.emit(WorkerDelayed(name=new.name, reason=new.reason))
        elif new.state is S.READY:
            seconds = self.roster.clock() - old.since
            self.emit(WorkerReady(name=new.name, instance=self._where(new), seconds=seconds))
        elif was_lost(old, new):
            self._lost(old, new)
        elif new.state is S.RETIRING:
            self.emit(WorkerRetiring(name=new.name))
        elif new.state is S.STOPPED and old.task:
            self.emit(WorkerStopped(name=new.name, instance=self._where(old)))

    def state_changed(self, before: Observed, after: Observed) -> None:
        """Emit which instances were launched, connected and terminated, and which launches AWS refused."""
        for instance in after.instances.values():
            self._instance_changed(before.instances.get(instance.id), instance)
        for gone in before.instances.keys() - after.instances.keys():
            if not before.instances[gone].terminating:
                self.emit(InstanceTerminated(instance=gone))
        known = {(r.placement, r.type, r.text) for r in before.refusals}
        for refusal in after.refusals:
            if (refusal.placement, refusal.type, refusal.text) not in known:
                where = refusal.placement
                text = explain.launch_refused(refusal, after.groups.get(where), after.refusals)
                self.emit(LaunchFailed(placement=str(where), type=refusal.type, why=refusal.kind, text=text))

    def _instance_changed(self, old: Instance | None, new: Instance) -> None:
        if old is None and not new.terminating:
            where = new.placement
            launched = InstanceLaunched(
                instance=new.id,
                type=new.type,
                market=where.market,
                placement=str(where),
                group=where.group,
                warm=new.connected,
            )
            self.emit(launched)
        if new.connected and old is not None and not old.seen:
            self.emit(InstanceConnected(instance=new.id, placement=str(new.placement)))
        if old is not None and new.terminating and not old.terminating:
            self.emit(InstanceTerminated(instance=new.id))

    def _lost(self, old: Worker, new: Worker) -> None:
        if not new.is_scheduler:  # the loop closes the cluster without its scheduler
            advice = explain.hint(new.reason)
            self.emit(WorkerLost(name=new.name, reason=new.reason, instance=self._where(old), advice=advice))

    def _where(self, worker: Worker) -> str:
        """Return the EC2 ID of a worker's instance; empty if it is unknown."""
        instance = self.roster.instance_of(worker)
        return "" if instance is None else instance.id

    def _patience(self, worker: Worker) -> float:
        """Return how long to wait for the last lines of a process: not at all if it never ran (seconds)."""
        task = self.roster.observed.tasks.get(worker.task or "")
        return _LOG_LATE if task is not None and task.exit_code is not None else 0.0

    async def _explain(self, old: Worker, new: Worker) -> None:
        final, limits = new.state is S.FAILED, self.roster.limits
        lines = await self.capacity.explain(old, explain.LOG_LINES, self._patience(old)) if old.task else []
        attempt = old.attempt if not final else new.attempt
        failed = replace(old, attempt=attempt, unserved=new.unserved)
        then = explain.rest(new, limits) if final and not new.is_scheduler else ""
        text = explain.failure(failed, new.reason, lines, limits.attempts, then)
        self.emit(WorkerStartFailed(name=new.name, reason=new.reason, final=final, text=text))
        if final and new.is_scheduler:
            self.fail(SchedulerFailed(text))
        elif final:
            self.roster.explain(new, text)
        await self.explained()
