"""What is wanted and what is seen, as values that `reconcile` decides on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import NamedTuple, TypeAlias

from dask_starburst.plan.loop.offerings import Refusal, closed

#: What Dask calls a worker: 0, 1, … as on a LocalCluster, the same object in the client and in the scheduler. Text of
#: it, which AWS and messages need, is made where they need it. The scheduler is a process too, with a name of its own.
Name: TypeAlias = int | str

HEAD = "head"
SCHEDULER = "scheduler"


class WorkerState(Enum):
    """Where a wished process is on its way; `worker.TRANSITIONS` is the table of its moves."""

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

    # Enum's own is a function in Python, and a tick asks for some ten thousands of them.
    __hash__ = object.__hash__


#: States in which a worker has a task that is meant to go on.
KEEPS_TASK = frozenset({WorkerState.PLACED, WorkerState.STARTED, WorkerState.READY, WorkerState.RETIRING})


@dataclass(frozen=True, slots=True)
class Worker:
    """One wished process: a worker, or the scheduler (group ``head``).

    Parameters
    ----------
    name : int or str
        Its Dask name, kept over replacements.
    group : str
        The Auto Scaling group it runs in: ``head``, ``spot`` or ``on-demand``.
    state, since : WorkerState, float
        Where it is and since when (seconds, AWS's clock).
    wished : bool
        False once nobody wants it any more.
    attempt : int
        How many attempts have failed so far.
    launch : int
        Counts every RunTask of this worker, so that each has a client token of its own.
    not_before : float
        The earliest time of the next attempt (backoff).
    task, instance : str, optional
        ARN of its task and of its container instance, once placed.
    absent_since : float, optional
        Since when the scheduler has not known a worker that was ready, or has let it go.
    reason : str
        Why the last attempt ended.
    refusal : str
        Why ECS refused its task for good, until the attempt is counted as failed.
    unserved : bool
        Whether the last attempt ended without an instance, and so cost nothing.
    aws_failed : bool
        Whether AWS ended the last attempt, and not the worker's own process.
    passing : bool
        Whether it did so in a way that passes, so that the attempt does not count.
    hitches, rounds : int
        How many attempts in a row ended so, and how often the worker was given up and tried again; both lengthen
        the next pause.
    notice : float, optional
        When AWS takes its instance, once it has said so: the scheduler retires the worker by itself.
    over_budget : bool
        Whether it has to wait because its instance would cost more than a cap allows; see `budget`.
    """

    name: Name
    group: str
    state: WorkerState = WorkerState.REQUESTED
    since: float = 0.0
    requested: bool = True
    attempt: int = 0
    launch: int = 0
    not_before: float = 0.0
    task: str | None = None
    instance: str | None = None
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


@dataclass(frozen=True, slots=True)
class Group:
    """One Auto Scaling group: the instance types that it launches now, and all that it is allowed to."""

    name: str
    desired: int
    types: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One EC2 instance of the pool, joined with its ECS container instance.

    `connected`: its ECS agent takes tasks now; `seen`: it has been connected before, and `disconnected_since`
    says when it was first missed after that; `refused_at`: when ECS last refused a task on it; `cordoned`:
    AWS takes it back, or somebody drains it, so it is given nothing to do any more.
    """

    id: str
    group: str
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
    """One ECS task of the pool.

    `passing`: whether it ended by a fault of AWS's that passes; `aws_failed`: whether AWS rather than its process did.
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

    @property
    def stopped(self) -> bool:
        """Whether ECS says that it is over."""
        return self.status == "STOPPED"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long to wait for what (seconds), how often to try, and where.

    `fallback_groups`: the groups that workers may run in, the preferred one first. `fallback`: how long a worker
    waits in a group that AWS launches nothing in before it steps down. `fault`: how long an attempt lasts
    that AWS answers with a quota or a fault in the request. `rest`: after how long a worker that AWS failed
    is tried again once it was given up; each time twice as long, up to `longest_rest`, where trying costs
    something. `spare`: how many empty instances a group keeps ready beyond what its workers need.
    `capped`: whether there is a cap on what is spent.
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
    fallback_groups: tuple[str, ...] = ()
    spare: Mapping[str, int] = field(default_factory=dict)
    capped: bool = False


@dataclass(frozen=True, slots=True)
class SetDesired:
    """Ask the group for this many instances."""

    group: str
    desired: int


@dataclass(frozen=True, slots=True)
class SetTypes:
    """Have the group launch these instance types from now on."""

    group: str
    types: tuple[str, ...]


class RunTask(NamedTuple):
    """Place this worker on this instance, given by its EC2 id. A tuple, as thousands of them are made at once."""

    worker: Name
    group: str
    launch: int
    instance: str


@dataclass(frozen=True, slots=True)
class StopTask:
    """Stop this task: SIGTERM, then SIGKILL. Told for another reason it is the same action."""

    task: str
    reason: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Retire:
    """Have the scheduler move this worker's results elsewhere and close it."""

    worker: Name


@dataclass(frozen=True, slots=True)
class Forget:
    """Tell the scheduler that this worker is dead, so that its name is free again."""

    worker: Name


@dataclass(frozen=True, slots=True)
class Terminate:
    """Terminate exactly this instance and lower the desired capacity by one with it; `reason` where it is a fault."""

    instance: str
    group: str
    reason: str = field(default="", compare=False)


Action = SetDesired | SetTypes | RunTask | StopTask | Retire | Forget | Terminate


@dataclass(frozen=True)  # no slots: the indexes below are made when somebody first asks
class Observed:
    """What is known of AWS and of Dask at one moment.

    `in_flight` holds what was asked for and may not be visible yet, with the time of asking: AWS is
    eventually consistent, and nothing may be asked for twice because of it.

    Groups and members are as of this moment. A task may be over that is believed to live, for as
    long as `look.due` does not ask for it; never the other way round. `draining` holds the container
    instances that ECS drains, as of the last sweep.
    """

    groups: Mapping[str, Group] = field(default_factory=dict)
    instances: Mapping[str, Instance] = field(default_factory=dict)
    tasks: Mapping[str, Task] = field(default_factory=dict)
    members: frozenset[Name] = frozenset()
    in_flight: Mapping[Action, float] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()
    draining: frozenset[str] = frozenset()

    def closed(self, group: str) -> Refusal | None:
        """Return what speaks against a whole group just now."""
        return closed(self.groups[group].allowed, self.refusals, group) if group in self.groups else None

    @cached_property
    def live(self) -> Mapping[tuple[Name, int], Task]:
        """The tasks that are not over, by worker and launch; of doubles the first."""
        found: dict[tuple[Name, int], Task] = {}
        for task in self.tasks.values():
            if not task.stopped:
                found.setdefault((task.worker, task.launch), task)
        return found

    @cached_property
    def occupied(self) -> frozenset[str | None]:
        """The container instances on which a task lives."""
        return frozenset(t.instance for t in self.tasks.values() if not t.stopped)

    @cached_property
    def youngest(self) -> Mapping[str, float]:
        """When the last instance of each group was launched that is not going."""
        found: dict[str, float] = {}
        for i in self.instances.values():
            if not i.terminating:
                found[i.group] = max(i.launched, found.get(i.group, i.launched))
        return found
