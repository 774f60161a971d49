"""ECS tasks on EC2 instances of Auto Scaling groups: the pool that a session has checked out."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from typing import Any

from dask_starburst.aws import autoscaling, ec2, ecs, logs
from dask_starburst.errors import StarburstError
from dask_starburst.events.instances import InstanceTimestamps
from dask_starburst.fleet.capacity.interface import Accepted, Failed, Ran, Refused, Report
from dask_starburst.fleet.capacity.launch import Launcher
from dask_starburst.fleet.capacity.observe import Observer
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.loop.state import (
    SCHEDULER,
    Action,
    Name,
    Observed,
    RunTask,
    SetDesired,
    SetTypes,
    StopTask,
    Terminate,
    Worker,
)
from dask_starburst.plan.requests.tasks import LOG_GROUP


class EC2Capacity:
    """The capacity of one checked-out pool; see `Capacity`.

    Parameters
    ----------
    pool : Pool
        The pool.
    launcher : Launcher
        Builds RunTask requests, and knows the scheduler's addresses.
    poll : float
        Seconds between two polls while something is under way.
    """

    def __init__(self, pool: Pool, launcher: Launcher, poll: float) -> None:
        self._pool = pool
        self._launcher = launcher
        self._observer = Observer(pool, poll)
        self.now = pool.aws.now
        self.renew_credentials = pool.aws.renew_credentials
        self.renew = pool.renew
        self.is_claimed_and_open = pool.is_claimed_and_open
        self.ready = launcher.ready_for

    @property
    def name(self) -> str:
        """The name of the pool."""
        return self._pool.name

    @property
    def scheduler_address(self) -> str:
        """The address of the scheduler that workers connect to."""
        return self._launcher.scheduler_address

    @property
    def contact_address(self) -> str:
        """The address of the scheduler that the client connects to."""
        return self._launcher.contact_address

    @property
    def reachable(self) -> bool:
        """Whether EC2 has told the address of the scheduler that the client connects to."""
        return self._launcher.reachable

    async def observe(
        self, before: Observed, workers: Collection[Worker], members: frozenset[Name], now: float
    ) -> Observed:
        """Return the state of the pool."""
        return await self._observer.poll(before, workers, members, now)

    async def prepare(self, observed: Observed) -> None:
        """Look up the scheduler's addresses as soon as its instance exists."""
        await self._launcher.find_scheduler(self._pool, observed)

    async def billable(self, instances: Iterable[str]) -> list[InstanceTimestamps]:
        """Return EC2's launch and termination times; Auto Scaling does not say."""
        return [
            InstanceTimestamps(
                instance=life.id, launched=life.launched, ended=life.ended, zone=life.zone, taken=life.taken
            )
            for life in await ec2.lives(self._pool.aws, instances)
        ]

    async def explain(self, worker: Worker, lines: int, patience: float = 0.0) -> list[str]:
        """Return the newest log lines of a process from CloudWatch."""
        role = SCHEDULER if worker.is_scheduler else "worker"
        stream = f"{self._pool.name}/{role}/{(worker.task or '').rpartition('/')[2]}"
        try:
            return await logs.tail(self._pool.aws, LOG_GROUP, stream, lines, patience)
        except StarburstError as error:
            return [f"(its log cannot be read: {error})"]

    # -- actions --------------------------------------------------------------------------------

    async def apply(self, actions: Iterable[Action], observed: Observed, report: Report) -> None:
        """Apply actions: instances are terminated and tasks are started in batches."""
        calls: list[Coroutine[Any, Any, None]] = []
        runs: list[RunTask] = []
        ends: list[Terminate] = []
        for action in actions:
            match action:
                case RunTask():
                    runs.append(action)
                case Terminate():
                    ends.append(action)
                case SetDesired() | SetTypes() | StopTask():
                    calls.append(self._one(action, report))
        for place in sorted({end.placement for end in ends}):
            here = [end for end in ends if end.placement == place]
            calls += (self._terminate(part, report) for part in autoscaling.batches(here))
        calls += (self._run(batch, observed, report) for batch in self._launcher.batches(runs, observed))
        await asyncio.gather(*calls)

    async def _one(self, action: SetDesired | SetTypes | StopTask, report: Report) -> None:
        pool = self._pool
        try:
            match action:
                case SetDesired(placement, desired):
                    await pool.set_desired(placement, desired)
                case SetTypes(placement, types):
                    await pool.set_types(placement, types)
                case StopTask(task, reason):
                    await ecs.stop_task(pool.aws, pool.name, task, reason)
        except StarburstError as error:
            report(Failed((action,), error))
        else:
            report(Accepted(action))

    async def _terminate(self, batch: list[Terminate], report: Report) -> None:
        """Terminate instances; if AWS refuses the batch because one is gone already, terminate them one by one."""
        name = self._pool.names.group(batch[0].placement)
        try:
            await autoscaling.terminate(self._pool.aws, name, [action.instance for action in batch])
        except StarburstError as error:
            if len(batch) == 1:
                report(Failed(tuple(batch), error))
            else:
                await asyncio.gather(*(self._terminate([action], report) for action in batch))
        else:
            for action in batch:
                report(Accepted(action))

    async def _run(self, batch: list[RunTask], observed: Observed, report: Report) -> None:
        pool, arns = self._pool, {run: observed.instances[run.instance].arn or "" for run in batch}
        try:
            answer = await ecs.run_tasks(pool.aws, self._launcher.request(pool, batch, observed))
        except StarburstError as error:
            self._observer.invalidate()  # AWS may have started tasks
            report(Failed(tuple(batch), error))
            return
        self._launcher.learn(answer)
        await self._stop_unknown(answer.unknown, report)
        started = {(task.worker, task.launch) for task in answer.tasks}
        missing = {run: answer.refusal(arn) for run, arn in arns.items() if (run.worker, run.launch) not in started}
        refused = (Refused(run, reason, answer.passes(reason)) for run, reason in missing.items())
        report(Ran(tuple(batch), answer.tasks, tuple(refused)))

    async def _stop_unknown(self, tasks: Iterable[str], report: Report) -> None:
        """Stop the tasks of a batch that ECS has not placed: their workers are started again, one by one."""
        reason = "not placed within RunTask, so that its worker is unknown"
        await asyncio.gather(*(self._one(StopTask(task, reason), report) for task in tasks))
