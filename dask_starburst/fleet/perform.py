"""Performing what `plan.step` decided, and telling what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from dask_starburst.aws import autoscaling, ecs, warm_pools
from dask_starburst.errors import StarburstError
from dask_starburst.fleet import explain, observe
from dask_starburst.plan.state import (
    HEAD,
    Action,
    Forget,
    Instance,
    Observed,
    Retire,
    RunTask,
    SetDesired,
    SetMaximum,
    SetTypes,
    StopTask,
    Terminate,
    WorkerState,
)
from dask_starburst.plan.worker import placed, refused

if TYPE_CHECKING:
    from dask_starburst.fleet.fleet import DaskSide, Fleet


logger = logging.getLogger(__name__)


class Performer:
    """Carries actions out for one fleet."""

    def __init__(self, fleet: Fleet, dask: DaskSide) -> None:
        self._fleet = fleet
        self._dask = dask
        self.background: set[asyncio.Task[None]] = set()

    async def all(self, actions: Iterable[Action]) -> None:
        """Perform the actions at once, in batches where AWS takes them; one that fails does not hinder the others."""
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
            *(self._guarded(self._one(action)) for action in single),
            *(
                self._guarded(self._terminate(part))
                for group in sorted({end.group for end in ends})
                for part in autoscaling.batches([end for end in ends if end.group == group])
            ),
            *(self._guarded(self._run(batch)) for batch in fleet.launcher.batches(runs, fleet.observed)),
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside the loop."""
        if self._fleet.stopping:  # nothing would end it
            work.close()
            return
        task = asyncio.ensure_future(work)
        self.background.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self.background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("something beside the fleet's loop failed", exc_info=error)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StarburstError as error:
            # It counts as asked for, so that it is asked again only after a while.
            self._fleet.troubled(error)

    async def _one(self, action: Action) -> None:
        pool = self._fleet.pool
        match action:
            case SetDesired(group, desired):
                await pool.order(group, desired)
                text = f"ordered: {desired} instance{'' if desired == 1 else 's'} in group {group}"
                self._fleet.tell("capacity-ordered", group, text, desired=desired)
            case SetMaximum(group, maximum):
                await warm_pools.limit(pool.aws, pool.names.group(group), maximum)
            case SetTypes(group, types):
                await pool.set_types(group, types)
                text = f"group {group} launches {', '.join(types)} now"
                self._fleet.tell("types-chosen", group, text, logging.DEBUG, types=types)
            case StopTask(task, reason):
                await ecs.stop_task(pool.aws, pool.name, task, reason)
            case Retire(worker):
                self.spawn(self._beside(action, self._dask.retire(worker)))
            case Forget(worker):
                self.spawn(self._beside(action, self._dask.forget(worker)))

    async def _beside(self, action: Action, work: Coroutine[Any, Any, None]) -> None:
        """Wait for Dask beside the loop; a slow answer is not asked for again meanwhile."""
        fleet = self._fleet
        try:
            await work
        except Exception as error:  # noqa: BLE001 -- Dask passes on whatever its own handlers raise
            fleet.tell("dask-error", fleet.pool.name, f"{action} failed: {error!r}", logging.WARNING)
        fleet.observed = observe.unask(fleet.observed, {action})
        fleet.wake()

    async def _terminate(self, batch: list[Terminate]) -> None:
        """Terminate instances; if AWS refuses because of one that is gone already, the others one by one."""
        pool = self._fleet.pool
        for action in batch:
            if action.reason:
                text = explain.instance_given_up(self._fleet.observed.instances[action.instance], action.reason)
                self._fleet.tell("instance-given-up", action.instance, text, logging.WARNING)
        try:
            name = pool.names.group(batch[0].group)
            await autoscaling.terminate(pool.aws, name, [action.instance for action in batch])
        except StarburstError:
            if len(batch) == 1:
                raise
            await asyncio.gather(*(self._guarded(self._terminate([action])) for action in batch))

    async def _run(self, batch: list[RunTask]) -> None:
        fleet = self._fleet
        now, observed = fleet.pool.aws.now(), fleet.observed
        arns = {run: observed.instances[run.instance].arn or "" for run in batch}
        error = ""
        try:
            placements = await ecs.run_tasks(fleet.pool.aws, fleet.launcher.request(fleet.pool, batch, observed))
        except StarburstError as refusal:
            # AWS may have done it though its answer was lost: the next look finds that out.
            fleet.doubt()
            placements, error = ecs.Placements((), {}), str(refusal)
        tasks = {(t.worker, t.launch): t for t in placements.tasks}
        refusals = {
            run: error or placements.refusal(arn) for run, arn in arns.items() if (run.worker, run.launch) not in tasks
        }
        observed = observe.unask(fleet.observed, set(batch))
        observed = observe.refuse(observed, [run.instance for run in refusals], now)
        fleet.observed = observe.add_tasks(observed, placements.tasks)
        for run in batch:
            worker = fleet.workers.get(run.worker)
            if worker is None or worker.state is not WorkerState.CAPACITY:
                continue  # cancelled meanwhile; step stops a task that nobody waits for
            if run in refusals:
                reason = f"ECS refused its task: {refusals[run]}"
                fleet.workers[run.worker] = refused(worker, reason, passing=ecs.passes(refusals[run]))
            else:
                fleet.workers[run.worker] = placed(worker, tasks[run.worker, run.launch], now)
                fleet.launched.append(fleet.workers[run.worker])

    def compare(self, before: Observed, after: Observed) -> None:
        """Tell which instances came, connected and went, and which launches AWS refused."""
        for instance in after.instances.values():
            old = before.instances.get(instance.id)
            self._compare_instance(old, instance)
        for gone in before.instances.keys() - after.instances.keys():
            if not before.instances[gone].terminating:
                self._terminated(before.instances[gone])
        known = {(r.group, r.type, r.text) for r in before.refusals}
        for refusal in after.refusals:
            if (refusal.group, refusal.type, refusal.text) not in known:
                text = explain.launch_refused(refusal, after.groups.get(refusal.group), after.refusals)
                facts = {"type": refusal.type, "why": refusal.kind}
                self._fleet.tell("launch-failed", refusal.group, text, logging.WARNING, **facts)

    def _compare_instance(self, old: Instance | None, new: Instance) -> None:
        tell = self._fleet.tell
        if old is None and not new.terminating:
            market = "spot" if new.group == "spot" else "on-demand"
            state = "warm: it takes tasks at once" if new.connected else "booting"
            text = f"instance {new.id} ({new.type}, {market}) is {state}"
            tell("instance-launched", new.id, text, type=new.type, market=market, group=new.group)
        if new.connected and old is not None and not old.seen:
            text = f"instance {new.id} is ready for {'the scheduler' if new.group == HEAD else 'a worker'}"
            tell("instance-connected", new.id, text)
        if old is not None and new.terminating and not old.terminating:
            self._terminated(new)

    def _terminated(self, instance: Instance) -> None:
        self._fleet.tell("instance-terminated", instance.id, f"instance {instance.id} is terminated")
