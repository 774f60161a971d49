"""What to ask AWS for at each look, and how its answers are joined with what was known.

At a thousand workers asking for everything every time would use up ECS's read bucket (100 calls, 20 a
second, aws-facts §1.1). Dask knows best who is up, and Auto Scaling tells in one call which instances
there are. So ECS is asked for instances only while some boot, and for a task only while something speaks
against it; a slow sweep finds what nobody else tells of: strays, lost answers, silent agents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

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
#: So many polls between two sweeps: 30 s at 1.5 s.
FULL_REFRESH_POLLS = 20
#: So many polls before a task that has not joined is asked for, and between two times: 6 s at 1.5 s.
TASK_CHECK_POLLS = 4
#: From so many workers under way on, looks are half as frequent (aws-facts §10.1).
MANY_UNDER_WAY = 200
#: The states in which the scheduler knows a worker.
_UP = frozenset({WorkerState.READY, WorkerState.RETIRING})
#: When nothing is under way they are this many times less frequent.
_IDLE_FACTOR = 8


@dataclass(frozen=True, slots=True)
class Connected:
    """ECS's container instances with a connected agent: their ARNs, and their EC2 ids where known."""

    arns: frozenset[str]
    ids: Mapping[str, str]


def pause(poll: float, under_way: int, idle: bool) -> float:
    """Return the seconds until the next look, before jitter.

    Parameters
    ----------
    poll : float
        Seconds between two looks while a few workers are under way.
    under_way : int
        How many workers are.
    calm : bool
        Whether nothing is.
    """
    if idle:
        return poll * _IDLE_FACTOR
    return poll * 2 if under_way > MANY_UNDER_WAY else poll


def booting(instances: Iterable[Instance]) -> bool:
    """Whether an instance may connect to ECS any moment."""
    return any(not i.connected and not i.terminating for i in instances)


def instances_may_have_changed(known: Observed, workers: Iterable[Worker], members: Collection[Name]) -> bool:
    """Whether instances may have come or gone since they were last listed, so that they have to be listed again.

    They are not while there are as many as each group should have, all of them in use by ECS, and every worker that was
    up still is: then a group's counts are enough, and an instance that goes without a trace is found by the sweep.

    Parameters
    ----------
    known : Observed
        As it was known, with what was asked since.
    workers : iterable of Worker
        All of the fleet.
    members : collection of names
        The workers that the scheduler knows now.
    """
    instances = known.instances.values()
    there = Counter(i.group for i in instances if not i.terminating)
    return (
        any(i.terminating or not i.connected for i in instances)
        or any(there[group.name] != group.desired for group in known.groups.values())
        or any(isinstance(action, SetDesired | Terminate) for action in known.in_flight)
        or any(worker.state in _UP and worker.name not in members for worker in workers)
    )


def unverified(
    workers: Iterable[Worker], observed: Observed, described: Mapping[str, float], now: float, grace: float
) -> set[str]:
    """Return the ARNs of the live tasks that something speaks against.

    Parameters
    ----------
    workers : iterable of Worker
        All of the fleet.
    observed : Observed
        Instances and members of this moment, tasks as they were known.
    described : mapping of str to float
        When each task was last asked for.
    now, patience : float
        Seconds: AWS's clock, and how long a task is given to join.
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
    """Return the tasks of which ECS's list of those not over says something else than is known."""
    live = {t.arn for t in observed.tasks.values() if not t.stopped}
    return live ^ set(listed)


def join_tasks(
    known: Mapping[str, Task],
    requested: Iterable[str],
    answered: Mapping[str, Task],
    placed: Mapping[str, float],
    now: float,
) -> dict[str, Task]:
    """Return the tasks as known after ECS's answers.

    Parameters
    ----------
    known : mapping of str to Task
        As they were known.
    requested : iterable of str
        The ARNs that were requested from ECS.
    answered : mapping of str to Task
        Those of them that it knows.
    placed : mapping of str to float
        The tasks of our workers, which are kept though they are over, and since when the workers are
        in their states.
    now : float
        Seconds, AWS's clock.
    """
    unknown = {arn for arn in requested if arn not in answered}
    gone = {arn for arn in unknown if now - placed.get(arn, 0.0) >= UNSEEN_GRACE}
    tasks = {**known, **answered}
    return {arn: t for arn, t in tasks.items() if arn not in gone and (arn in placed or not t.stopped)}


def join_instances(
    present: Iterable[tuple[str, str, str, bool]],
    connected: Connected | None,
    before: Observed,
    now: float,
) -> dict[str, Instance]:
    """Return the instances as known after the answers of Auto Scaling and ECS.

    Parameters
    ----------
    present : iterable of tuple
        EC2 id, group, instance type and whether it is leaving, of every instance.
    connected : Connected, optional
        What ECS says; None if it was not asked.
    before : Observed
        As it was known.
    now : float
        Seconds, AWS's clock.
    """
    arns = {} if connected is None else {i: arn for arn, i in connected.ids.items()}
    found = {}
    for name, group, kind, leaving in present:
        old = before.instances.get(name) or Instance(name, group, kind, launched=now, idle_since=now)
        arn = arns.get(name) or old.arn  # ECS forgets before EC2 does
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
