"""The states of one worker: the transition table, and what each answer of AWS changes."""

from __future__ import annotations

from dataclasses import replace

from dask_starburst.plan.loop.state import Task, Worker, WorkerState

S = WorkerState

#: States with a deadline that depends on AWS: their clock stops while AWS cannot be polled.
_TIMED = frozenset({S.CAPACITY, S.PLACED, S.STARTED, S.READY, S.RETIRING, S.DRAINED})
#: All transitions. None leads back from RETIRING. A READY worker can be LOST; one that has not been READY can FAIL.
TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    S.REQUESTED: frozenset(
        {
            S.CAPACITY,  # an instance is requested for it
            S.STOPPED,  # cancelled before an instance was requested
        }
    ),
    S.CAPACITY: frozenset(
        {
            S.PLACED,  # ECS placed the task
            S.REQUESTED,  # no capacity in its placement, so the next one is tried; or it is over budget
            S.STOPPED,  # cancelled; the instance is released
            S.FAILED,  # no instance within the deadline, or ECS refused the task or never placed it
        }
    ),
    S.PLACED: frozenset(
        {
            S.STARTED,  # the container is running
            S.READY,  # it joined the scheduler before ECS reported it as running
            S.DRAINED,  # cancelled; it has no data yet, so it is only stopped
            S.FAILED,  # the task ended, or the deadline passed
        }
    ),
    S.STARTED: frozenset(
        {
            S.READY,  # it registered with the scheduler
            S.DRAINED,  # cancelled; it has no data yet
            S.FAILED,  # the process ended, or never registered in time
        }
    ),
    S.READY: frozenset(
        {
            S.RETIRING,  # cancelled, or over budget: its data is moved
            S.LOST,  # its process, task or instance is gone
        }
    ),
    S.RETIRING: frozenset(
        {
            S.DRAINED,  # the scheduler has closed it, or the deadline passed
            S.STOPPED,  # its process ended
        }
    ),
    S.DRAINED: frozenset({S.STOPPED}),  # ECS reports the task as stopped
    S.STOPPED: frozenset({S.REQUESTED}),  # requested again under the same name
    S.LOST: frozenset({S.REQUESTED, S.STOPPED}),  # replaced, or cancelled
    S.FAILED: frozenset({S.REQUESTED, S.STOPPED}),  # another attempt, or cancelled
}


def move(worker: Worker, state: WorkerState, now: float, reason: str = "") -> Worker:
    """Return the worker in `state`; the clock restarts, the reason is kept."""
    if state not in TRANSITIONS[worker.state]:
        raise ValueError(f"{worker.name}: {worker.state.name} -> {state.name} is not a valid transition")
    return replace(worker, state=state, since=now, reason=reason or worker.reason)


def placed(worker: Worker, task: Task, now: float) -> Worker:
    """Return the worker after ECS placed its task; the reason of earlier failures is cleared."""
    moved = move(worker, S.PLACED, now)
    return replace(moved, task=task.arn, instance=task.instance, accepted=None, absent_since=None, reason="")


def accepted(worker: Worker, task: Task, now: float) -> Worker:
    """Return the worker after ECS accepted its task: it is placed now, or waits for its place."""
    if task.placed:
        return placed(worker, task, now)
    return replace(worker, task=task.arn, instance=task.instance, accepted=now)


def refused(worker: Worker, reason: str, *, passing: bool) -> Worker:
    """Return the worker after ECS refused its task, at once or after it had accepted it.

    `passing`: the same request may succeed soon, but only with another client token, because
    ECS answers a repeated token with its first response.
    """
    free = replace(worker, task=None, instance=None, accepted=None)
    if passing:
        return replace(free, launch=worker.launch + 1, reason=reason)
    return replace(free, refusal=reason)


def unanswered(worker: Worker, now: float) -> Worker:
    """Return the worker after a request for its instance or task got no response: its deadline restarts.

    The client token stays. If AWS has processed the request, it answers the repeated one with the task that
    it has started.
    """
    return replace(worker, since=now) if worker.state is S.CAPACITY else worker


def delayed(worker: Worker, seconds: float) -> Worker:
    """Return the worker after AWS could not be polled for `seconds`: that time does not count."""
    if worker.state not in _TIMED:
        return worker
    absent = None if worker.absent_since is None else worker.absent_since + seconds
    accepted = None if worker.accepted is None else worker.accepted + seconds
    return replace(worker, since=worker.since + seconds, absent_since=absent, accepted=accepted)


def refused_late(old: Worker, new: Worker) -> bool:
    """Whether ECS has refused a task that it had accepted, or lost its instance, so that it is started again."""
    return old.awaits_place and new.state is S.CAPACITY and new.launch > old.launch
