"""The core of the control loop: decide the next actions from requested and observed state.

``step`` is stateless. Any controller that has claimed the pool may call it at any time, in any
state, and it brings the pool closer to the requested state. Three rules always hold:

* capacity is requested only for a requested worker without an instance, or for a spare;
* an instance is terminated by id, and only while no live task of the pool runs on it;
* a request that may not be visible yet is not repeated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import launchable
from dask_starburst.plan.loop.state import (
    KEEPS_TASK,
    Action,
    Forget,
    Instance,
    Limits,
    Name,
    Observed,
    Retire,
    RunTask,
    ScalingGroup,
    SetDesired,
    SetTypes,
    StopTask,
    Terminate,
    Worker,
    WorkerState,
)
from dask_starburst.plan.loop.worker import name_taken, overdue

S = WorkerState


def step(workers: Iterable[Worker], observed: Observed, now: float, limits: Limits) -> tuple[Action, ...]:
    """Decide the next requests to AWS and Dask.

    Parameters
    ----------
    workers : iterable of Worker
        Every requested process, as `worker.track` returned it for `observed`.
    observed : Observed
        State of AWS and Dask, and the requests in flight.
    now : float
        Seconds, AWS's clock.
    limits : Limits
        Timeouts in seconds.

    Returns
    -------
    tuple of Action
        In the preferred order of execution; they do not depend on each other.
    """
    workers = tuple(workers)
    seen = _with_in_flight(observed, now, limits)
    in_flight_runs = _in_flight_runs(observed, now, limits)
    actions = [*_stop_tasks(workers, seen, now, limits), *_release(workers, seen)]
    mine: dict[Placement, list[Worker]] = {placement: [] for placement in seen.groups}
    for worker in workers:
        if worker.placement in mine:
            mine[worker.placement].append(worker)
    free = _free(workers, seen, in_flight_runs, now, limits)
    starting = seen.unplaced | in_flight_runs.keys()
    room = limits.unplaced - len(starting)
    for group in seen.groups.values():  # comprehensions without calls: there may be ten thousand workers
        here = group.placement
        present = [i for i in seen.instances.values() if i.placement == here and not i.terminating]
        waiting = [w for w in mine[here] if w.state is S.CAPACITY and w.requested]
        waiting = [w for w in waiting if (w.name, w.launch) not in starting] if starting else waiting
        actions += _choose_types(group, mine[here], seen)
        scaled = _scale(group, mine[here], waiting, present, free, room, now, limits)
        room -= sum(isinstance(a, RunTask) for a in scaled)
        actions += scaled
    if not observed.in_flight:
        return tuple(actions)  # saves hashing ten thousand actions
    return tuple(a for a in actions if not _fresh(a, observed, now, limits))


def _choose_types(group: ScalingGroup, mine: list[Worker], observed: Observed) -> list[SetTypes]:
    """Exclude instance types that failed recently, and include them again later."""
    types = launchable(group.allowed, observed.refusals, group.placement)
    settled = set(types) == set(group.types) or not any(w.requested for w in mine)
    return [] if settled else [SetTypes(group.placement, types)]


def _fresh(action: Action, observed: Observed, now: float, limits: Limits) -> bool:
    since = observed.in_flight.get(action)
    return since is not None and now - since < limits.repeat


def _with_in_flight(observed: Observed, now: float, limits: Limits) -> Observed:
    """Return the state expected once all recent requests in flight have taken effect."""
    if not observed.in_flight:
        return observed  # with its cached indexes
    groups = dict(observed.groups)
    instances = dict(observed.instances)
    for action in observed.in_flight:
        if not _fresh(action, observed, now, limits):
            continue
        if isinstance(action, SetDesired) and action.placement in groups:
            # Only upwards: while a zero is in flight, a later request computed from it must not
            # lower the capacity that really exists.
            group = groups[action.placement]
            groups[action.placement] = replace(group, desired=max(group.desired, action.desired))
        elif isinstance(action, SetTypes) and action.placement in groups:
            groups[action.placement] = replace(groups[action.placement], types=action.types)
        elif isinstance(action, Terminate) and action.instance in instances:
            _expect_gone(instances, groups, action)
    return replace(observed, groups=groups, instances=instances)


def _expect_gone(instances: dict[str, Instance], groups: dict[Placement, ScalingGroup], action: Terminate) -> None:
    instance, group = instances[action.instance], groups.get(action.placement)
    if instance.terminating or group is None:
        return  # Auto Scaling has already lowered the desired capacity
    instances[action.instance] = replace(instance, terminating=True)
    groups[action.placement] = replace(group, desired=max(0, group.desired - 1))


def _stop_tasks(workers: tuple[Worker, ...], observed: Observed, now: float, limits: Limits) -> list[Action]:
    """Stop tasks without a live worker: drained workers that do not exit, failed attempts, duplicates."""
    kept = {w.task for w in workers if w.state in KEEPS_TASK or _ends_by_itself(w, now, limits)}
    # A task that is not placed yet, or whose RunTask response is outstanding, belongs to the worker that waits for it.
    late = {w.task: f"not placed by ECS within {limits.placing:g} s" for w in workers if overdue(w, now, limits)}
    coming = {(w.name, w.launch) for w in workers if w.state is S.CAPACITY and w.requested and w.task not in late}
    reasons = {w.task: w.reason or "no longer requested" for w in workers if w.task} | late
    return [
        StopTask(task.arn, reasons.get(task.arn, "no longer requested"))
        for task in observed.tasks.values()
        if not task.stopped and task.arn not in kept and (task.worker, task.launch) not in coming
    ]


def _ends_by_itself(worker: Worker, now: float, limits: Limits) -> bool:
    """Whether the scheduler has just closed a worker, so that its process exits without a StopTask."""
    left = worker.absent_since
    return worker.state is S.DRAINED and left is not None and now - left <= limits.exit


def _release(workers: tuple[Worker, ...], observed: Observed) -> list[Action]:
    actions: list[Action] = []
    for worker in workers:
        if worker.state is S.RETIRING and worker.notice is None:
            actions.append(Retire(worker.name))
        elif worker.state is S.REQUESTED and name_taken(worker, observed):
            actions.append(Forget(worker.name))
    return actions


def _scale(
    group: ScalingGroup,
    mine: list[Worker],
    waiting: list[Worker],
    present: list[Instance],
    empty: frozenset[str],
    room: int,
    now: float,
    limits: Limits,
) -> list[Action]:
    """Scale one group: place waiting workers, request missing capacity, terminate unused instances.

    `room`: the number of tasks that may still be started. The others wait for a later step, on the same instances.
    """
    # A worker in backoff needs an instance again soon: keep one for it.
    pausing = sum(w.state is S.REQUESTED and w.requested and not w.over_budget for w in mine)
    waited = any(now - w.since > limits.repeat for w in waiting)
    idle = [i for i in present if i.id in empty]
    suspect = [i for i in idle if i.cordoned or not i.connected]
    unusable = {i.id: why for i in suspect if (why := _unusable(i, waited, now, limits)) is not None}
    free = [i for i in idle if i.id not in unusable]
    # A new worker is placed on a spare immediately; then the spare is replaced.
    required = len(waiting) + limits.spare.get(group.placement, 0)
    runs = _place(waiting, free)[: max(0, min(limits.starts, room))]
    if unusable:
        # Each termination lowers the desired capacity, so request new capacity in a later step.
        return [*(Terminate(i, group.placement, why) for i, why in sorted(unusable.items())), *runs]
    if required > len(free):
        needed = len(present) - len(free) + required
        return [*runs, *([SetDesired(group.placement, needed)] if needed > group.desired else [])]
    if present:
        taken = {run.instance for run in runs}
        left = [i for i in free if i.id not in taken]
        return [*runs, *_terminate(left, len(free) - required - pausing, now, limits)]
    # The instance of a requested worker is terminating: Auto Scaling is about to replace it.
    unused = group.desired > 0 and not any(w.requested and w.state is not S.FAILED for w in mine)
    return [SetDesired(group.placement, 0)] if unused else []


def _in_flight_runs(observed: Observed, now: float, limits: Limits) -> dict[tuple[Name, int], str]:
    """Return the instances with a RunTask in flight, by worker and launch."""
    return {
        (a.worker, a.launch): a.instance
        for a in observed.in_flight
        if isinstance(a, RunTask) and _fresh(a, observed, now, limits)
    }


def _free(
    workers: tuple[Worker, ...],
    observed: Observed,
    in_flight_runs: Mapping[tuple[Name, int], str],
    now: float,
    limits: Limits,
) -> frozenset[str]:
    """Return the ids of the instances without a task that is live, kept or about to start."""
    kept = {w.instance for w in workers if w.state in KEEPS_TASK}
    occupied = observed.occupied | kept
    taken = set(in_flight_runs.values())

    return frozenset(
        i.id
        for i in observed.instances.values()
        if i.id not in taken
        and (
            i.arn is None
            or i.arn not in occupied
            # The agent is lost, so ECS will never report the end of a task that is not kept.
            or (i.disconnected_since is not None and i.arn not in kept and agent_lost(i, now, limits))
        )
    )


def agent_lost(instance: Instance, now: float, limits: Limits) -> bool:
    """Whether the ECS agent of an instance has been disconnected for so long that it counts as lost."""
    disconnected = instance.disconnected_since
    return disconnected is not None and now - disconnected > limits.absent


def _unusable(instance: Instance, waited: bool, now: float, limits: Limits) -> str | None:
    """Return why an empty instance cannot take a task: its ECS agent never connected, or is lost. None if it can.

    A disconnected agent may reconnect, so it counts only once a worker has waited for the instance, or after
    `Limits.absent`. A cordoned instance has no reason text: its interruption has been reported already.
    """
    if instance.cordoned:
        return ""
    if instance.connected:
        return None
    if not instance.seen:
        late = now - instance.launched > limits.capacity
        return f"its ECS agent has not connected within {limits.capacity:g} s" if late else None
    return "its ECS agent is disconnected" if waited or agent_lost(instance, now, limits) else None


def pending(in_flight: Mapping[Action, float], now: float, repeat: float) -> dict[Action, float]:
    """Return the requests made less than `repeat` seconds ago: only these are not repeated."""
    return {action: at for action, at in in_flight.items() if now - at < repeat}


def unconfirmed(in_flight: Mapping[Action, float], observed: Observed) -> dict[Action, float]:
    """Return the requests whose effect is not visible in `observed` yet."""
    launched = {(t.worker, t.launch) for t in observed.tasks.values()} if in_flight else set()
    return {a: at for a, at in in_flight.items() if not _visible(a, observed, launched)}


def _visible(action: Action, observed: Observed, launched: set[tuple[Name, int]]) -> bool:
    match action:
        case SetDesired(placement, desired):
            return placement not in observed.groups or observed.groups[placement].desired == desired
        case SetTypes(placement, types):
            return placement not in observed.groups or set(observed.groups[placement].types) == set(types)
        case Terminate(instance, _):
            seen = observed.instances.get(instance)
            return seen is None or seen.terminating
        case StopTask(arn, _):
            task = observed.tasks.get(arn)
            return task is None or task.stopped
        case Retire(worker) | Forget(worker):
            return worker not in observed.members
        case RunTask(worker, _, launch):
            return (worker, launch) in launched


def _place(waiting: list[Worker], free: list[Instance]) -> list[RunTask]:
    """Place the longest waiting worker on the oldest instance; use instances that refused a task last."""
    places = sorted((i for i in free if i.connected), key=lambda i: (i.refused_at, i.launched, i.id))
    turn = sorted(waiting, key=lambda w: w.since)
    return [RunTask(w.name, w.placement, w.launch, i.id) for w, i in zip(turn, places, strict=False)]


def _terminate(free: list[Instance], surplus: int, now: float, limits: Limits) -> list[Terminate]:
    """Terminate surplus instances that have been idle for at least `Limits.warm`; the longest idle first.

    A ready instance stays until another one has connected in its place: only then is it surplus.
    """
    idle = sorted(free, key=lambda i: (i.connected, i.idle_since, i.id))[: max(0, surplus)]
    return [Terminate(i.id, i.placement) for i in idle if now - i.idle_since >= limits.warm]
