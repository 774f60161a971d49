"""Performing what `plan.step` decided, and telling what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from dask_starburst.aws import autoscaling, ecs
from dask_starburst.errors import StarburstError
from dask_starburst.fleet import observe
from dask_starburst.plan.state import (
    HEAD,
    Action,
    Forget,
    Instance,
    Observed,
    Retire,
    RunTask,
    SetDesired,
    StopTask,
    Terminate,
    WorkerState,
)
from dask_starburst.plan.worker import placed, refused

if TYPE_CHECKING:
    from dask_starburst.fleet.fleet import DaskSide, Fleet


class Performer:
    """Carries actions out for one fleet."""

    def __init__(self, fleet: Fleet, dask: DaskSide) -> None:
        self._fleet = fleet
        self._dask = dask
        self.background: set[asyncio.Task[None]] = set()

    async def all(self, actions: Iterable[Action]) -> None:
        """Perform the actions at once; one that fails does not hinder the others."""
        await asyncio.gather(*(self._guarded(action) for action in actions))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside the loop."""
        task = asyncio.ensure_future(work)
        self.background.add(task)
        task.add_done_callback(self.background.discard)

    async def _guarded(self, action: Action) -> None:
        try:
            await self._one(action)
        except StarburstError as error:
            # It counts as asked for, so that it is asked again only after a while.
            self._fleet.troubled(error)

    async def _one(self, action: Action) -> None:
        pool = self._fleet.pool
        match action:
            case SetDesired(group, desired):
                await autoscaling.set_desired(pool.aws, pool.names.group(group), desired)
                text = f"ordered: {desired} instance{'' if desired == 1 else 's'} in group {group}"
                self._fleet.tell("capacity-ordered", group, text, desired=desired)
            case RunTask():
                await self._run(action)
            case StopTask(task, reason):
                await ecs.stop_task(pool.aws, pool.name, task, reason)
            case Terminate(instance, _):
                await autoscaling.terminate(pool.aws, instance)
            case Retire(worker):
                self.spawn(self._beside(action, self._dask.retire(worker)))
            case Forget(worker):
                self.spawn(self._beside(action, self._dask.forget(worker)))

    async def _beside(self, action: Action, work: Coroutine[Any, Any, None]) -> None:
        """Wait for Dask beside the loop; a slow answer is not asked for again meanwhile."""
        fleet = self._fleet
        try:
            await work
        except (OSError, StarburstError) as error:
            fleet.tell("dask-error", fleet.pool.name, f"{action} failed: {error}", logging.WARNING)
        fleet.observed = observe.unask(fleet.observed, action)
        fleet.wake()

    async def _run(self, action: RunTask) -> None:
        fleet = self._fleet
        now = fleet.pool.aws.now()
        try:
            request = fleet.launcher.request(fleet.pool, action)
            placement = await ecs.run_task(fleet.pool.aws, request)
        except StarburstError as error:
            placement = ecs.Placement(None, str(error))
        fleet.observed = observe.unask(fleet.observed, action)
        if placement.task is not None:
            fleet.observed = observe.add_task(fleet.observed, placement.task)
        worker = fleet.workers.get(action.worker)
        if worker is None or worker.state is not WorkerState.CAPACITY:
            return  # cancelled meanwhile; step stops a task that nobody waits for
        if placement.task is not None:
            fleet.workers[action.worker] = placed(worker, placement.task, now)
            fleet.launched.append(fleet.workers[action.worker])
        else:
            fleet.workers[action.worker] = refused(
                worker, f"ECS refused its task: {placement.refusal}", passing=placement.passing
            )

    def compare(self, before: Observed, after: Observed) -> None:
        """Tell which instances came, connected and went, and which launches AWS refused."""
        for instance in after.instances.values():
            old = before.instances.get(instance.id)
            self._compare_instance(old, instance)
        for gone in before.instances.keys() - after.instances.keys():
            if not before.instances[gone].terminating:
                self._terminated(before.instances[gone])
        for name, group in after.groups.items():
            known = before.groups.get(name)
            if group.failure and (known is None or known.failed_at < group.failed_at):
                text = f"AWS could not launch an instance in group {name}: {group.failure}"
                self._fleet.tell("launch-failed", name, text, logging.WARNING)

    def _compare_instance(self, old: Instance | None, new: Instance) -> None:
        tell = self._fleet.tell
        if old is None and not new.terminating:
            market = "spot" if new.group == "spot" else "on-demand"
            text = f"instance {new.id} ({new.type}, {market}) is booting"
            tell("instance-launched", new.id, text, type=new.type, market=market, group=new.group)
        if new.connected and not (old and old.seen):
            text = f"instance {new.id} is ready for {'the scheduler' if new.group == HEAD else 'a worker'}"
            tell("instance-connected", new.id, text)
        if old is not None and new.terminating and not old.terminating:
            self._terminated(new)

    def _terminated(self, instance: Instance) -> None:
        self._fleet.tell("instance-terminated", instance.id, f"instance {instance.id} is terminated")
