"""The one loop that makes AWS match the wishes."""

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
from dask_starburst.events import Event, EventLog
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
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.polling import pause
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import HEAD, SCHEDULER, Action, Limits, Name, Observed, Worker, WorkerState
from dask_starburst.plan.loop.worker import delayed, fell_back, given_up, reset, rested, retried, track
from dask_starburst.plan.requests.tasks import LOG_GROUP

logger = logging.getLogger(__name__)
S = WorkerState

#: Many fleets that were started together must not go on looking together.
_JITTER = (0.9, 1.1)
#: Errors after which asking again cannot help.
_FATAL = (LeaseExpired, SchedulerFailed)


class SchedulerClient(InterruptionsClient, BudgetClient, UnrunnableClient, Protocol):
    """What the fleet has to know of Dask, and to ask of it."""

    def members(self) -> frozenset[Name]:
        """Return the names of the processes that are up."""

    async def retire(self, name: Name) -> None:
        """Move what a worker holds elsewhere and close it."""

    async def forget(self, name: Name) -> None:
        """Remove a dead worker from the scheduler."""

    async def lease(self) -> float:
        """Return until when the scheduler has renewed the lease (seconds, AWS's clock); 0 if it does not say."""


#: Told of each decision with all that it was made from, before anything is done: for tests that watch a fleet.
Decided = Callable[[tuple[Action, ...], tuple[Worker, ...], Observed, float, Limits], None]


