"""The control loop that makes AWS match the requested workers."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from dask_starburst import cancellation
from dask_starburst.aws import faults, logs
from dask_starburst.errors import BudgetExceeded, LeaseExpired, SchedulerFailed, StarburstError
from dask_starburst.events.cluster import ClusterFailed
from dask_starburst.events.pool import LeaseRenewed
from dask_starburst.events.stream import Emit
from dask_starburst.events.workers import (
    WorkerDelayed,
    WorkerFallback,
    WorkerLost,
    WorkerReady,
    WorkerRetiring,
    WorkerRetried,
    WorkerStartFailed,
    WorkerStopped,
)
from dask_starburst.fleet.controller import explain, observe
from dask_starburst.fleet.controller.budget import BudgetClient, BudgetControl, CostTracker, NullCostTracker
from dask_starburst.fleet.controller.execute import Executor
from dask_starburst.fleet.controller.interruptions import Interruptions, InterruptionsClient
from dask_starburst.fleet.controller.launch import Launcher
from dask_starburst.fleet.controller.observe import Observer
from dask_starburst.fleet.controller.startup_times import StartupClock
from dask_starburst.fleet.controller.troubles import Troubles
from dask_starburst.fleet.controller.unrunnable import UnrunnableClient, watch
from dask_starburst.fleet.pool.lease import Lease
from dask_starburst.fleet.pool.pool import Pool
from dask_starburst.plan.groups import HEAD, HEAD_PLACEMENT
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.polling import pause
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import SCHEDULER, Action, Limits, Name, Observed, Worker, WorkerState
from dask_starburst.plan.loop.worker import delayed, fell_back, given_up, reset, rested, retried, track
from dask_starburst.plan.requests.tasks import LOG_GROUP

logger = logging.getLogger(__name__)
S = WorkerState

#: The pause between two polls varies by these factors, so that fleets that started together do not poll together.
_JITTER = (0.9, 1.1)
#: Errors after which a retry cannot help.
_FATAL = (LeaseExpired, SchedulerFailed)


class SchedulerClient(InterruptionsClient, BudgetClient, UnrunnableClient, Protocol):
    """Dask's scheduler, as the fleet uses it."""

    def members(self) -> frozenset[Name]:
        """Return the names of the processes that have connected to the scheduler."""

    async def retire(self, name: Name) -> None:
        """Move a worker's data to other workers and close it."""

    async def forget(self, name: Name) -> None:
        """Remove a dead worker from the scheduler."""

    async def lease(self) -> float:
        """Return the time until which the scheduler has renewed the lease (seconds, AWS's clock); 0 if unknown."""


#: Called with each decision and its inputs, before it is executed: for tests that watch a fleet.
Decided = Callable[[tuple[Action, ...], tuple[Worker, ...], Observed, float, Limits], None]


