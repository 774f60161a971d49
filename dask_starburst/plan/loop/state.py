"""Requested and observed state: the values that `reconcile` decides on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import NamedTuple, TypeAlias

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import Refusal, closed

#: Dask's name of a worker: 0, 1, … as on a LocalCluster, the same object in the client and in the scheduler. It is
#: converted to text only for AWS and for messages. The scheduler is a process too, with a name of its own.
Name: TypeAlias = int | str

SCHEDULER = "scheduler"


def order(name: Name) -> tuple[bool, int, str]:
    """Return a sort key for names of both types: numbers first, by value."""
    return (False, name, "") if isinstance(name, int) else (True, 0, name)


class WorkerState(Enum):
    """The state of a requested process; `transitions.TRANSITIONS` is the transition table."""

    REQUESTED = "requested"
    CAPACITY = "capacity"
    PLACED = "placed"
    STARTED = "started"
    READY = "ready"
    RETIRING = "retiring"
    DRAINED = "drained"
    STOPPED = "stopped"
    LOST = "lost"
    FAILED = "failed"

    # Enum's __hash__ is a Python function, and each step of the loop needs tens of thousands of hashes.
    __hash__ = object.__hash__


#: States in which a worker has a task that is to keep running.
KEEPS_TASK = frozenset({WorkerState.PLACED, WorkerState.STARTED, WorkerState.READY, WorkerState.RETIRING})


@dataclass(frozen=True, slots=True)
class Worker:
    """One requested process: a worker, or the scheduler.

    Parameters
    ----------
    name : int or str
        Its Dask name; a replacement keeps it.
    placement : Placement
        Its group, and the market in which its instance is bought.
    state, since : WorkerState, float
        Its state and the time it entered it (seconds, AWS's clock).
    requested : bool
        False once the request is cancelled.
    attempt : int
        Number of failed attempts so far.
    launch : int
        Counts the RunTask calls of this worker, so that each has a client token of its own.
    not_before : float
        The earliest time of the next attempt (backoff).
    task, instance : str, optional
        ARNs of its task and of its container instance, once ECS has accepted the task. Until ECS has placed it, the
        worker stays in CAPACITY, and the instance is the one that the task is for.
    accepted : float, optional
        Time since which ECS has its task without having placed it.
    absent_since : float, optional
        Time since which the scheduler does not know a worker that was ready, or has closed it.
    reason : str
        Why the last attempt ended.
    refusal : str
        Why ECS refused its task permanently, until the attempt is counted as failed.
    unserved : bool
        Whether the last attempt ended without an instance, and so was free.
    aws_failed : bool
        Whether AWS ended the last attempt, rather than the worker's own process.
    passing : bool
        Whether a passing fault of AWS ended it, so that the attempt does not count.
    transient_failures, rounds : int
        Number of consecutive attempts that ended by a passing fault, and of times that the worker failed and was
        retried. Both lengthen the next backoff.
    notice : float, optional
        Time of a Spot interruption, once AWS has announced it. The scheduler retires the worker itself.
    over_budget : bool
        Whether it waits because its instance would exceed a cost cap; see `budget`.
    """

    name: Name
    placement: Placement
    state: WorkerState = WorkerState.REQUESTED
    since: float = 0.0
    requested: bool = True
    attempt: int = 0
    launch: int = 0
    not_before: float = 0.0
    task: str | None = None
    instance: str | None = None
    accepted: float | None = None
    absent_since: float | None = None
    reason: str = ""
    refusal: str = ""
    unserved: bool = False
    aws_failed: bool = False
    passing: bool = False
    transient_failures: int = 0
    rounds: int = 0
    notice: float | None = None
    over_budget: bool = False

    @property
    def is_scheduler(self) -> bool:
        """Whether it is the scheduler."""
        return self.placement.is_head

    @property
    def awaits_place(self) -> bool:
        """Whether ECS has accepted its task and not placed it yet, as far as is known."""
        return self.state is WorkerState.CAPACITY and self.task is not None

    @property
    def label(self) -> str:
        """The subject of a sentence about it."""
        return "the scheduler" if self.is_scheduler else f"worker {self.name}"


@dataclass(frozen=True, slots=True)
class ScalingGroup:
    """One Auto Scaling group: the instance types that it launches now, and all types allowed in it."""

    placement: Placement
    desired: int
    types: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One EC2 instance of the pool, joined with its ECS container instance.

    `connected`: its ECS agent accepts tasks now. `seen`: the agent has been connected before. `disconnected_since`:
    time of the first poll without it after that. `refused_at`: time when ECS last refused a task on it. `cordoned`:
    AWS interrupts it, or it is drained in ECS, so no new task is placed on it.
    """

    id: str
    placement: Placement
    type: str
    arn: str | None = None
    connected: bool = False
    seen: bool = False
    terminating: bool = False
    launched: float = 0.0
    idle_since: float = 0.0
    refused_at: float = 0.0
    disconnected_since: float | None = None
    cordoned: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One ECS task of the pool: worker and launch are in its overrides, so they are known before its place is.

    `placed`: whether ECS has placed it. AWS may do so seconds after RunTask has returned it (real-aws R1); until then
    `instance` is the only one on which it may be placed, and it is reserved for it. `passing`: whether it ended by a
    passing fault of AWS. `aws_failed`: whether AWS ended it, rather than its process.
    """

    arn: str
    worker: Name
    launch: int
    status: str
    instance: str | None = None
    reason: str = ""
    exit_code: int | None = None
    passing: bool = False
    aws_failed: bool = False
    placed: bool = True

    @property
    def stopped(self) -> bool:
        """Whether ECS reports it as stopped."""
        return self.status == "STOPPED"


@dataclass(frozen=True, slots=True)
class Limits:
    """Timeouts in seconds, number of attempts, and placements.

    `placements`: the placements of each worker group, the preferred one first. `fallback`: how long a worker
    waits in a placement without capacity before it falls back to the next one. `fault`: how long an attempt lasts
    that AWS refuses because of a quota or an invalid request. `rest`: seconds before a failed worker is
    retried if AWS failed it; doubles each time, up to `longest_rest`, if a retry costs money. `spare`: number of
    empty instances that a placement keeps ready beyond those for its workers. `capped`: whether a cost cap is set.
    `placing`: how long ECS may take to place a task that it has accepted. `starts`: the most tasks that one decision
    starts in a placement. `unplaced`: the most tasks that wait for ECS to place them; ECS allows 500 a cluster ("Tasks
    in the PROVISIONING state per cluster", L-B7718569, not adjustable).
    """

    capacity: float = 120.0
    fallback: float = 60.0
    fault: float = 20.0
    rest: float = 300.0
    longest_rest: float = 3600.0
    connect: float = 180.0
    retire: float = 120.0
    absent: float = 60.0
    exit: float = 10.0
    warm: float = 0.0
    attempts: int = 3
    backoff: float = 2.0
    repeat: float = 20.0
    placements: Mapping[str, tuple[Placement, ...]] = field(default_factory=dict)
    spare: Mapping[Placement, int] = field(default_factory=dict)
    capped: bool = False
    placing: float = 60.0
    starts: int = 100
    unplaced: int = 400

    def of_group(self, placement: Placement) -> tuple[Placement, ...]:
        """Return the placements of the same group, the preferred one first."""
        found = self.placements.get(placement.group, ())
        return found if placement in found else (placement,)


@dataclass(frozen=True, slots=True)
class SetDesired:
    """Set the desired capacity of an Auto Scaling group."""

    placement: Placement
    desired: int


@dataclass(frozen=True, slots=True)
class SetTypes:
    """Set the instance types that an Auto Scaling group launches from now on."""

    placement: Placement
    types: tuple[str, ...]


class RunTask(NamedTuple):
    """Run this worker on this EC2 instance. A named tuple, because thousands are created at once."""

    worker: Name
    placement: Placement
    launch: int
    instance: str


@dataclass(frozen=True, slots=True)
class StopTask:
    """Stop this task: SIGTERM, then SIGKILL. The reason does not affect equality."""

    task: str
    reason: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Retire:
    """Ask the scheduler to move this worker's data to other workers and to close it."""

    worker: Name


@dataclass(frozen=True, slots=True)
class Forget:
    """Remove this dead worker from the scheduler, so that its name is free again."""

    worker: Name


@dataclass(frozen=True, slots=True)
class Terminate:
    """Terminate this instance and decrement the desired capacity; `reason` is set if the instance is faulty."""

    instance: str
    placement: Placement
    reason: str = field(default="", compare=False)


Action = SetDesired | SetTypes | RunTask | StopTask | Retire | Forget | Terminate


@dataclass(frozen=True)  # no slots: the indexes below are cached on first use
class Observed:
    """The known state of AWS and Dask at one time.

    `in_flight` holds the requests whose effect may not be visible yet, with the time of each: AWS is
    eventually consistent, and no request may be repeated because of that.

    Groups and members are current. A task that is known as live may have stopped until
    `polling.unverified` selects it; the reverse never happens. `draining` holds the container
    instances that ECS drains, as of the last full refresh.
    """

    groups: Mapping[Placement, ScalingGroup] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    members: frozenset[Name] = frozenset()
    in_flight: Mapping[Action, float] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    draining: frozenset[str] = frozenset()

    def closed(self, placement: Placement) -> Refusal | None:
        """Return the refusal that closes a whole placement now, if any."""
        group = self.groups.get(placement)
        return closed(group.allowed, self.refusals, placement) if group is not None else None

    @cached_property
    def live(self) -> Mapping[tuple[Name, int], Task]:
        """Tasks that have not stopped, by worker and launch; the first one of duplicates."""
        found: dict[tuple[Name, int], Task] = {}
        for task in self.tasks.values():
            if not task.stopped:
                found.setdefault((task.worker, task.launch), task)
        return found

    @cached_property
    def unplaced(self) -> frozenset[tuple[Name, int]]:
        """Worker and launch of the live tasks that ECS has not placed yet."""
        return frozenset(key for key, task in self.live.items() if not task.placed)

    @cached_property
    def standing(self) -> frozenset[str | None]:
        """Container instances that are not terminating."""
        return frozenset(i.arn for i in self.instances.values() if not i.terminating)

    @cached_property
    def occupied(self) -> frozenset[str | None]:
        """Container instances with a live task, or with one that ECS is about to place there."""
        return frozenset(t.instance for t in self.tasks.values() if not t.stopped)

    @cached_property
    def youngest(self) -> Mapping[Placement, float]:
        """Launch time of the youngest instance of each placement that is not terminating."""
        found: dict[Placement, float] = {}
        for i in self.instances.values():
            if not i.terminating:
                found[i.placement] = max(i.launched, found.get(i.placement, i.launched))
        return found
