"""Execute the actions that `plan.step` decided, and emit their outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dask_starburst.aws import autoscaling, ecs, faults
from dask_starburst.aws.patience import lag
from dask_starburst.errors import AWSUnavailable, StarburstError
from dask_starburst.events.capacity import CapacityRequested, LaunchFailed, TypesChosen
from dask_starburst.events.cluster import DaskError
from dask_starburst.events.instances import InstanceConnected, InstanceGivenUp, InstanceLaunched, InstanceTerminated
from dask_starburst.events.workers import TaskRefused
from dask_starburst.fleet.controller import explain, observe
from dask_starburst.plan.loop.state import (
    Action,
    Forget,
    Instance,
    Observed,
    Retire,
    RunTask,
    SetDesired,
    SetTypes,
    StopTask,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.loop.worker import placed, refused, unanswered

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Fleet, SchedulerClient


logger = logging.getLogger(__name__)


#: The number of ended processes whose logs `get_logs` reads; CloudWatch keeps all of them.
_REMEMBERED = 1000


class Executor:
    """Executes the actions of one fleet."""

    def __init__(self, fleet: Fleet, dask: SchedulerClient) -> None:
        self._fleet = fleet
        self._dask = dask
        self.background: set[asyncio.Task[None]] = set()

    async def execute(self, actions: Iterable[Action]) -> None:
        """Execute the actions concurrently, in batches where AWS accepts them; one failure does not affect others."""
        fleet, single = self._fleet, []
        runs, ends = [], []
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
            *(self._guarded(self._run(batch)) for batch in fleet.launcher.batches(runs, fleet.observed)),
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background of the loop."""
        if self._fleet.stopping:  # nothing would cancel it
            work.close()
            return
        task = asyncio.ensure_future(work)
        self.background.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self.background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a background task of the fleet failed", exc_info=error)

    async def _guarded(self, work: Coroutine[Any, Any, None], action: Action | None = None) -> None:
        try:
            await work
        except StarburstError as error:
            # The action stays in flight, so that it is retried only after a while.
            self._fleet.troubled(error)
            if isinstance(action, SetDesired):
                waiting = [w for w in self._fleet.workers.values() if w.placement == action.placement]
                self._not_requested(waiting, error)

    def _not_requested(self, workers: Iterable[Worker], error: StarburstError) -> None:
        """Record why these workers get no capacity; after an outage, restart their timeouts."""
        now = self._fleet.pool.aws.now()
        for worker in workers:
            if worker.state is WorkerState.CAPACITY:
                updated = replace(worker, reason=str(error))
                self._fleet.workers[worker.name] = unanswered(updated, now) if faults.outage(error) else updated

    async def _one(self, action: Action) -> None:
        pool = self._fleet.pool
        match action:
            case SetDesired(placement, desired):
                await pool.set_desired(placement, desired)
                self._fleet.emit(CapacityRequested(placement=str(placement), desired=desired))
            case SetTypes(placement, types):
                await pool.set_types(placement, types)
                self._fleet.emit(TypesChosen(placement=str(placement), types=types))
            case StopTask(task, reason):
                await ecs.stop_task(pool.aws, pool.name, task, reason)
            case Retire(worker):
                self.spawn(self._alongside(action, self._dask.retire(worker)))
            case Forget(worker):
                self.spawn(self._alongside(action, self._dask.forget(worker)))

    async def _alongside(self, action: Action, work: Coroutine[Any, Any, None]) -> None:
        """Wait for Dask in the background; the action stays in flight, so that it is not repeated meanwhile."""
        fleet = self._fleet
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- Dask passes on whatever its own handlers raise
            fleet.emit(DaskError(pool=fleet.pool.name, action=str(action), error=repr(error)))
        fleet.observed = observe.clear_in_flight(fleet.observed, {action})
        fleet.wake()

    async def _terminate(self, batch: list[Terminate]) -> None:
        """Terminate instances; if AWS refuses the batch because one is gone already, terminate them one by one."""
        pool = self._fleet.pool
        for action in batch:
            if action.reason:
                one = self._fleet.observed.instances[action.instance]
                self._fleet.emit(InstanceGivenUp(instance=one.id, type=one.type, reason=action.reason, seen=one.seen))
        try:
            name = pool.names.group(batch[0].placement)
            await autoscaling.terminate(pool.aws, name, [action.instance for action in batch])
        except StarburstError:
            if len(batch) == 1:
                raise
            await asyncio.gather(*(self._guarded(self._terminate([action])) for action in batch))

    async def _run(self, batch: list[RunTask]) -> None:
        fleet = self._fleet
        now, observed = fleet.pool.aws.now(), fleet.observed
        arns = {run: observed.instances[run.instance].arn or "" for run in batch}
        try:
            placements = await ecs.run_tasks(fleet.pool.aws, fleet.launcher.request(fleet.pool, batch, observed))
        except StarburstError as error:
            self._run_failed(batch, error, now)
            return
        tasks = {(t.worker, t.launch): t for t in placements.tasks}
        refusals = {run: placements.refusal(arn) for run, arn in arns.items() if (run.worker, run.launch) not in tasks}
        observed = observe.clear_in_flight(fleet.observed, set(batch))
        observed = observe.refuse(observed, [run.instance for run in refusals], now)
        fleet.observed = observe.add_tasks(observed, placements.tasks)
        for run in batch:
            worker = fleet.workers.get(run.worker)
            if worker is None or worker.state is not WorkerState.CAPACITY:
                continue  # cancelled meanwhile; `step` stops a task without a worker
            if run in refusals:
                self._refused(worker, refusals[run], passing=faults.placement_passes(refusals[run]))
            else:
                fleet.workers[run.worker] = placed(worker, tasks[run.worker, run.launch], now)
                self._remember(fleet.workers[run.worker])

    def _run_failed(self, batch: list[RunTask], error: StarburstError, now: float) -> None:
        """Handle a RunTask call that failed as a whole. AWS may have started tasks; the next poll finds out."""
        fleet = self._fleet
        fleet.invalidate()
        fleet.troubled(error)
        waiting = [fleet.workers[run.worker] for run in batch if run.worker in fleet.workers]
        if faults.outage(error):
            self._not_requested(waiting, error)
            if not isinstance(error, AWSUnavailable):  # no task was started, so the action may be retried
                fleet.observed = observe.clear_in_flight(fleet.observed, set(batch))
            return
        fleet.observed = observe.refuse(
            observe.clear_in_flight(fleet.observed, set(batch)), [r.instance for r in batch], now
        )
        for worker in waiting:
            if worker.state is WorkerState.CAPACITY:
                self._refused(worker, str(error), passing=lag(error) is not None)

    def _refused(self, worker: Worker, why: str, *, passing: bool) -> None:
        reason = f"ECS refused its task: {why}"
        if worker.reason != reason:  # the same answer to each attempt is emitted once
            self._fleet.emit(TaskRefused(name=worker.name, reason=reason, passing=passing))
        self._fleet.workers[worker.name] = refused(worker, reason, passing=passing)

    def _remember(self, process: Worker) -> None:
        """Remember launched processes for their logs: all running ones, and the latest ended ones."""
        fleet = self._fleet
        fleet.launched.append(process)
        if len(fleet.launched) > 2 * _REMEMBERED + len(fleet.workers):
            running = {worker.task for worker in fleet.workers.values()}
            ended = [each.task for each in fleet.launched if each.task not in running]
            forgotten = set(ended[:-_REMEMBERED])
            fleet.launched[:] = [each for each in fleet.launched if each.task not in forgotten]

    def compare(self, before: Observed, after: Observed) -> None:
        """Emit which instances were launched, connected and terminated, and which launches AWS refused."""
        for instance in after.instances.values():
            old = before.instances.get(instance.id)
            self._compare_instance(old, instance)
        for gone in before.instances.keys() - after.instances.keys():
            if not before.instances[gone].terminating:
                self._terminated(before.instances[gone])
        known = {(r.placement, r.type, r.text) for r in before.refusals}
        for refusal in after.refusals:
            if (refusal.placement, refusal.type, refusal.text) not in known:
                where = refusal.placement
                text = explain.launch_refused(refusal, after.groups.get(where), after.refusals)
                self._fleet.emit(LaunchFailed(placement=str(where), type=refusal.type, why=refusal.kind, text=text))

    def _compare_instance(self, old: Instance | None, new: Instance) -> None:
        emit = self._fleet.emit
        if old is None and not new.terminating:
            emit(
                InstanceLaunched(
                    instance=new.id,
                    type=new.type,
                    market=new.placement.market,
                    placement=str(new.placement),
                    group=new.placement.group,
                    warm=new.connected,
                )
            )
        if new.connected and old is not None and not old.seen:
            emit(InstanceConnected(instance=new.id, placement=str(new.placement)))
        if old is not None and new.terminating and not old.terminating:
            self._terminated(new)

    def _terminated(self, instance: Instance) -> None:
        self._fleet.emit(InstanceTerminated(instance=instance.id))
