"""The control loop of `fleet.controller` in virtual time: the decisions are the product's, the AWS is simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from benchmarks.harness.simulator.aws import LOSS, NEVER, TICK, Process, SimulatedAWS
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import remember
from dask_starburst.plan.loop.polling import Connected, booting, differing, join_instances, join_tasks, unverified
from dask_starburst.plan.loop.reconcile import step, unconfirmed
from dask_starburst.plan.loop.state import (
    Action,
    Forget,
    Limits,
    Name,
    Observed,
    Retire,
    RunTask,
    ScalingGroup,
    SetDesired,
    Task,
    Worker,
    WorkerState,
    order,
)
from dask_starburst.plan.money.budget import Caps, Rates, over_budget

S = WorkerState
#: Seconds between two full refreshes, and until a task that has not joined is described: as with a poll of 1.5 s.
FULL_REFRESH = 30.0
JOIN_GRACE = 6.0

Check = Callable[[tuple[Action, ...], tuple[Worker, ...], Observed, float, Limits], None]


class SimulatedRoster(Roster):
    """A roster whose workers can be requested in any placement of their group."""

    def request_in(self, name: Name, placement: Placement) -> None:
        """Request a worker, the first time in this placement."""
        now = self.clock()
        self._workers.setdefault(name, Worker(name, placement, since=now, not_before=now))
        self.request(name, placement.group)


class SimulatedController:
    """The control loop of `fleet.controller` without waiting: poll, track, decide, execute.

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
    ) -> None:
        self.aws = aws
        self.limits = limits
        self.check = check
        self.roster = SimulatedRoster(limits, lambda: aws.now, workers, observed)
        self._rates = rates or Rates()
        self._caps = caps or Caps()
        self._refreshed = -NEVER
        self._seen = 0.0
        self._unreachable = False
        self._described: dict[str, float] = {}

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
        """Advance the time by one tick and run the loop once."""
        self.aws.pass_time(TICK)
        if self.aws.down("poll"):
            self._unreachable = True
            return ()
        if self._unreachable:
            self.roster.delayed(self.aws.now - self._seen)
        self._unreachable, self._seen = False, self.aws.now
        self._poll()
        if self._caps:
            self._apply_budget()
        self.roster.track(self.aws.now)
        now, workers = self.aws.now, tuple(self.workers.values())
        actions = step(workers, self.observed, now, self.limits)
        self.check(actions, workers, self.observed, now, self.limits)
        self.roster.mark_in_flight(actions, now)
        for action in actions:
            self._execute(action)
        return actions

    def _poll(self) -> None:
        """Observe as much, and as late, as `fleet.controller.observe` does."""
        aws, before, now = self.aws, self.observed, self.aws.now
        present = [(m.id, m.placement, m.type, m.terminating) for m in aws.instances.values()]
        refresh = now - self._refreshed >= FULL_REFRESH
        instances = join_instances(present, None, before, now)
        known = replace(before, instances=instances, members=frozenset(aws.members))
        registered = {m.arn: m for m in aws.instances.values() if m.arn}
        arns = frozenset(arn for arn, m in registered.items() if m.connected)
        requested = unverified(self.workers.values(), known, self._described, now, JOIN_GRACE)
        if refresh or booting(instances.values()):
            connected = Connected(arns, {arn: m.id for arn, m in registered.items()})
            instances = join_instances(present, connected, before, now)
        if refresh:
            self._refreshed = now
            requested |= differing(known, (p.arn for p in aws.running()))
        answered = {arn: _task(aws.processes[arn]) for arn in requested if arn in aws.processes}
        placed = {w.task: w.accepted or w.since for w in self.workers.values() if w.task}
        tasks = join_tasks(before.tasks, requested, answered, placed, now)
        self._described = {arn: at for arn, at in self._described.items() if arn in tasks} | dict.fromkeys(
            requested, now
        )
        seen = Observed(
            groups={
                place: ScalingGroup(place, desired, aws.types.get(place, aws.allowed), aws.allowed)
                for place, desired in aws.desired.items()
            },
            instances=instances,
            tasks=tasks,
            members=known.members,
        )
        refusals = remember(before.refusals, aws.refusals, dict(seen.youngest), now)
        aws.refusals.clear()
        seen = replace(seen, in_flight=unconfirmed(before.in_flight, seen), refusals=refusals)
        self.roster.observe(seen, before)

    def _apply_budget(self) -> None:
        """Mark the workers over budget, as `fleet.controller.budget` does."""
        now, observed = self.aws.now, self.observed
        workers = self.workers.values()
        self.roster.set_over_budget(over_budget(workers, observed, now, self.limits, self._rates, self._caps, 0.0))

    def _execute(self, action: Action) -> None:
        if isinstance(action, RunTask):
            self._run(action)
        elif self.aws.down("capacity"):
            if isinstance(action, SetDesired):
                self.roster.not_served(self.roster.at(action.placement), "outage", self.aws.now, outage=True)
        elif not self.aws.execute(action) or isinstance(action, Retire | Forget):
            self.roster.clear_in_flight({action})

    def _run(self, action: RunTask) -> None:
        worker, down, now = self.workers[action.worker], self.aws.down("run"), self.aws.now
        process = None if down else self.aws.run_task(action)
        lost = self.aws.down("lost") or (self.aws.noisy and self.aws.random.random() < LOSS)
        if down or (process is not None and lost):
            self.roster.not_served([worker], "outage", now, outage=True)
            self._refreshed = -NEVER
            return
        self.roster.clear_in_flight({action})
        if process is None:
            self.roster.refuse_task(worker, "RESOURCE:CPU", passing=True)
            self.roster.refuse_instances([action.instance], now)
        else:
            self.roster.place([_task(process)], now)

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


def _task(process: Process) -> Task:
    return Task(
        process.arn,
        process.worker,
        process.launch,
        process.status,
        process.instance,
        process.reason,
        process.exit_code,
        passing=not process.placed,
        aws_failed=not process.placed,
        placed=process.placed,
    )
