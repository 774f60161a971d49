"""The control loop that makes AWS match the requested workers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from dask_starburst import cancellation
from dask_starburst.aws import faults
from dask_starburst.errors import BudgetExceeded, LeaseExpired, SchedulerFailed, StarburstError
from dask_starburst.events.cluster import ClusterFailed
from dask_starburst.events.pool import LeaseRenewed
from dask_starburst.events.stream import Emit
from dask_starburst.fleet.capacity.interface import Capacity
from dask_starburst.fleet.controller import explain
from dask_starburst.fleet.controller.background import Background
from dask_starburst.fleet.controller.budget import BudgetClient, BudgetControl, CostTracker, NullCostTracker
from dask_starburst.fleet.controller.execute import Executor, ExecutorClient
from dask_starburst.fleet.controller.interruptions import Interruptions, InterruptionsClient
from dask_starburst.fleet.controller.narrator import Narrator
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.controller.startup_times import StartupClock
from dask_starburst.fleet.controller.troubles import Troubles
from dask_starburst.fleet.controller.unrunnable import UnrunnableClient, watch
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.plan.loop.polling import pause
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import Action, Limits, Name, Observed, RunTask, Worker, WorkerState

logger = logging.getLogger(__name__)
S = WorkerState

#: The pause between two polls varies by these factors, so that clusters that started together do not poll together.
_JITTER = (0.9, 1.1)
#: Errors after which a retry cannot help.
_FATAL = (LeaseExpired, SchedulerFailed)


class SchedulerClient(ExecutorClient, InterruptionsClient, BudgetClient, UnrunnableClient, Protocol):
    """Dask's scheduler, as the controller uses it."""

    def members(self) -> frozenset[Name]:
        """Return the names of the processes that have connected to the scheduler."""

    async def lease(self) -> float:
        """Return the time until which the scheduler has renewed the lease (seconds, AWS's clock); 0 if unknown."""


#: Called with each decision and its inputs, before it is executed: for tests that watch a controller.
Decided = Callable[[tuple[Action, ...], tuple[Worker, ...], Observed, float, Limits], None]