class Fleet:
    """Holds the wishes, looks at AWS, decides with `plan.step`, performs, sleeps.

    Parameters
    ----------
    pool : Pool
        Ours.
    launcher : Launcher
        Knows how scheduler and workers are run.
    dask : DaskSide
        The scheduler, seen from here.
    events : EventLog
        Where everything that happens is told.
    limits : Limits
        Patience, in seconds.
    lease : Lease
        Renewed by the loop.
    poll : float
        Seconds between two looks while something is under way.
    on_rebalance : {"replace", "ignore"}
        What follows from a rebalance recommendation.
    cost_tracker : CostTracker, optional
        What things cost, and what may be spent.
    """

    def __init__(
        self,
        pool: Pool,
        launcher: Launcher,
        dask: SchedulerClient,
        events: EventLog,
        limits: Limits,
        lease: Lease,
        poll: float,
        on_rebalance: str = "replace",
        cost_tracker: CostTracker | None = None,
    ) -> None:
        self.pool = pool
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
        self._events = events
        self._limits = limits
        self.lease = lease
        self._poll = poll
        self._head: Worker | None = None
        self._launches = 0
        self._explained: dict[Name, tuple[int, StarburstError]] = {}
        self._troubles = Troubles(self)
        self.troubled = self._troubles.note
        self._blind, self._seen = False, pool.aws.now()
        self._wake = asyncio.Event()
        self._looked = asyncio.Condition()
        self._observer = Observer(pool, poll)
        self._perform = Executor(self, dask)
        self.spot = Interruptions(self, dask, limits, on_rebalance)
        self.budget = BudgetControl(self, dask, cost_tracker or NullCostTracker())
        self._task: asyncio.Task[None] | None = None

    # -- wishes ---------------------------------------------------------------------------------

    def request(self, name: Name, group: str) -> None:
        """Wish for a process; it comes when it can."""
        old = self.workers.get(name)
        now = self.pool.aws.now()
        if old is None:
            # Numbers go on where earlier workers ended: ECS remembers their tokens.
            self.workers[name] = Worker(name, group, since=now, not_before=now, launch=self._launches)
        elif not old.requested:
            self.workers[name] = replace(old, requested=True)
        self.wake()

    def cancel(self, name: Name) -> None:
        """Cancel a wish: what has not been launched is not, what runs is retired."""
        if name in self.workers and name not in self.spot.pending_replacement:
            self.workers[name] = replace(self.workers[name], requested=False)
            self.wake()

    def retry_failed(self) -> None:
        """Give the workers that were given up another set of attempts: somebody asked again."""
        now = self.pool.aws.now()
        for worker in self.failed():
            self.workers[worker.name] = replace(reset(worker, now, 0), reason="")

    def retry_rested(self) -> None:
        """Give those another set of attempts that were given up long enough ago: there is work for them."""
        now = self.pool.aws.now()
        for worker in self.failed():
            if worker.group != HEAD and rested(worker, now, self._limits):
                self.workers[worker.name] = fresh = retried(worker, now, self._limits)
                self._moved(worker, fresh)
                self.wake()

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def invalidate(self) -> None:
        """Ask AWS for everything at the next look: an answer was lost."""
        self._observer.invalidate()

    def cordon(self, instance: str) -> None:
        """Give an instance nothing to do any more: AWS takes it back, or somebody drains it."""
        self.observed = observe.cordon(self.observed, instance)

    def refuse(self, refusal: Refusal) -> None:
        """Launch nothing of this kind for a while."""
        self.observed = replace(self.observed, refusals=(*self.observed.refusals, refusal))

    def failed(self) -> list[Worker]:
        """Return the workers that were given up, after their last attempt."""
        return [w for w in self.workers.values() if given_up(w, self._limits)]

    def explained(self, worker: Worker) -> StarburstError | None:
        """Return why a worker was given up; None until it has been told in full, for its log takes a moment to read."""
        launch, error = self._explained.get(worker.name, (-1, None))
        return error if launch == worker.launch else None

    def unordered(self) -> frozenset[Name]:
        """Return the names of the wishes that no instance is on its way for; taking them back is free."""
        waiting = [w for w in self.workers.values() if w.state is S.REQUESTED]
        return frozenset(w.name for w in (*waiting, *self.failed()))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds after a look.

        Raises
        ------
        StarburstError
            The loop met an error after which it cannot hold any more.
        """
        async with self._looked:
            await self._looked.wait_for(lambda: self.error is not None or self.stopping or condition())
        if not condition():
            raise self.error or SchedulerFailed("the cluster was closed before its scheduler was there.")

    # -- the loop -------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.ensure_future(self._run())
        self.spawn(self.spot.listen())
        self.spawn(watch(self, self._dask))

    async def stop(self) -> None:
        """Look no more and renew no lease; what is under way is finished or given up, within a bound."""
        self.stopping = True
        await self._told()
        await cancellation.end([self._task, *self._perform.background])

    async def _run(self) -> None:
        while self.error is None and not self.stopping:
            self._wake.clear()
            self._troubles.begin()
            try:
                await self._tick()
            except BudgetExceeded as error:
                self.fail(error)
            except _FATAL as error:
                self.fail(await self._troubles.reason(error, self._head or self.workers.get(SCHEDULER)))
            except StarburstError as error:
                self.troubled(error)
            except Exception:  # the loop's edge: it has to outlive our own mistakes
                logger.exception("the fleet's loop stumbled and goes on")
            self._troubles.over()
            await self._told()
            await self._sleep()

    async def _tick(self) -> None:
        now = self.pool.aws.now()
        refused = await self._renew(now)
        await self._look(now)
        limits = self.budget.look(now, self._limits)
        self._follow(now)
        self.spot.look(self.observed.draining)
        refused = await self._look_for_head() or refused
        workers = tuple(self.workers.values())
        decision = step(workers, self.observed, now, limits)
        self.decided(decision, workers, self.observed, now, limits)
        actions = [a for a in decision if self.launcher.ready_for(a)]
        self.observed = observe.mark_in_flight(self.observed, actions, now, self._limits.repeat)
        await self._perform.all(actions)
        if refused is not None:
            raise refused

    async def _renew(self, now: float) -> StarburstError | None:
        """Renew the lease; return what AWS says against it, for there is work to look after until it ends."""
        try:
            if await self.lease.renew(self.pool, now):
                self.tell("lease-renewed", self.pool.name, f"lease renewed until {self.lease}", logging.DEBUG)
        except _FATAL:
            raise
        except StarburstError as error:
            if faults.outage(error):  # the scheduler renews it too, with credentials of its own
                self.lease.heard(await self._dask.lease())
            return error
        return None

    async def _look_for_head(self) -> StarburstError | None:
        """Learn the scheduler's addresses; return what AWS says against it, for the rest does not depend on that."""
        try:
            await self.launcher.find_scheduler(self.pool, self.observed)
        except StarburstError as error:
            return error
        return None

    async def _look(self, now: float) -> None:
        before = self.observed
        try:
            self.observed = await self._observer.look(before, self.workers.values(), self._dask.members(), now)
        except StarburstError:
            self._blind = True
            raise
        if self._blind:
            self.workers = {name: delayed(w, now - self._seen) for name, w in self.workers.items()}
        self._blind, self._seen = False, now
        self._perform.compare(before, self.observed)

    def _follow(self, now: float) -> None:
        for name, old in list(self.workers.items()):
            new = track(old, self.observed, now, self._limits)
            self.workers[name] = new
            if new is not old:
                self.startups.note(new, self.observed, now)
                self._moved(old, new)
            if new.state is S.STOPPED and not new.requested:
                self._launches = max(self._launches, new.launch + 1)
                self._explained.pop(name, None)
                del self.workers[name]
        self.startups.looked(now)

    # -- what is told ---------------------------------------------------------------------------

    def _moved(self, old: Worker, new: Worker) -> None:
        if fell_back(old, new, self._limits):
            why = new.reason or "nothing came"
            text = f"{_who(new)} is bought {new.group} now, because AWS has no {old.group} instance to give: {why}"
            self.tell("worker-fallback", new.name, text, logging.WARNING)
            self.spot.counts.fallbacks += 1
        if (new.state, new.attempt) == (old.state, old.attempt):
            return
        if new.attempt > old.attempt or new.state is S.FAILED:
            self.spawn(self._explain(old, new))
        elif old.state is S.FAILED and new.rounds > old.rounds:
            self.tell("worker-retried", new.name, f"{_who(new)} is tried again after its rest")
        elif new.transient_failures > old.transient_failures:
            text = f"{_who(new)} is started again, for AWS ended it: {new.reason}"
            self.tell("worker-delayed", new.name, text, logging.WARNING)
        elif new.state is S.READY:
            seconds = self.pool.aws.now() - old.since
            text = f"{_who(new)} is up ({seconds:.1f} s after placement)"
            self.tell("worker-ready", new.name, text, instance=observe.instance_of(self.observed, new))
        elif old.state is S.READY and new.state in (S.LOST, S.REQUESTED, S.CAPACITY):
            self._lost(old, new)
        elif new.state is S.RETIRING:
            self.tell("worker-retiring", new.name, f"{_who(new)} hands over what it holds")
        elif new.state is S.STOPPED and old.task:
            where = observe.instance_of(self.observed, old)
            self.tell("worker-stopped", new.name, f"{_who(new)} has ended", instance=where)

    def _lost(self, old: Worker, new: Worker) -> None:
        if new.group != HEAD:
            text = f"{_who(new)} was lost: {new.reason}; it is replaced. {explain.hint(new.reason)}"
            where = observe.instance_of(self.observed, old)
            self.tell("worker-lost", new.name, text.rstrip(), logging.WARNING, instance=where)
            self.spot.lost(old)
            return
        self._head = old  # the new one has no task any more, and so no log
        why = f"the scheduler was lost: {new.reason}. The work that it held is lost"
        raise SchedulerFailed(f"{why}. The cluster closes; start a new one.")

    async def _explain(self, old: Worker, new: Worker) -> None:
        final = new.state is S.FAILED
        lines = await self.log_tail(old) if old.task else []
        attempt = old.attempt if not final else new.attempt
        failed = replace(old, attempt=attempt, unserved=new.unserved)
        then = explain.rest(new, self._limits) if final and new.group != HEAD else ""
        text = explain.failure(failed, new.reason, lines, self._limits.attempts, then)
        level = logging.ERROR if final else logging.WARNING
        self.tell("worker-failed", new.name, text, level)
        if final and new.group == HEAD:
            self.fail(SchedulerFailed(text))
        elif final and new.name in self.workers:  # it may have been taken back while its log was read
            self._explained[new.name] = new.launch, explain.given_up(new, text)
        await self._told()

    async def log_tail(self, worker: Worker, lines: int = explain.LOG_LINES) -> list[str]:
        """Return the newest log lines of a process, also of one that is gone."""
        role = SCHEDULER if worker.group == HEAD else "worker"
        stream = f"{self.pool.name}/{role}/{(worker.task or '').rpartition('/')[2]}"
        try:
            return await logs.tail(self.pool.aws, LOG_GROUP, stream, lines)
        except StarburstError as error:
            return [f"(its log cannot be read: {error})"]

    def tell(self, kind: str, subject: Name, message: str, level: int = logging.INFO, **facts: Any) -> None:
        """Emit an event."""
        self._events.emit(Event(self.pool.aws.now(), kind, subject, message, level, facts))

    def fail(self, error: StarburstError) -> None:
        """End the cluster: it cannot go on."""
        if self.error is None:
            self.error = error
            self.tell("cluster-failed", self.pool.name, str(error), logging.ERROR)
            self.on_fatal(error)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on beside the loop, until it stops."""
        self._perform.spawn(work)

    async def _told(self) -> None:
        async with self._looked:
            self._looked.notify_all()

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


def _who(worker: Worker) -> str:
    return "the scheduler" if worker.group == HEAD else f"worker {worker.name}"
