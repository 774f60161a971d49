"""Execute the actions that `plan.step` decided, and emit their outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from dask_starburst.aws import autoscaling, ecs, faults
from dask_starburst.aws.patience import lag
from dask_starburst.errors import AWSUnavailable, StarburstError
from dask_starburst.events.capacity import CapacityRequested, TypesChosen
from dask_starburst.events.cluster import DaskError
from dask_starburst.events.instances import InstanceGivenUp
from dask_starburst.events.stream import Emit
from dask_starburst.events.workers import TaskRefused
from dask_starburst.fleet.controller.background import Spawn
from dask_starburst.fleet.controller.launch import Launcher
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.loop.state import (
    Action,
    Forget,
    Name,
    Retire,
    RunTask,
    SetDesired,
    SetTypes,
    StopTask,
    Terminate,
    Worker,
)


class ExecutorClient(Protocol):
    """The scheduler's part in executing actions."""

    async def retire(self, name: Name) -> None:
        """Move a worker's data to other workers and close it."""

    async def forget(self, name: Name) -> None:
        """Remove a dead worker from the scheduler."""


@dataclass
class Executor:
    """Executes actions, and records their outcome in the roster.

    Parameters
    ----------
    roster : Roster
        The workers.
    pool : Pool
        The pool that they run in.
    launcher : Launcher
        Builds RunTask requests.
    dask : ExecutorClient
        The scheduler.
    emit : callable
        Emits an event.
    spawn : callable
        Runs a coroutine in the background.
    troubled : callable
        Called with the error of a call that failed.
    invalidate : callable
        Forces a full refresh at the next poll, because a response was lost.
    wake : callable
        Lets the loop poll at once.
    """

    roster: Roster
    pool: Pool
    launcher: Launcher
    dask: ExecutorClient
    emit: Emit
    spawn: Spawn
    troubled: Callable[[StarburstError], None]
    invalidate: Callable[[], None]
    wake: Callable[[], None]

    async def execute(self, actions: Iterable[Action]) -> None:
        """Execute the actions concurrently, in batches where AWS accepts them; one failure does not affect others."""
        single, runs, ends = [], [], []
        for action in actions:
            match action:
                case RunTask():
                    runs.append(action)
                case Terminate():
                    ends.append(action)
                case _:
                    single.append(action)
        await asyncio.gather(
            *(self._guarded(self._one(action), action) for action in single),
            *(
                self._guarded(self._terminate(part))
                for place in sorted({end.placement for end in ends})
                for part in autoscaling.batches([end for end in ends if end.placement == place])
            ),
            *(self._guarded(self._run(batch)) for batch in self.launcher.batches(runs, self.roster.observed)),
        )

    async def _guarded(self, work: Coroutine[Any, Any, None], action: Action | None = None) -> None:
        try:
            await work
        except StarburstError as error:
            # The action stays in flight, so that it is retried only after a while.
            self.troubled(error)
            if isinstance(action, SetDesired):
                self._not_served(self.roster.at(action.placement), error)

    def _not_served(self, workers: Iterable[Worker], error: StarburstError) -> None:
        self.roster.not_served(workers, str(error), self.roster.clock(), outage=faults.outage(error))

    async def _one(self, action: Action) -> None:
        pool = self.pool
        match action:
            case SetDesired(placement, desired):
                await pool.set_desired(placement, desired)
                self.emit(CapacityRequested(placement=str(placement), desired=desired))
            case SetTypes(placement, types):
                await pool.set_types(placement, types)
                self.emit(TypesChosen(placement=str(placement), types=types))
            case StopTask(task, reason):
                await ecs.stop_task(pool.aws, pool.name, task, reason)
            case Retire(worker):
                self.spawn(self._alongside(action, self.dask.retire(worker)))
            case Forget(worker):
                self.spawn(self._alongside(action, self.dask.forget(worker)))

    async def _alongside(self, action: Action, work: Coroutine[Any, Any, None]) -> None:
        """Wait for Dask in the background; the action stays in flight, so that it is not repeated meanwhile."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- Dask passes on whatever its own handlers raise
            self.emit(DaskError(pool=self.pool.name, action=str(action), error=repr(error)))
        self.roster.clear_in_flight({action})
        self.wake()

    async def _terminate(self, batch: list[Terminate]) -> None:
        """Terminate instances; if AWS refuses the batch because one is gone already, terminate them one by one."""
        pool = self.pool
        for action in batch:
            if action.reason:
                one = self.roster.observed.instances[action.instance]
                self.emit(InstanceGivenUp(instance=one.id, type=one.type, reason=action.reason, seen=one.seen))
        try:
            name = pool.names.group(batch[0].placement)
            await autoscaling.terminate(pool.aws, name, [action.instance for action in batch])
        except StarburstError:
            if len(batch) == 1:
                raise
            await asyncio.gather(*(self._guarded(self._terminate([action])) for action in batch))

    async def _run(self, batch: list[RunTask]) -> None:
        now, observed = self.roster.clock(), self.roster.observed
        arns = {run: observed.instances[run.instance].arn or "" for run in batch}
        try:
            placements = await ecs.run_tasks(self.pool.aws, self.launcher.request(self.pool, batch, observed))
        except StarburstError as error:
            self._run_failed(batch, error, now)
            return
        self.launcher.learn(placements)
        await self._stop_unknown(placements.unknown)
        started = {(task.worker, task.launch) for task in placements.tasks}
        refusals = {
            run: placements.refusal(arn) for run, arn in arns.items() if (run.worker, run.launch) not in started
        }
        self.roster.clear_in_flight(set(batch))
        self.roster.refuse_instances([run.instance for run in refusals], now)
        self.roster.place(placements.tasks, now)
        for run, reason in refusals.items():
            self._refused(run, reason, passing=placements.passes(reason))

    async def _stop_unknown(self, tasks: Iterable[str]) -> None:
        """Stop the tasks of a batch that ECS has not placed: their workers are started again, one by one."""
        pool, reason = self.pool, "not placed within RunTask, so that its worker is unknown"
        await asyncio.gather(*(self._guarded(ecs.stop_task(pool.aws, pool.name, task, reason)) for task in tasks))

    def _run_failed(self, batch: list[RunTask], error: StarburstError, now: float) -> None:
        """Handle a RunTask call that failed as a whole. AWS may have started tasks; the next poll finds out."""
        self.invalidate()
        self.troubled(error)
        if faults.outage(error):
            self._not_served([w for run in batch if (w := self.roster.waiting(run.worker, run.launch))], error)
            if not isinstance(error, AWSUnavailable):  # no task was started, so the action may be retried
                self.roster.clear_in_flight(set(batch))
            return
        self.roster.clear_in_flight(set(batch))
        self.roster.refuse_instances([run.instance for run in batch], now)
        for run in batch:
            self._refused(run, str(error), passing=lag(error) is not None)

    def _refused(self, run: RunTask, why: str, *, passing: bool) -> None:
        worker = self.roster.waiting(run.worker, run.launch)
        if worker is None:
            return
        reason = f"ECS refused its task: {why}"
        if worker.reason != reason:  # the same answer to each attempt is emitted once
            self.emit(TaskRefused(name=worker.name, reason=reason, passing=passing))
        self.roster.refuse_task(worker, reason, passing=passing)