class Fleet:
    """Holds the requested workers; polls AWS, decides with `plan.step`, executes, and sleeps, in a loop.

    Parameters
    ----------
    pool : Pool
        The pool that this session has checked out.
    launcher : Launcher
        Builds RunTask requests.
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
    books : Books, optional
        Tracks the cost and holds the caps.
    """

    def __init__(
        self,
        pool: Pool,
        launcher: Launcher,
        dask: SchedulerClient,
        emit: Emit,
        limits: Limits,
        lease: Lease,
        poll: float,
        on_rebalance: str = "replace",
        cost_tracker: CostTracker | None = None,
    ) -> None:
        self.pool = pool
        self.emit = emit
        self.launcher = launcher
        self.workers: dict[Name, Worker] = {}
        self.launched: list[Worker] = []
        self.startups = StartupClock()
        self.observed = Observed()
        self.error: StarburstError | None = None
        self.stopping = False
        self.decided: Decided = lambda actions, workers, observed, now, limits: None
        self.on_fatal: Callable[[StarburstError], None] = lambda error: None
        self._dask = dask
        self._limits = limits
        self.lease = lease
        self._poll = poll
        self._head: Worker | None = None
        self._launches = 0
        self._explained: dict[Name, tuple[int, StarburstError]] = {}
        self._troubles = Troubles(self)
        self.troubled = self._troubles.note
        self._unobserved, self._polled_at = False, pool.aws.now()
        self._wake = asyncio.Event()
        self._polled = asyncio.Condition()
        self._observer = Observer(pool, poll)
        self._executor = Executor(self, dask)
        self.spot = Interruptions(self, dask, limits, on_rebalance)
        self.budget = BudgetControl(self, dask, cost_tracker or NullCostTracker())
        self._task: asyncio.Task[None] | None = None

    # -- requested workers ----------------------------------------------------------------------

    def request(self, name: Name, group: str) -> None:
        """Request a process of a group; the loop starts it."""
        placement = HEAD_PLACEMENT if group == HEAD else self._limits.placements[group][0]
        old = self.workers.get(name)
        now = self.pool.aws.now()
        if old is None:
            # Launch numbers continue after those of earlier workers: ECS remembers their client tokens.
            self.workers[name] = Worker(name, placement, since=now, not_before=now, launch=self._launches)
        elif not old.requested:
            self.workers[name] = replace(old, requested=True)
        self.wake()

    def cancel(self, name: Name) -> None:
        """Cancel a request: a worker that has not been launched is dropped, a running one is retired."""
        if name in self.workers and name not in self.spot.pending_replacement:
            self.workers[name] = replace(self.workers[name], requested=False)
            self.wake()

    def retry_failed(self) -> None:
        """Give the workers that were given up a new set of attempts, because the user requested them again."""
        now = self.pool.aws.now()
        for worker in self.failed():
            self.workers[worker.name] = replace(reset(worker, now, 0), reason="")

    def retry_rested(self) -> None:
        """Give the workers that were given up long enough ago a new set of attempts, because there is work for them."""
        now = self.pool.aws.now()
        for worker in self.failed():
            if not worker.is_scheduler and rested(worker, now, self._limits):
                self.workers[worker.name] = fresh = retried(worker, now, self._limits)
                self._emit_transition(worker, fresh)
                self.wake()

    def wake(self) -> None:
        """Poll at once."""
        self._wake.set()

    def invalidate(self) -> None:
        """Force a full refresh at the next poll, because a response was lost."""
        self._observer.invalidate()

    def cordon(self, instance: str) -> None:
        """Place no further task on an instance, because it is interrupted or drained."""
        self.observed = observe.cordon(self.observed, instance)

    def refuse(self, refusal: Refusal) -> None:
        """Avoid the refused offering for a while."""
        self.observed = replace(self.observed, refusals=(*self.observed.refusals, refusal))

    def failed(self) -> list[Worker]:
        """Return the workers that were given up after their last attempt."""
        return [w for w in self.workers.values() if given_up(w, self._limits)]

    def explained(self, worker: Worker) -> StarburstError | None:
        """Return why a worker was given up; None until its log has been read for the error."""
        launch, error = self._explained.get(worker.name, (-1, None))
        return error if launch == worker.launch else None

    def unordered(self) -> frozenset[Name]:
        """Return the names of the requested workers without an instance on its way; cancelling them is free."""
        waiting = [w for w in self.workers.values() if w.state is S.REQUESTED]
        return frozenset(w.name for w in (*waiting, *self.failed()))

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

    # -- the loop -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the loop."""
        self._task = asyncio.ensure_future(self._run())
        self.spawn(self.spot.listen())
        self.spawn(watch(self, self._dask))

    async def stop(self) -> None:
        """Stop polling and renewing the lease; wait for background tasks, or cancel them, within a bound."""
        self.stopping = True
        await self._notify()
        await cancellation.end([self._task, *self._executor.background])

    async def _run(self) -> None:
        while self.error is None and not self.stopping:
            self._wake.clear()
            self._troubles.begin_poll()
            try:
                await self._tick()
            except BudgetExceeded as error:
                self.fail(error)
            except _FATAL as error:
                self.fail(await self._troubles.reason(error, self._head or self.workers.get(SCHEDULER)))
            except StarburstError as error:
                self.troubled(error)
            except Exception:  # the loop's edge: it has to survive our own bugs
                logger.exception("an iteration of the fleet's loop failed; retrying")
            self._troubles.end_poll()
            await self._notify()
            await self._sleep()

    async def _tick(self) -> None:
        now = self.pool.aws.now()
        refused = await self._renew(now)
        await self._poll_aws(now)
        limits = self.budget.enforce(now, self._limits)
        self._track(now)
        self.spot.update(self.observed.draining)
        refused = await self._find_head() or refused
        workers = tuple(self.workers.values())
        decision = step(workers, self.observed, now, limits)
        self.decided(decision, workers, self.observed, now, limits)
        actions = [a for a in decision if self.launcher.ready_for(a)]
        self.observed = observe.mark_in_flight(self.observed, actions, now, self._limits.repeat)
        await self._executor.execute(actions)
        if refused is not None:
            raise refused

    async def _renew(self, now: float) -> StarburstError | None:
        """Renew the lease; return the error if AWS refuses, because the loop continues until the lease ends."""
        try:
            if await self.lease.renew(self.pool, now):
                self.emit(LeaseRenewed(pool=self.pool.name, until=self.lease.until))
        except _FATAL:
            raise
        except StarburstError as error:
            if faults.outage(error):  # the scheduler renews it too, with its own credentials
                self.lease.extend(await self._dask.lease())
            return error
        return None

    async def _find_head(self) -> StarburstError | None:
        """Look up the scheduler's addresses; return the error if AWS refuses: the other steps do not need them."""
        try:
            await self.launcher.find_scheduler(self.pool, self.observed)
        except StarburstError as error:
            return error
        return None

    async def _poll_aws(self, now: float) -> None:
        before = self.observed
        try:
            self.observed = await self._observer.poll(before, self.workers.values(), self._dask.members(), now)
        except StarburstError:
            self._unobserved = True
            raise
        if self._unobserved:
            self.workers = {name: delayed(w, now - self._polled_at) for name, w in self.workers.items()}
        self._unobserved, self._polled_at = False, now
        self._executor.compare(before, self.observed)

    def _track(self, now: float) -> None:
        for name, old in list(self.workers.items()):
            new = track(old, self.observed, now, self._limits)
            self.workers[name] = new
            if new is not old:
                self.startups.note(new, self.observed, now)
                self._emit_transition(old, new)
            if new.state is S.STOPPED and not new.requested:
                self._launches = max(self._launches, new.launch + 1)
                self._explained.pop(name, None)
                del self.workers[name]
        self.startups.polled(now)

    # -- events ---------------------------------------------------------------------------------

    def _emit_transition(self, old: Worker, new: Worker) -> None:
        if fell_back(old, new, self._limits):
            before = str(old.placement)
            self.emit(WorkerFallback(name=new.name, placement=str(new.placement), before=before, reason=new.reason))
            self.spot.counts.fallbacks += 1
        if (new.state, new.attempt) == (old.state, old.attempt):
            return
        if new.attempt > old.attempt or new.state is S.FAILED:
            self.spawn(self._explain(old, new))
        elif old.state is S.FAILED and new.rounds > old.rounds:
            self.emit(WorkerRetried(name=new.name))
        elif new.transient_failures > old.transient_failures:
            self.emit(WorkerDelayed(name=new.name, reason=new.reason))
        elif new.state is S.READY:
            where, seconds = observe.instance_of(self.observed, new), self.pool.aws.now() - old.since
            self.emit(WorkerReady(name=new.name, instance=where, seconds=seconds))
        elif old.state is S.READY and new.state in (S.LOST, S.REQUESTED, S.CAPACITY):
            self._lost(old, new)
        elif new.state is S.RETIRING:
            self.emit(WorkerRetiring(name=new.name))
        elif new.state is S.STOPPED and old.task:
            self.emit(WorkerStopped(name=new.name, instance=observe.instance_of(self.observed, old)))

    def _lost(self, old: Worker, new: Worker) -> None:
        if not new.is_scheduler:
            where, advice = observe.instance_of(self.observed, old), explain.hint(new.reason)
            self.emit(WorkerLost(name=new.name, reason=new.reason, instance=where, advice=advice))
            self.spot.exempt_lost(old)
            return
        self._head = old  # the new one has no task any more, and so no log
        why = f"the scheduler was lost: {new.reason}. Its tasks and results are lost"
        raise SchedulerFailed(f"{why}. The cluster closes; start a new one.")

    async def _explain(self, old: Worker, new: Worker) -> None:
        final = new.state is S.FAILED
        lines = await self.log_tail(old) if old.task else []
        attempt = old.attempt if not final else new.attempt
        failed = replace(old, attempt=attempt, unserved=new.unserved)
        then = explain.rest(new, self._limits) if final and not new.is_scheduler else ""
        text = explain.failure(failed, new.reason, lines, self._limits.attempts, then)
        self.emit(WorkerStartFailed(name=new.name, reason=new.reason, final=final, text=text))
        if final and new.is_scheduler:
            self.fail(SchedulerFailed(text))
        elif final and new.name in self.workers:  # it may have been cancelled while its log was read
            self._explained[new.name] = new.launch, explain.given_up(new, text)
        await self._notify()

    async def log_tail(self, worker: Worker, lines: int = explain.LOG_LINES) -> list[str]:
        """Return the newest log lines of a process, also of an ended one."""
        role = SCHEDULER if worker.is_scheduler else "worker"
        stream = f"{self.pool.name}/{role}/{(worker.task or '').rpartition('/')[2]}"
        try:
            return await logs.tail(self.pool.aws, LOG_GROUP, stream, lines)
        except StarburstError as error:
            return [f"(its log cannot be read: {error})"]

    def fail(self, error: StarburstError) -> None:
        """Close the cluster because of an error."""
        if self.error is None:
            self.error = error
            self.emit(ClusterFailed(pool=self.pool.name, error=str(error)))
            self.on_fatal(error)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the background until the loop stops."""
        self._executor.spawn(work)

    async def _notify(self) -> None:
        async with self._polled:
            self._polled.notify_all()

    async def _sleep(self) -> None:
        quiet = all(w.state is S.READY or w.over_budget for w in self.workers.values())
        spares = sum(self._limits.spare.values())
        booting = any(not i.seen and not i.terminating for i in self.observed.instances.values())
        idle = booting or len(self.observed.instances) > len(self.workers) + spares
        calm = self._troubles.any or (quiet and not idle and not self.observed.in_flight)
        under_way = sum(w.state is not S.READY for w in self.workers.values())
        seconds = pause(self._poll, under_way, bool(calm)) * random.uniform(*_JITTER)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
