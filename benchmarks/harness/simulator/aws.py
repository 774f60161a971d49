"""A simulated AWS and Dask scheduler in virtual time, to run the decisions of `step` against.

It behaves as documented where that matters to `step`: Auto Scaling replaces terminated instances and terminates
surplus ones of its own choice; ECS places a task on the given instance, if it is connected and empty, within RunTask or
seconds after it; every effect
follows its response with a delay; a dead process keeps its name at the scheduler until its death is detected. Until
`noisy_until`, losses occur at random; after that none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import Refusal
from dask_starburst.plan.loop.state import (
    Action,
    Forget,
    Name,
    Observed,
    Retire,
    RunTask,
    SetDesired,
    SetTypes,
    StopTask,
    Terminate,
)

TYPES = ("c7g.xlarge", "m7g.xlarge")
NEVER = float("inf")
#: Seconds between two polls.
TICK = 3.0
#: Probability of each loss in one tick of the noisy time.
LOSS = 0.03


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
    #: Whether ECS has placed it, and when it tries to.
    placed: bool = True
    places: float = 0.0


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
    #: The shortest and the longest time until ECS places a task that RunTask has returned; None: within RunTask. And
    #: the share of such tasks that it cannot place in the end.
    placing: tuple[float, float] | None = None
    misplaced: float = 0.0
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
            process.placed, process.places = t.placed, now + aws.delay(0, 15)
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
        """Draw a number of seconds."""
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
        """Return the instances of a placement that are not terminating."""
        return [m for m in self.instances.values() if m.placement == placement and not m.terminating]

    def running(self) -> list[Process]:
        """Return the tasks that have not stopped."""
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
        if not process.placed:
            self._place(process, instance)
        elif instance is None:
            self._end(process, None, "Host EC2 terminated.")
        elif self.now >= process.ends:
            self._end(process, 0, "Task stopped by user")
        elif process.status == "PENDING" and self.now >= process.runs:
            process.status = "RUNNING"
        elif process.status == "RUNNING" and self.now >= process.joins:
            self._join(process)

    def _place(self, process: Process, instance: SimulatedInstance | None) -> None:
        """Place a task that RunTask has returned before, or stop it."""
        if self.now >= process.ends:
            self._end(process, None, "Task stopped by user")
        elif self.now < process.places:
            return
        elif instance is None or instance.terminating or not instance.connected:
            self._end(process, None, "MemberOf placement constraint unsatisfied.")
        elif instance.arn in self.occupied() or self.random.random() < self.misplaced:
            self._end(process, None, "RESOURCE:CPU")
        else:
            process.placed, process.status = True, "PENDING"

    def occupied(self) -> set[str | None]:
        """Return the container instances on which a task is placed."""
        return {p.instance for p in self.running() if p.placed}

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
        if self.placing is None and (
            instance is None or instance.terminating or not instance.connected or instance.arn in self.occupied()
        ):
            return None
        self.started += 1
        late = 0.0 if self.placing is None else self.delay(*self.placing)
        runs = self.now + late + self.pull_time()
        arn, where = f"task-new-{self.started}", f"arn:{action.instance}" if instance is None else instance.arn
        process = Process(arn, action.worker, action.launch, where, runs, runs + self.join_time())
        if self.placing is not None:
            process.placed, process.places, process.status = False, self.now + late, "PROVISIONING"
        self.processes[arn] = process
        return process
