"""The control loop of `fleet.controller` in virtual time: the decisions are the product's, the AWS is simulated."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

from benchmarks.harness.simulator.aws import TICK, SimulatedAWS
from benchmarks.harness.simulator.capacity import SimulatedCapacity, SimulatedScheduler
from dask_starburst.errors import AWSUnavailable, StarburstError
from dask_starburst.events.stream import Emit
from dask_starburst.fleet.controller.execute import Executor
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.reconcile import step
from dask_starburst.plan.loop.state import Action, Limits, Name, Observed, Worker, WorkerState, order
from dask_starburst.plan.money.budget import Caps, Rates, over_budget

S = WorkerState

Check = Callable[[tuple[Action, ...], tuple[Worker, ...], Observed, float, Limits], None]


def run_now(work: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that does not wait, without an event loop."""
    try:
        work.send(None)
    except StopIteration:
        return
    work.close()
    raise AssertionError("a coroutine of the simulation waits")


class SimulatedRoster(Roster):
    """A roster whose workers can be requested in any placement of their group."""

    def request_in(self, name: Name, placement: Placement) -> None:
        """Request a worker, the first time in this placement."""
        now = self.clock()
        self._workers.setdefault(name, Worker(name, placement, since=now, not_before=now))
        self.request(name, placement.group)


class SimulatedController:
    """The control loop of `fleet.controller` without waiting; roster, executor and decisions are the product's.

    Parameters
    ----------
    aws : SimulatedAWS
        AWS and the scheduler.
    limits : Limits
        Timeouts, in seconds, and placements.
    check : callable
        Called with each decision and its inputs, before it is executed.
    workers : iterable of Worker
        Workers that are requested already.
    observed : Observed
        What is known already.
    rates, caps : Rates and Caps
        Hourly cost of instances, and cost caps.
    emit : callable
        Emits an event.
    """

    def __init__(
        self,
        aws: SimulatedAWS,
        limits: Limits,
        check: Check = lambda actions, workers, observed, now, limits: None,
        *,
        workers: Iterable[Worker] = (),
        observed: Observed | None = None,
        rates: Rates | None = None,
        caps: Caps | None = None,
        emit: Emit = lambda event: None,
    ) -> None:
        self.aws = aws
        self.limits = limits
        self.check = check
        self.roster = SimulatedRoster(limits, lambda: aws.now, workers, observed)
        self._rates = rates or Rates()
        self._caps = caps or Caps()
        self._seen = 0.0
        self._unreachable = False
        self.errors: list[StarburstError] = []
        self.capacity = SimulatedCapacity(aws)
        self.scheduler = SimulatedScheduler(aws, self.roster)
        self._executor = Executor(
            self.roster, self.capacity, self.scheduler, emit, run_now, self.errors.append, lambda: None
        )

    @property
    def workers(self) -> Mapping[Name, Worker]:
        """Every requested process by name."""
        return self.roster.workers

    @property
    def observed(self) -> Observed:
        """The known state of AWS and Dask."""
        return self.roster.observed

    def request(self, requested: Iterable[Name], placement: Placement) -> None:
        """Request exactly these workers in the placement."""
        names = set(requested)
        for worker in self.roster.at(placement):
            if worker.name not in names:
                self.roster.cancel(worker.name)
        for name in sorted(names, key=order):
            self.roster.request_in(name, placement)

    def requested(self) -> list[Worker]:
        """Return the workers that are still requested."""
        return [w for w in self.workers.values() if w.requested]

    def tick(self) -> tuple[Action, ...]:
        """Advance the time by one tick and run the loop once; `errors` holds those of its calls."""
        self.aws.pass_time(TICK)
        self.errors.clear()
        actions: list[Action] = []
        run_now(self._tick(actions))
        return tuple(actions)

    async def _tick(self, actions: list[Action]) -> None:
        now = self.aws.now
        try:
            await self._poll(now)
        except AWSUnavailable as error:
            self.errors.append(error)
            self._unreachable = True
            return
        if self._caps:
            self._apply_budget()
        self.roster.track(now)
        workers = tuple(self.workers.values())
        actions += step(workers, self.observed, now, self.limits)
        self.check(tuple(actions), workers, self.observed, now, self.limits)
        self.roster.mark_in_flight(actions, now)
        await self._executor.execute(actions)

    async def _poll(self, now: float) -> None:
        before = self.observed
        seen = await self.capacity.observe(before, self.workers.values(), self.scheduler.members(), now)
        if self._unreachable:
            self.roster.delayed(now - self._seen)
        self._unreachable, self._seen = False, now
        self.roster.observe(seen, before)

    def _apply_budget(self) -> None:
        """Mark the workers over budget, as `fleet.controller.budget` does."""
        now, observed = self.aws.now, self.observed
        workers = self.workers.values()
        self.roster.set_over_budget(over_budget(workers, observed, now, self.limits, self._rates, self._caps, 0.0))

    def converged(self) -> bool:
        """Whether exactly the requested workers are up, with no other resources than the spares."""
        aws, requested = self.aws, self.requested()
        tasks = {p.arn for p in aws.running()}
        occupied = {p.instance for p in aws.running()}
        # A worker counts in the group where it runs: one that was adopted on another group's instance stays there.
        home = {m.arn: m.placement for m in aws.instances.values()}
        used = {g: sum(home.get(w.instance, w.placement) == g for w in requested) for g in aws.desired}
        groups = {g: n + self.limits.spare.get(g, 0) for g, n in used.items()}
        return (
            len(requested) == len(self.workers)
            and all(w.state is S.READY for w in requested)
            and tasks == {w.task for w in requested}
            and aws.desired == groups
            and not self.observed.refusals  # once they expire, all types are launched again
            and all(set(aws.types.get(w.placement, aws.allowed)) == set(aws.allowed) for w in requested)
            and all(len(aws.alive(g)) == n for g, n in groups.items())
            and not any(m.terminating for m in aws.instances.values())
            and all(m.connected or m.arn in occupied for m in aws.instances.values())  # the spares are usable
            and set(aws.members) == {w.name for w in requested}
        )
