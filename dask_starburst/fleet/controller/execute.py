"""Execute the actions that `plan.step` decided, record their outcome in the roster, and emit it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Protocol

from dask_starburst.aws import faults
from dask_starburst.aws.patience import lag
from dask_starburst.errors import AWSUnavailable, StarburstError
from dask_starburst.events.capacity import CapacityRequested, TypesChosen
from dask_starburst.events.cluster import DaskError
from dask_starburst.events.instances import InstanceGivenUp
from dask_starburst.events.stream import Emit
from dask_starburst.events.workers import TaskRefused
from dask_starburst.fleet.capacity.interface import Accepted, Capacity, Failed, Outcome, Ran, Refused
from dask_starburst.fleet.controller.background import Spawn
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.loop.state import Action, Forget, Name, Retire, RunTask, SetDesired, SetTypes, Terminate


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
    capacity : Capacity
        Where they run.
    dask : ExecutorClient
        The scheduler.
    emit : callable
        Emits an event.
    spawn : callable
        Runs a coroutine in the background.
    troubled : callable
        Called with the error of a call that failed.
    wake : callable
        Lets the loop poll at once.
    """

    roster: Roster
    capacity: Capacity
    dask: ExecutorClient
    emit: Emit
    spawn: Spawn
    troubled: Callable[[StarburstError], None]
    wake: Callable[[], None]

    async def execute(self, actions: Collection[Action]) -> None:
        """Execute the actions; one failure does not affect others."""
        for action in actions:
            match action:
                case Retire(worker):
                    self.spawn(self._alongside(action, self.dask.retire, worker))
                case Forget(worker):
                    self.spawn(self._alongside(action, self.dask.forget, worker))
                case Terminate(reason=reason) if reason:
                    self._give_up(action)
        platform = (action for action in actions if not isinstance(action, Retire | Forget))
        await self.capacity.apply(platform, self.roster.observed, self._record)

    async def _alongside(self, action: Action, call: Callable[[Name], Awaitable[None]], worker: Name) -> None:
        """Wait for Dask in the background; the action stays in flight, so that it is not repeated meanwhile."""
        try:
            await call(worker)
        except Exception as error:  # noqa: BLE001 -- Dask passes on whatever its own handlers raise
            self.emit(DaskError(pool=self.capacity.name, action=str(action), error=repr(error)))
        self.roster.clear_in_flight({action})
        self.wake()

    def _give_up(self, action: Terminate) -> None:
        one = self.roster.observed.instances[action.instance]
        self.emit(InstanceGivenUp(instance=one.id, type=one.type, reason=action.reason, seen=one.seen))

    # -- outcomes -------------------------------------------------------------------------------

    def _record(self, outcome: Outcome) -> None:
        match outcome:
            case Accepted(SetDesired(placement, desired)):
                self.emit(CapacityRequested(placement=str(placement), desired=desired))
            case Accepted(SetTypes(placement, types)):
                self.emit(TypesChosen(placement=str(placement), types=types))
            case Ran():
                self._ran(outcome)
            case Failed(actions, error):
                # The actions stay in flight, so that they are retried only after a while.
                self.troubled(error)
                self._failed(actions, error)

    def _ran(self, outcome: Ran) -> None:
        now = self.roster.clock()
        self.roster.clear_in_flight(set(outcome.runs))
        self.roster.refuse_instances([each.run.instance for each in outcome.refused], now)
        self.roster.place(outcome.tasks, now)
        for each in outcome.refused:
            self._refused(each)

    def _failed(self, actions: Iterable[Action], error: StarburstError) -> None:
        now, outage = self.roster.clock(), faults.outage(error)
        runs = tuple(action for action in actions if isinstance(action, RunTask))
        for action in actions:
            if isinstance(action, SetDesired):
                self.roster.not_served(self.roster.at(action.placement), str(error), now, outage=outage)
        if not outage:
            passing = lag(error) is not None
            self._ran(Ran(runs, (), tuple(Refused(run, str(error), passing) for run in runs)))
            return
        waiting = [w for run in runs if (w := self.roster.waiting(run.worker, run.launch)) is not None]
        self.roster.not_served(waiting, str(error), now, outage=True)
        if not isinstance(error, AWSUnavailable):  # no task was started, so the call may be repeated
            self.roster.clear_in_flight(set(runs))

    def _refused(self, refused: Refused) -> None:
        worker = self.roster.waiting(refused.run.worker, refused.run.launch)
        if worker is None:
            return
        reason = f"ECS refused its task: {refused.reason}"
        if worker.reason != reason:  # the same answer to each attempt is emitted once
            self.emit(TaskRefused(name=worker.name, reason=reason, passing=refused.passing))
        self.roster.refuse_task(worker, reason, passing=refused.passing)