class Controller:
    """Polls AWS, decides with `plan.step`, executes, reports, and sleeps, in a loop.

    Parameters
    ----------
    capacity : Capacity
        The platform that the processes run on.
    dask : SchedulerClient
        The scheduler.
    emit : callable
        Emits an event.
    limits : Limits
        Timeouts, in seconds, and other limits.
    lease : Lease
        Renewed by the loop.
    poll : float
        Seconds between two polls while something is under way.
    on_rebalance : {"replace", "ignore"}
        What to do after a rebalance recommendation.
    cost_tracker : CostTracker, optional
        Tracks the cost and holds the caps.
    """

    def __init__(
        self,
        capacity: Capacity,
        dask: SchedulerClient,
        emit: Emit,
        limits: Limits,
        lease: Lease,
        poll: float,
        on_rebalance: str = "replace",
        cost_tracker: CostTracker | None = None,
    ) -> None:
        self.capacity = capacity
        self.lease = lease
        self.error: StarburstError | None = None
        self.stopping = False
        self.decided: Decided = lambda actions, workers, observed, now, limits: None
        self.on_fatal: Callable[[StarburstError], None] = lambda error: None
        self.startups = StartupClock()
        self.roster = Roster(limits, capacity.now)
        self._emit = emit
        self._dask = dask
        self._poll = poll
        self._unobserved, self._polled_at = False, capacity.now()
        self._wake = asyncio.Event()
        self._polled = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None
        self._background = Background()
        spawn = self._background.spawn
        self._troubles = Troubles(self.roster, capacity, lease, emit, self.fail)
        self._narrator = Narrator(self.roster, capacity, emit, spawn, self.fail, self._notify)
        self._executor = Executor(self.roster, capacity, dask, emit, spawn, self._troubles.note, self.wake)
        self.spot = Interruptions(self.roster, dask, emit, spawn, on_rebalance)
        self.budget = BudgetControl(self.roster, capacity, dask, cost_tracker or NullCostTracker(), emit, spawn)
        self.roster.on_request(self.wake)
        self.roster.listen(lambda _, new: self.startups.note(new, self.roster.observed, capacity.now()))
        self.roster.listen(self._narrator.worker_changed)
        self.roster.listen(self.spot.worker_changed)

    def wake(self) -> None:
        """Poll at once."""
        self._wake.set()

    def explained(self, worker: Worker) -> StarburstError | None:
        """Return why a worker was given up; None until its log has been read for the error."""
        text = self.roster.reason_of(worker)
        return None if text is None else explain.given_up(worker, text)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds after a poll.

        Raises
        ------
        StarburstError
            The loop ended with an error, or was stopped.
        """
        async with self._polled:
            await self._polled.wait_for(lambda: self.error is not None or self.stopping or condition())
        if not condition():
            raise self.error or SchedulerFailed("the cluster was closed before its scheduler was up.")

    def start(self) -> None:
        """Start the loop."""
        self._task = asyncio.ensure_future(self._run())
        self._background.spawn(self.spot.listen())
        self._background.spawn(watch(self._dask, self._emit))

    async def stop(self) -> None:
        """Stop polling and renewing the lease; wait for background tasks, or cancel them, within a bound."""
        self.stopping = True
        self._background.close()
        await self._notify()
        await cancellation.end([self._task, *self._background.tasks])

    def fail(self, error: StarburstError) -> None:
        """Close the cluster because of an error."""
        if self.error is None:
            self.error = error
            self._emit(ClusterFailed(pool=self.capacity.name, error=str(error)))
            self.on_fatal(error)

    # -- the loop -------------------------------------------------------------------------------

    async def _run(self) -> None:
        while self.error is None and not self.stopping:
            self._wake.clear()
            self._troubles.begin_poll()
            scheduler = self.roster.scheduler
            try:
                await self._tick()
            except BudgetExceeded as error:
                self.fail(error)
            except _FATAL as error:
                # A scheduler that was lost has no task any more, and so no log; the one before the poll has.
                self.fail(await self._troubles.reason(error, scheduler or self.roster.scheduler))
            except StarburstError as error:
                self._troubles.note(error)
            except Exception:  # the loop's edge: it has to survive our own bugs
                logger.exception("an iteration of the controller's loop failed; retrying")
            self._troubles.end_poll()
            await self._notify()
            await self._sleep()

    async def _tick(self) -> None:
        now, roster = self.capacity.now(), self.roster
        refused = await self._renew(now)
        await self._observe(now)
        limits = self.budget.enforce(now, roster.limits)
        roster.track(now)
        self.startups.polled(now)
        self._check_scheduler()
        self.spot.update(roster.observed.draining)
        refused = await self._prepare() or refused
        workers = tuple(roster.workers.values())
        decision = step(workers, roster.observed, now, limits)
        self.decided(decision, workers, roster.observed, now, limits)
        actions = [a for a in decision if self.capacity.ready(a)]
        roster.mark_in_flight(actions, now)
        await self._executor.execute(actions)
        starts = Counter(a.placement for a in actions if isinstance(a, RunTask))
        if any(number >= limits.starts for number in starts.values()):
            self.wake()  # more may be started in another decision
        if refused is not None:
            raise refused

    async def _renew(self, now: float) -> StarburstError | None:
        """Renew the lease; return the error if AWS refuses, because the loop continues until the lease ends."""
        try:
            if self.lease.is_due(now) and await self._dask.lease() < 0:
                self.lease.closing = True  # the scheduler is shutting the pool down
            if await self.lease.renew(self.capacity, now):
                self._emit(LeaseRenewed(pool=self.capacity.name, until=self.lease.until))
        except _FATAL:
            raise
        except StarburstError as error:
            if faults.outage(error):  # the scheduler renews it too, with its own credentials
                self.lease.extend(await self._dask.lease())
            return error
        return None

    async def _prepare(self) -> StarburstError | None:
        """Look up what the next actions need; return the error if AWS refuses: the other actions do not need it."""
        try:
            await self.capacity.prepare(self.roster.observed)
        except StarburstError as error:
            return error
        return None

    async def _observe(self, now: float) -> None:
        roster, before = self.roster, self.roster.observed
        try:
            seen = await self.capacity.observe(before, roster.workers.values(), self._dask.members(), now)
        except StarburstError:
            self._unobserved = True
            raise
        if self._unobserved:
            roster.delayed(now - self._polled_at)
        self._unobserved, self._polled_at = False, now
        roster.observe(seen, before)
        self._narrator.state_changed(before, seen)

    def _check_scheduler(self) -> None:
        scheduler = self.roster.scheduler
        if scheduler is not None and scheduler.state is S.LOST:
            why = f"the scheduler was lost: {scheduler.reason}. Its tasks and results are lost"
            raise SchedulerFailed(f"{why}. The cluster closes; start a new one.")

    async def _notify(self) -> None:
        async with self._polled:
            self._polled.notify_all()

    async def _sleep(self) -> None:
        workers, observed = self.roster.workers, self.roster.observed
        quiet = all(w.state is S.READY or w.over_budget for w in workers.values())
        spares = sum(self.roster.limits.spare.values())
        booting = any(not i.seen and not i.terminating for i in observed.instances.values())
        idle = booting or len(observed.instances) > len(workers) + spares
        calm = self._troubles.any or (quiet and not idle and not observed.in_flight)
        under_way = sum(w.state is not S.READY for w in workers.values())
        seconds = pause(self._poll, under_way, bool(calm)) * random.uniform(*_JITTER)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
