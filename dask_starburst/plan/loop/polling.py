"""What to request from AWS at each poll, and how to join the responses with the known state.

With a thousand workers, describing everything at every poll would use up ECS's read bucket (100 calls, 20 a
second, aws-facts §1.1). Dask knows which workers are up, and Auto Scaling lists all instances in one call.
So container instances are described only while some are booting, and a task only if its state is in doubt. A less
frequent full refresh finds the rest: unknown tasks, lost responses, disconnected agents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.state import (
    KEEPS_TASK,
    Instance,
    Name,
    Observed,
    SetDesired,
    Task,
    Terminate,
    Worker,
    WorkerState,
)

#: ECS is eventually consistent: a task may be unknown for a moment after RunTask returned it (seconds).
UNSEEN_GRACE = 30.0
#: Polls between two full refreshes: 30 s at 1.5 s.
FULL_REFRESH_POLLS = 20
#: Polls before a task that has not joined is described, and between two such calls: 6 s at 1.5 s.
TASK_CHECK_POLLS = 4
#: Above this number of starting workers, polls are half as frequent (aws-facts §10.1).
MANY_UNDER_WAY = 200
#: States in which the scheduler knows a worker.
_UP = frozenset({WorkerState.READY, WorkerState.RETIRING})
#: Polls are this many times less frequent while nothing changes.
_IDLE_FACTOR = 8


@dataclass(frozen=True, slots=True)
class Connected:
    """ECS's container instances with a connected agent: their ARNs, and their EC2 ids where known."""

    arns: frozenset[str]
    ids: Mapping[str, str]


def pause(poll: float, under_way: int, idle: bool) -> float:
    """Return the seconds until the next poll, before jitter.

    Parameters
    ----------
    poll : float
        Seconds between two polls while a few workers are starting.
    under_way : int
        Number of workers that are starting.
    calm : bool
        Whether nothing changes.
    """
    if idle:
        return poll * _IDLE_FACTOR
    return poll * 2 if under_way > MANY_UNDER_WAY else poll


def booting(instances: Iterable[Instance]) -> bool:
    """Whether an instance may soon connect to ECS."""
    return any(not i.connected and not i.terminating for i in instances)


def instances_may_have_changed(known: Observed, workers: Iterable[Worker], members: Collection[Name]) -> bool:
    """Whether instances may have started or terminated since the last listing, so that a new one is needed.

    False while each group has its desired number of instances, all of them are connected to ECS, and every worker that
    was up still is. Then the group's counts are enough, and the full refresh finds an instance that vanished.

    Parameters
    ----------
    known : Observed
        The known state, with the requests in flight.
    workers : iterable of Worker
        All requested workers.
    members : collection of names
        Workers that the scheduler knows now.
    """
    instances = known.instances.values()
    there = Counter(i.placement for i in instances if not i.terminating)
    return (
        any(i.terminating or not i.connected for i in instances)
        or any(there[group.placement] != group.desired for group in known.groups.values())
        or any(isinstance(action, SetDesired | Terminate) for action in known.in_flight)
        or any(worker.state in _UP and worker.name not in members for worker in workers)
    )


def unverified(
    workers: Iterable[Worker], observed: Observed, described: Mapping[str, float], now: float, grace: float
) -> set[str]:
    """Return the ARNs of the live tasks whose state is in doubt.

    Parameters
    ----------
    workers : iterable of Worker
        All requested workers.
    observed : Observed
        Current instances and members, and the known tasks.
    described : mapping of str to float
        Time when each task was last described.
    now, grace : float
        Seconds: AWS's clock, and the time that a task has to join before it is described.
    """
    owners = {w.task: w for w in workers if w.task}
    standing = {i.arn for i in observed.instances.values() if not i.terminating}

    def unclear(task: Task) -> bool:
        owner = owners.get(task.arn)
        if owner is None or owner.state not in KEEPS_TASK or task.instance not in standing:
            return True
        if owner.name in observed.members:
            return False
        if owner.state is WorkerState.READY or owner.state is WorkerState.RETIRING:
            return True
        return now - max(owner.since, described.get(task.arn, 0.0)) >= grace

    return {t.arn for t in observed.tasks.values() if not t.stopped and unclear(t)}


def differing(observed: Observed, listed: Iterable[str]) -> set[str]:
    """Return the ARNs of the tasks for which ECS's list of live tasks and the known state differ."""
    live = {t.arn for t in observed.tasks.values() if not t.stopped}
    return live ^ set(listed)


def join_tasks(
    known: Mapping[str, Task],
    requested: Iterable[str],
    answered: Mapping[str, Task],
    placed: Mapping[str, float],
    now: float,
) -> dict[str, Task]:
    """Return the known tasks after a response of ECS.

    Parameters
    ----------
    known : mapping of str to Task
        Known tasks.
    requested : iterable of str
        ARNs that were requested from ECS.
    answered : mapping of str to Task
        Tasks that ECS returned.
    placed : mapping of str to float
        Tasks of the requested workers, which are kept even after they stop, and the time since which each worker is
        in its state.
    now : float
        Seconds, AWS's clock.
    """
    unknown = {arn for arn in requested if arn not in answered}
    gone = {arn for arn in unknown if now - placed.get(arn, 0.0) >= UNSEEN_GRACE}
    tasks = {**known, **answered}
    return {arn: t for arn, t in tasks.items() if arn not in gone and (arn in placed or not t.stopped)}


def join_instances(
    present: Iterable[tuple[str, Placement, str, bool]],
    connected: Connected | None,
    before: Observed,
    now: float,
) -> dict[str, Instance]:
    """Return the known instances after the responses of Auto Scaling and ECS.

    Parameters
    ----------
    present : iterable of tuple
        EC2 id, placement, instance type and whether it is terminating, of every instance.
    connected : Connected, optional
        Response of ECS; None if it was not called.
    before : Observed
        The known state.
    now : float
        Seconds, AWS's clock.
    """
    arns = {} if connected is None else {i: arn for arn, i in connected.ids.items()}
    found = {}
    for name, placement, kind, leaving in present:
        old = before.instances.get(name) or Instance(name, placement, kind, launched=now, idle_since=now)
        arn = arns.get(name) or old.arn  # ECS forgets an instance before EC2 does
        there = old.connected if connected is None else arn in connected.arns
        busy = arn is not None and arn in before.occupied
        found[name] = replace(
            old,
            arn=arn,
            connected=there,
            seen=old.seen or there,
            disconnected_since=None if there or not old.seen else old.disconnected_since or now,
            terminating=leaving,
            idle_since=now if busy else old.idle_since,
        )
    return found
