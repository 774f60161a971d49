"""A simulated AWS and Dask scheduler in virtual time, to run the decisions of `step` against.

It behaves as documented where that matters to `step`: Auto Scaling replaces terminated instances and terminates
surplus ones of its own choice; ECS places a task on the given instance, if it is connected and empty; every effect
follows its response with a delay; a dead process keeps its name at the scheduler until its death is detected. Until
`noisy_until`, losses occur at random; after that none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from random import Random

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import Refusal, remember
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
    SetTypes,
    StopTask,
    Task,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.loop.worker import delayed, placed, refused, track, unanswered
from dask_starburst.plan.money.budget import Caps, Rates, over_budget

S = WorkerState
TYPES = ("c7g.xlarge", "m7g.xlarge")
NEVER = float("inf")
#: Seconds between two polls.
TICK = 3.0
#: Seconds between two full refreshes, and until a task that has not joined is described: as with a poll of 1.5 s.
FULL_REFRESH = 30.0
JOIN_GRACE = 6.0
#: Probability of each loss in one tick of the noisy time.
LOSS = 0.03

Check = Callable[[tuple[Action, ...], tuple[Worker, ...], Observed, float, Limits], None]


@dataclass
class SimulatedInstance:
    """One EC2 instance: when it registers with ECS, and when it is gone."""

    id: str
    placement: Placement
    registers: float
    arn: str | None = None
    connected: bool = False
    gone: float = NEVER
    terminating: bool = False
    type: str = TYPES[0]


@dataclass
class Process:
    """One ECS task: when it starts running, joins, and stops."""

    arn: str
    worker: Name
    launch: int
    instance: str | None
    runs: float
    joins: float
    ends: float = NEVER
    status: str = "PENDING"
    exit_code: int | None = None
    reason: str = ""


@dataclass
class SimulatedAWS:
    """AWS and the scheduler; `random` draws all delays and losses."""

    random: Random
    now: float = 0.0
    noisy_until: float = 0.0
    desired: dict[Placement, int] = field(default_factory=dict)
    instances: dict[str, SimulatedInstance] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    #: Task of each name at the scheduler, and when the scheduler forgets the name of a dead process.
    members: dict[Name, str] = field(default_factory=dict)
    stale: dict[Name, float] = field(default_factory=dict)
    #: Allowed types, types of each group, end of the lack of capacity of each group, and new refusals.
    allowed: tuple[str, ...] = TYPES
    types: dict[Placement, tuple[str, ...]] = field(default_factory=dict)
    no_capacity_until: dict[Placement, float] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    #: Outages: start, end and kind. ``poll`` (describe calls), ``capacity`` and ``run`` calls fail; ``lost`` is as
    #: ``run``, but the task starts and only the response is lost.
    outages: list[tuple[float, float, str]] = field(default_factory=list)
    #: Whether it launches any of the types, as AWS may.
    mixed: bool = False
    launched: int = 0
    started: int = 0

    @classmethod
    def like(cls, observed: Observed, now: float, random: Random, noisy_until: float) -> SimulatedAWS:
        """Return an AWS in the state `observed`."""
        aws = cls(random, now, noisy_until, {g.placement: g.desired for g in observed.groups.values()})
        aws.types = {g.placement: g.types for g in observed.groups.values()}
        for i in observed.instances.values():
            registers = NEVER if i.arn else now + aws.delay(1, 90)
            instance = SimulatedInstance(i.id, i.placement, registers, i.arn, i.connected, terminating=i.terminating)
            instance.gone = now + aws.delay(1, 60) if i.terminating else NEVER
            aws.instances[i.id] = instance
        taken: set[str] = set()
        for t in observed.tasks.values():
            if t.instance in taken and not t.stopped:
                continue  # ECS never runs two tasks on one instance, even if that was observed
            taken |= {t.instance} if t.instance and not t.stopped else set()
            process = Process(t.arn, t.worker, t.launch, t.instance, now, now + aws.delay(1, 20), status=t.status)
            aws.processes[t.arn] = process
        for name in observed.members:
            arns = [t.arn for t in observed.tasks.values() if t.worker == name and t.status == "RUNNING"]
            aws.members[name] = arns[0] if arns else "no task"
        return aws

    @property
    def noisy(self) -> bool:
        """Whether losses still occur."""
        return self.now < self.noisy_until

    def down(self, what: str) -> bool:
        """Whether there is an outage of this kind now."""
        return any(begin <= self.now < end and kind == what for begin, end, kind in self.outages)

    def delay(self, low: float, high: float) -> float:
        return self.random.uniform(low, high)

    def boot_time(self) -> float:
        """Draw the seconds from a capacity request until the instance registers with ECS."""
        return self.delay(5, 90)

    def pull_time(self) -> float:
        """Draw the seconds from RunTask to RUNNING."""
        return self.delay(0, 10)

    def join_time(self) -> float:
        """Draw the seconds from RUNNING until the worker joins the scheduler."""
        return self.delay(0, 20)

    def detection_time(self) -> float:
        """Draw the seconds until the scheduler detects a dead worker: immediately, or after its worker-ttl."""
        return self.random.choice([0.0, 2 * TICK, 300.0])

    def alive(self, placement: Placement) -> list[SimulatedInstance]:
        return [m for m in self.instances.values() if m.placement == placement and not m.terminating]

    def running(self) -> list[Process]:
        return [p for p in self.processes.values() if p.status != "STOPPED"]

    # -- time -----------------------------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """Advance the time and apply all events that are due."""
        self.now += seconds
        if self.noisy:
            self._inject_losses()
        for placement in self.desired:
            self._auto_scale(placement)
        for instance in list(self.instances.values()):
            self._advance_instance(instance)
        for process in self.running():
            self._advance_task(process)
        self._detect_dead_processes()

    def _auto_scale(self, placement: Placement) -> None:
        alive = self.alive(placement)
        if self.desired[placement] > len(alive) and self.now < self.no_capacity_until.get(placement, 0.0):
            type = self.random.choice(["", *self.allowed])
            self.refusals.append(Refusal(placement, "capacity", "no capacity", self.now, type))
            return
        for _ in range(self.desired[placement] - len(alive)):
            self.launched += 1
            # In the noisy time the agent of some instances never connects.
            faulty = self.noisy and self._lost()
            name = f"i-new-{self.launched}"
            registers = NEVER if faulty else self.now + self.boot_time()
            allowed = self.types.get(placement, self.allowed)
            type = self.random.choice(allowed) if self.mixed else allowed[0]
            self.instances[name] = SimulatedInstance(name, placement, registers, type=type)
        for instance in self.random.sample(alive, max(0, len(alive) - self.desired[placement])):
            self._start_termination(instance)

    def _start_termination(self, instance: SimulatedInstance) -> None:
        if not instance.terminating:
            instance.terminating, instance.gone = True, self.now + self.delay(2, 60)

    def _advance_instance(self, instance: SimulatedInstance) -> None:
        if self.now >= instance.registers and instance.arn is None:
            instance.arn, instance.connected = f"arn:{instance.id}", True
        if self.now >= instance.gone:
            del self.instances[instance.id]

    def _advance_task(self, process: Process) -> None:
        instance = next((m for m in self.instances.values() if m.arn and m.arn == process.instance), None)
        if instance is None:
            self._end(process, None, "Host EC2 terminated.")
        elif self.now >= process.ends:
            self._end(process, 0, "Task stopped by user")
        elif process.status == "PENDING" and self.now >= process.runs:
            process.status = "RUNNING"
        elif process.status == "RUNNING" and self.now >= process.joins:
            self._join(process)

    def _join(self, process: Process) -> None:
        holder = self.members.setdefault(process.worker, process.arn)
        if holder != process.arn:
            self._end(process, 1, "name taken")
        process.joins = NEVER

    def _end(self, process: Process, code: int | None, reason: str) -> None:
        process.status, process.exit_code, process.reason = "STOPPED", code, reason

    def _detect_dead_processes(self) -> None:
        for name, arn in list(self.members.items()):
            process = self.processes.get(arn)
            if process is None or process.status == "STOPPED":
                due = self.stale.setdefault(name, self.now + self.detection_time())
                if self.now >= due:
                    self._forget(name)

    def _forget(self, name: Name) -> None:
        self.members.pop(name, None)
        self.stale.pop(name, None)

    # -- losses ---------------------------------------------------------------------------------

    def _lost(self) -> bool:
        return self.noisy and self.random.random() < LOSS

    def _inject_losses(self) -> None:
        for placement in self.desired:
            if self._lost():
                self.no_capacity_until[placement] = min(self.now + self.delay(5, 400), self.noisy_until)
        for instance in self.instances.values():
            if self._lost():
                self._start_termination(instance)  # a Spot interruption: Auto Scaling replaces it
            if self._lost():
                instance.connected = False  # its agent is lost
        for process in self.running():
            if self._lost():
                self._end(process, 137, "OutOfMemoryError")
            if process.status == "RUNNING" and self._lost():
                self.members.pop(process.worker, None)  # it keeps running but is disconnected
            if self._lost():
                process.joins = NEVER  # it never joins

    # -- requests -------------------------------------------------------------------------------

    def execute(self, action: Action) -> bool:
        """Execute one action (not RunTask); return whether it was accepted."""
        if self._lost():
            return self.random.random() < 0.5  # request lost, or refused
        match action:
            case SetDesired(placement, desired):
                self.desired[placement] = desired
            case SetTypes(placement, types):
                self.types[placement] = types
            case Terminate(instance, placement):
                return self._terminate(instance, placement)
            case StopTask(task):
                process = self.processes.get(task)
                if process is not None:
                    process.ends = min(process.ends, self.now + self.delay(0, 40))
            case Retire(worker):
                self._retire(worker)
            case Forget(worker):
                self._forget(worker)
        return True

    def _terminate(self, name: str, placement: Placement) -> bool:
        instance = self.instances.get(name)
        if instance is None or instance.terminating or self.desired[placement] == 0:
            return False  # AWS refuses to go below the minimum size
        self._start_termination(instance)
        self.desired[placement] -= 1
        return True

    def _retire(self, worker: Name) -> None:
        arn = self.members.get(worker)
        self._forget(worker)
        if arn in self.processes:
            process = self.processes[arn]
            process.ends = min(process.ends, self.now + self.delay(0, 10))

    def run_task(self, action: RunTask) -> Process | None:
        """Start a task on the given instance; None if the instance does not accept it."""
        instance = self.instances.get(action.instance)
        occupied = {p.instance for p in self.running()}
        if instance is None or instance.terminating or not instance.connected or instance.arn in occupied:
            return None
        self.started += 1
        runs = self.now + self.pull_time()
        arn = f"task-new-{self.started}"
        process = Process(arn, action.worker, action.launch, instance.arn, runs, runs + self.join_time())
        self.processes[arn] = process
        return process


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
        """Request exactly these workers in the group."""
        names, now = set(requested), self.aws.now
        for name, worker in self.workers.items():
            if worker.placement == placement:
                self.workers[name] = replace(worker, requested=name in names)
        for name in sorted(names - self.workers.keys()):
            self.workers[name] = Worker(name, placement, since=now, not_before=now)

    def requested(self) -> list[Worker]:
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
                n: ScalingGroup(n, desired, aws.types.get(n, aws.allowed), aws.allowed)
                for n, desired in aws.desired.items()
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
                waiting = {
                    n: unanswered(w, self.aws.now) for n, w in self.workers.items() if w.placement == action.placement
                }
                self.workers |= waiting
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
