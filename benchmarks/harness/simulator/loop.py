"""The control loop of `fleet.controller` in virtual time: the decisions are the product's, the AWS is simulated."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from benchmarks.harness.simulator.aws import LOSS, NEVER, TICK, Process, SimulatedAWS
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import remember
from dask_starburst.plan.loop.polling import Connected, booting, differing, join_instances, join_tasks, unverified
from dask_starburst.plan.loop.reconcile import pending, step, unconfirmed
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
)
from dask_starburst.plan.loop.worker import delayed, placed, refused, track, unanswered
from dask_starburst.plan.money.budget import Caps, Rates, over_budget

S = WorkerState
#: Seconds between two full refreshes, and until a task that has not joined is described: as with a poll of 1.5 s.
FULL_REFRESH = 30.0
JOIN_GRACE = 6.0

Check = Callable[[tuple[Action, ...], tuple[Worker, ...], Observed, float, Limits], None]


@dataclass
class SimulatedFleet:
    """The control loop of `fleet.controller` without waiting: poll, track, decide, execute."""

    aws: SimulatedAWS
    workers: dict[Name, Worker]
    observed: Observed
    limits: Limits
    check: Check = lambda actions, workers, observed, now, limits: None
    rates: Rates = field(default_factory=Rates)
    caps: Caps = field(default_factory=Caps)
    refreshed: float = -NEVER
    seen: float = 0.0
    unreachable: bool = False
    described: dict[str, float] = field(default_factory=dict)

    def request(self, requested: Iterable[Name], placement: Placement) -> None:
        """Request exactly these workers in the placement."""
        names, now = set(requested), self.aws.now
        for name, worker in self.workers.items():
            if worker.placement == placement:
                self.workers[name] = replace(worker, requested=name in names)
        for name in sorted(names - self.workers.keys()):
            self.workers[name] = Worker(name, placement, since=now, not_before=now)

    def requested(self) -> list[Worker]:
        """Return the workers that are still requested."""
        return [w for w in self.workers.values() if w.requested]

    def tick(self) -> tuple[Action, ...]:
        """Advance the time by one tick and run the loop once."""
        self.aws.pass_time(TICK)
        if self.aws.down("poll"):
            self.unreachable = True
            return ()
        if self.unreachable:
            self.workers = {n: delayed(w, self.aws.now - self.seen) for n, w in self.workers.items()}
        self.unreachable, self.seen = False, self.aws.now
        self._poll()
        if self.caps:
            self._apply_budget()
        self._track()
        now, workers = self.aws.now, tuple(self.workers.values())
        actions = step(workers, self.observed, now, self.limits)
        self.check(actions, workers, self.observed, now, self.limits)
        in_flight = pending(self.observed.in_flight, now, self.limits.repeat)
        self.observed = replace(self.observed, in_flight={**in_flight, **dict.fromkeys(actions, now)})
        for action in actions:
            self._execute(action)
        return actions

    def _poll(self) -> None:
        """Observe as much, and as late, as `fleet.controller.observe` does."""
        aws, before, now = self.aws, self.observed, self.aws.now
        present = [(m.id, m.placement, m.type, m.terminating) for m in aws.instances.values()]
        refresh = now - self.refreshed >= FULL_REFRESH
        instances = join_instances(present, None, before, now)
        known = replace(before, instances=instances, members=frozenset(aws.members))
        registered = {m.arn: m for m in aws.instances.values() if m.arn}
        arns = frozenset(arn for arn, m in registered.items() if m.connected)
        requested = unverified(self.workers.values(), known, self.described, now, JOIN_GRACE)
        if refresh or booting(instances.values()):
            connected = Connected(arns, {arn: m.id for arn, m in registered.items()})
            instances = join_instances(present, connected, before, now)
        if refresh:
            self.refreshed = now
            requested |= differing(known, (p.arn for p in aws.running()))
        answered = {arn: _task(aws.processes[arn]) for arn in requested if arn in aws.processes}
        placed = {w.task: w.since for w in self.workers.values() if w.task}
        tasks = join_tasks(before.tasks, requested, answered, placed, now)
        self.described = {arn: at for arn, at in self.described.items() if arn in tasks} | dict.fromkeys(requested, now)
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
        self.observed = replace(seen, in_flight=unconfirmed(before.in_flight, seen), refusals=refusals)

    def _apply_budget(self) -> None:
        """Mark the workers over budget, as `fleet.controller.budget` does."""
        wait = over_budget(self.workers.values(), self.observed, self.aws.now, self.limits, self.rates, self.caps, 0.0)
        self.workers = {name: replace(w, over_budget=name in wait) for name, w in self.workers.items()}

    def _track(self) -> None:
        for name, old in list(self.workers.items()):
            new = self.workers[name] = track(old, self.observed, self.aws.now, self.limits)
            if new.state is S.STOPPED and not new.requested:
                del self.workers[name]

    def _execute(self, action: Action) -> None:
        if isinstance(action, RunTask):
            self._run(action)
        elif self.aws.down("capacity"):
            if isinstance(action, SetDesired):
                waiting = [w for w in self.workers.values() if w.placement == action.placement]
                self.workers |= {w.name: unanswered(w, self.aws.now) for w in waiting}
        elif not self.aws.execute(action) or isinstance(action, Retire | Forget):
            self._clear_in_flight(action)

    def _run(self, action: RunTask) -> None:
        worker, down = self.workers[action.worker], self.aws.down("run")
        process = None if down else self.aws.run_task(action)
        lost = self.aws.down("lost") or (self.aws.noisy and self.aws.random.random() < LOSS)
        if down or (process is not None and lost):
            self.workers[action.worker] = unanswered(worker, self.aws.now)
            self.refreshed = -NEVER
            return
        self._clear_in_flight(action)
        if process is None:
            new = refused(worker, "RESOURCE:CPU", passing=True)
            tried = replace(self.observed.instances[action.instance], refused_at=self.aws.now)
            self.observed = replace(self.observed, instances={**self.observed.instances, tried.id: tried})
        else:
            new = placed(worker, _task(process), self.aws.now)
            self.observed = replace(self.observed, tasks={**self.observed.tasks, process.arn: _task(process)})
        self.workers[action.worker] = new

    def _clear_in_flight(self, action: Action) -> None:
        self.observed = replace(
            self.observed, in_flight={a: t for a, t in self.observed.in_flight.items() if a != action}
        )

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
    )
