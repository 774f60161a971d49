"""The heart: what to do next, decided from what is wanted and what is seen.

``step`` remembers nothing. It may be called at any moment, by anybody who holds the pool, on any
state, and brings the pool nearer to what is wanted. Three rules hold whatever it sees:

* capacity is only ever ordered for a worker that is wanted and has no instance;
* an instance is terminated by name, and only while no task of ours lives on it;
* what was asked for and may not be visible yet is not asked for again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dask_starburst.plan.state import (
    Action,
    Forget,
    Group,
    Instance,
    Limits,
    Observed,
    Retire,
    RunTask,
    SetDesired,
    StopTask,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.worker import name_taken

S = WorkerState
#: States in which a worker has a task that is meant to go on.
_KEEPS_TASK = frozenset({S.PLACED, S.STARTED, S.READY, S.RETIRING})


def step(workers: Iterable[Worker], observed: Observed, now: float, limits: Limits) -> tuple[Action, ...]:
    """Decide what to ask of AWS and Dask now.

    Parameters
    ----------
    workers : iterable of Worker
        Every wished process, followed up to `observed` by `worker.track`.
    observed : Observed
        What AWS and Dask say, and what was asked already.
    now : float
        Seconds, AWS's clock.
    limits : Limits
        Patience in seconds.

    Returns
    -------
    tuple of Action
        In the order in which they are best performed; they do not depend on each other.
    """
    workers = tuple(workers)
    seen = _with_asked(observed, now, limits)
    actions = [*_stop_tasks(workers, seen), *_release(workers, seen)]
    for group in seen.groups.values():
        actions += _scale(group, workers, seen, now, limits)
    return tuple(a for a in actions if not _fresh(a, observed, now, limits))


def _fresh(action: Action, observed: Observed, now: float, limits: Limits) -> bool:
    asked = observed.asked.get(action)
    return asked is not None and now - asked < limits.repeat


def _with_asked(observed: Observed, now: float, limits: Limits) -> Observed:
    """Return what will be seen once everything that was asked lately has happened."""
    groups = dict(observed.groups)
    instances = dict(observed.instances)
    for action in observed.asked:
        if not _fresh(action, observed, now, limits):
            continue
        if isinstance(action, SetDesired) and action.group in groups:
            # Only upwards: a zero that has not come true yet must not let a later order, which
            # counts from it, lower what is really there.
            group = groups[action.group]
            groups[action.group] = replace(group, desired=max(group.desired, action.desired))
        elif isinstance(action, Terminate) and action.instance in instances:
            _expect_gone(instances, groups, action)
    return replace(observed, groups=groups, instances=instances)


def _expect_gone(instances: dict[str, Instance], groups: dict[str, Group], action: Terminate) -> None:
    instance, group = instances[action.instance], groups.get(action.group)
    if instance.terminating or group is None:
        return  # Auto Scaling has lowered the desired capacity in the same breath
    instances[action.instance] = replace(instance, terminating=True)
    groups[action.group] = replace(group, desired=max(0, group.desired - 1))


def _stop_tasks(workers: tuple[Worker, ...], observed: Observed) -> list[Action]:
    """Stop what runs for nobody: drained workers, failed attempts, doubles."""
    kept = {w.task for w in workers if w.state in _KEEPS_TASK}
    # A task whose RunTask answer is still under way belongs to the worker that waits for it.
    coming = {(w.name, w.launch) for w in workers if w.state is S.CAPACITY and w.wished}
    reasons = {w.task: w.reason or "no longer wanted" for w in workers if w.task}
    return [
        StopTask(task.arn, reasons.get(task.arn, "no longer wanted"))
        for task in observed.tasks.values()
        if not task.stopped and task.arn not in kept and (task.worker, task.launch) not in coming
    ]


def _release(workers: tuple[Worker, ...], observed: Observed) -> list[Action]:
    actions: list[Action] = []
    for worker in workers:
        if worker.state is S.RETIRING:
            actions.append(Retire(worker.name))
        elif worker.state is S.WISHED and name_taken(worker, observed):
            actions.append(Forget(worker.name))
    return actions


def _scale(group: Group, workers: tuple[Worker, ...], observed: Observed, now: float, limits: Limits) -> list[Action]:
    mine = [w for w in workers if w.group == group.name]
    waiting = [w for w in mine if w.state is S.CAPACITY and w.wished]
    # Who waits for another attempt gets its instance back soon: it is not given away meanwhile.
    pausing = sum(w.state is S.WISHED and w.wished for w in mine)
    present = [i for i in observed.instances.values() if _counts(i, group.name)]
    empty = _empty(present, workers, observed)
    useless = [i for i in empty if _useless(i, waiting, now, limits)]
    free = [i for i in empty if i not in useless]
    in_flight = _in_flight(waiting, observed, now, limits)
    runs = _place(waiting, free, in_flight)
    if useless:
        # They take their place in the desired capacity with them: order afterwards.
        return [*(Terminate(i.id, i.group) for i in useless), *runs]
    needed = len(present) - len(free) + len(waiting)
    if len(waiting) > len(free):
        return [*runs, *([SetDesired(group.name, needed)] if needed > group.desired else [])]
    if runs or in_flight:
        return list(runs)  # ECS chooses the instance: until it has, none may go
    if present:
        return list(_terminate(free, len(free) - len(waiting) - pausing, now, limits))
    # A wished worker whose instance is going: Auto Scaling is about to replace it by itself.
    unused = group.desired > 0 and not any(w.wished and w.state is not S.FAILED for w in mine)
    return [SetDesired(group.name, 0)] if unused else []


def _counts(instance: Instance, group: str) -> bool:
    return instance.group == group and not instance.terminating


def _empty(present: list[Instance], workers: tuple[Worker, ...], observed: Observed) -> list[Instance]:
    """Return the instances on which nothing of ours lives, those that can take a task first."""
    held = {t.instance for t in observed.tasks.values() if not t.stopped}
    held |= {w.instance for w in workers if w.state in _KEEPS_TASK}
    empty = [i for i in present if i.arn is None or i.arn not in held]
    return sorted(empty, key=lambda i: (not i.connected, i.launched, i.id))


def _useless(instance: Instance, waiting: list[Worker], now: float, limits: Limits) -> bool:
    """Whether an empty instance will not take a task: its ECS agent never came, or fell silent.

    A silent agent may come back, so it matters only once a worker has waited for it.
    """
    if instance.connected:
        return False
    if not instance.seen:
        return now - instance.launched > limits.capacity
    return any(now - w.since > limits.repeat for w in waiting)


def _in_flight(waiting: list[Worker], observed: Observed, now: float, limits: Limits) -> set[str]:
    """Return the workers whose RunTask was asked for and not answered yet."""
    asked = {RunTask(w.name, w.group, w.launch): w.name for w in waiting}
    return {name for action, name in asked.items() if _fresh(action, observed, now, limits)}


def settle(asked: Mapping[Action, float], observed: Observed) -> dict[Action, float]:
    """Return what was asked for and cannot be seen in `observed` yet."""
    return {a: at for a, at in asked.items() if not _visible(a, observed)}


def _visible(action: Action, observed: Observed) -> bool:
    match action:
        case SetDesired(group, desired):
            return group not in observed.groups or observed.groups[group].desired == desired
        case Terminate(instance, _):
            seen = observed.instances.get(instance)
            return seen is None or seen.terminating
        case StopTask(arn, _):
            task = observed.tasks.get(arn)
            return task is None or task.stopped
        case Retire(worker) | Forget(worker):
            return worker not in observed.members
        case RunTask(worker, _, launch):
            return any((t.worker, t.launch) == (worker, launch) for t in observed.tasks.values())


def _place(waiting: list[Worker], free: list[Instance], in_flight: set[str]) -> list[RunTask]:
    places = sum(i.connected for i in free) - len(in_flight)
    turn = sorted((w for w in waiting if w.name not in in_flight), key=lambda w: w.since)
    return [RunTask(w.name, w.group, w.launch) for w in turn[: max(0, places)]]


def _terminate(free: list[Instance], surplus: int, now: float, limits: Limits) -> list[Terminate]:
    """Give back what is free for longer than it is kept warm; the longest idle first."""
    idle = sorted(free, key=lambda i: (i.idle_since, i.id))[:surplus]
    return [Terminate(i.id, i.group) for i in idle if now - i.idle_since >= limits.warm]
