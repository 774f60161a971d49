"""How one worker moves from state to state: a table, and the rules that choose an edge."""

from __future__ import annotations

from dataclasses import replace

from dask_starburst.plan.loop.state import HEAD, Limits, Observed, Task, Worker, WorkerState

S = WorkerState

#: States whose time AWS has to keep: it does not count while AWS cannot be looked at.
_TIMED = frozenset({S.CAPACITY, S.PLACED, S.STARTED, S.READY, S.RETIRING, S.DRAINED})
#: The pause after what passes doubles so often at most: 2 s, 4 s, … 128 s.
_MAX_BACKOFF_DOUBLINGS = 6

#: Every move that exists. Never back from RETIRING; LOST and FAILED from any state that costs.
TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    S.REQUESTED: frozenset(
        {
            S.CAPACITY,  # its turn has come: an instance is ordered for it
            S.STOPPED,  # not wanted any more before anything was ordered
        }
    ),
    S.CAPACITY: frozenset(
        {
            S.PLACED,  # ECS accepted the task
            S.REQUESTED,  # AWS launches nothing in its group, so the next group is tried; or it is over budget
            S.STOPPED,  # not wanted any more; the instance is given back
            S.FAILED,  # no instance within the deadline, or ECS refused the task
        }
    ),
    S.PLACED: frozenset(
        {
            S.STARTED,  # the container runs
            S.READY,  # the scheduler saw it before ECS told us that it runs
            S.DRAINED,  # not wanted any more; it holds nothing yet, so it is only stopped
            S.FAILED,  # the task ended, or the deadline passed
        }
    ),
    S.STARTED: frozenset(
        {
            S.READY,  # it registered with the scheduler
            S.DRAINED,  # not wanted any more; it holds nothing yet
            S.FAILED,  # the process ended, or never registered in time
        }
    ),
    S.READY: frozenset(
        {
            S.RETIRING,  # not wanted any more, or too dear: move what it holds
            S.LOST,  # its process, task or instance is gone
        }
    ),
    S.RETIRING: frozenset(
        {
            S.DRAINED,  # the scheduler let it go, or the time for it is over
            S.STOPPED,  # its process ended by itself
        }
    ),
    S.DRAINED: frozenset({S.STOPPED}),  # ECS says that the task is over
    S.STOPPED: frozenset({S.REQUESTED}),  # wanted again under the same name
    S.LOST: frozenset({S.REQUESTED, S.STOPPED}),  # replaced, or nobody wants it
    S.FAILED: frozenset({S.REQUESTED, S.STOPPED}),  # another attempt, or nobody wants it
}


def move(worker: Worker, state: WorkerState, now: float, reason: str = "") -> Worker:
    """Return the worker in `state`; the clock restarts, the reason is kept."""
    if state not in TRANSITIONS[worker.state]:
        raise ValueError(f"{worker.name}: {worker.state.name} -> {state.name} is no transition")
    return replace(worker, state=state, since=now, reason=reason or worker.reason)


def placed(worker: Worker, task: Task, now: float) -> Worker:
    """Return the worker after ECS accepted its task; why earlier ones ended matters no more."""
    moved = move(worker, S.PLACED, now)
    return replace(moved, task=task.arn, instance=task.instance, absent_since=None, reason="")


def refused(worker: Worker, reason: str, *, passing: bool) -> Worker:
    """Return the worker after ECS refused its task.

    `passing`: the same request may succeed in a moment, but only under another client token,
    because ECS answers a repeated token with its first answer.
    """
    if passing:
        return replace(worker, launch=worker.launch + 1, reason=reason)
    return replace(worker, refusal=reason)


def unanswered(worker: Worker, now: float) -> Worker:
    """Return the worker after AWS could not be asked for its instance or task: its time begins anew.

    The client token stays. If AWS has done it all the same, it answers the repeated request with the task that
    it has started.
    """
    return replace(worker, since=now) if worker.state is S.CAPACITY else worker


def delayed(worker: Worker, seconds: float) -> Worker:
    """Return the worker after AWS could not be looked at for a while: that time is nobody's fault."""
    if worker.state not in _TIMED:
        return worker
    absent = None if worker.absent_since is None else worker.absent_since + seconds
    return replace(worker, since=worker.since + seconds, absent_since=absent)


def rest_of(worker: Worker, limits: Limits) -> float:
    """Return the seconds for which a worker that was given up is not tried again, an hour at the most.

    One that lacks only an instance costs nothing to try; each other try costs an instance for minutes.
    """
    longer = 1 if worker.unserved else 2**worker.rounds
    return min(limits.rest * longer, max(limits.rest, limits.longest_rest))


def rested(worker: Worker, now: float, limits: Limits) -> bool:
    """Whether a worker that was given up may be tried again by now."""
    return now - worker.since > rest_of(worker, limits)


def by_itself(worker: Worker) -> bool:
    """Whether a worker that was given up is tried again on any cluster: AWS may have what it lacked by then.

    What its own process failed in waits for adaptive scaling that has work for it, or for somebody who asks again.
    """
    return worker.group != HEAD and (worker.unserved or worker.aws_failed)


def retried(worker: Worker, now: float, limits: Limits) -> Worker:
    """Return a worker that was given up with another set of attempts."""
    return replace(_retry(worker, now, 0, limits), rounds=worker.rounds + 1)


def given_up(worker: Worker, limits: Limits) -> bool:
    """Whether a worker has failed in its last attempt."""
    return worker.state is S.FAILED and worker.attempt >= limits.attempts - 1 and not worker.passing


def track(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    """Follow one worker along as many edges as what is observed allows.

    Parameters
    ----------
    worker : Worker
        As it was known.
    observed : Observed
        What AWS and Dask say.
    now : float
        Seconds, AWS's clock.
    limits : Limits
        Deadlines in seconds.

    Returns
    -------
    Worker
        The same object when nothing changed. STOPPED and not wished: to be dropped.
    """
    for _ in range(len(S)):
        moved = _RULES[worker.state](worker, observed, now, limits)
        if moved is worker:
            break
        worker = moved
    return worker


def alive(worker: Worker, observed: Observed) -> bool:
    """Whether its task is there and not over."""
    task = observed.tasks.get(worker.task or "")
    return task is not None and not task.stopped


def name_taken(worker: Worker, observed: Observed) -> bool:
    """Whether the scheduler still lists the dead process that had this worker's name before.

    It would refuse a second of that name, and we would take the dead one for it; `step` asks the
    scheduler to forget it.
    """
    return worker.name in observed.members and worker.group != HEAD and _unadopted(worker, observed) is None


def _requested(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not worker.requested:
        return move(worker, S.STOPPED, now)
    # Whether there is money for it is decided before a look is followed up, so it waits for the next one.
    if worker.over_budget or (limits.capped and worker.since == now):
        return worker
    if now < worker.not_before or name_taken(worker, observed):
        return worker
    return replace(move(worker, S.CAPACITY, now), group=next_group(worker, observed, limits))


def next_group(worker: Worker, observed: Observed, limits: Limits) -> str:
    """Return the first group from the worker's own down the ladder that AWS launches something in."""
    remaining = _remaining_groups(worker, limits)
    return next((group for group in remaining if observed.closed(group) is None), worker.group)


def _remaining_groups(worker: Worker, limits: Limits) -> tuple[str, ...]:
    fallback_groups = limits.fallback_groups
    return (
        fallback_groups[fallback_groups.index(worker.group) :] if worker.group in fallback_groups else (worker.group,)
    )


def fell_back(old: Worker, new: Worker, limits: Limits) -> bool:
    """Whether a worker is asked for in a group further down the ladder than before."""
    return new.group != old.group and new.group in _remaining_groups(old, limits)


def _capacity(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not worker.requested:
        return move(worker, S.STOPPED, now)
    found = _unadopted(worker, observed)
    if found is not None:
        return placed(worker, found, now)
    if worker.refusal:
        return replace(move(worker, S.FAILED, now, worker.refusal), refusal="", aws_failed=True)
    if worker.over_budget:
        return move(worker, S.REQUESTED, now)
    if _booting(worker, observed, now, limits):
        return worker
    waited, refusal = now - worker.since, observed.closed(worker.group)
    lower = _remaining_groups(worker, limits)[1:2]
    if lower and waited > (limits.fallback if refusal else limits.capacity):
        return replace(move(worker, S.REQUESTED, now, refusal.text if refusal else ""), group=lower[0], not_before=now)
    hopeless = refusal is not None and refusal.kind in ("quota", "fault")
    passing = refusal is not None and refusal.kind == "passing"
    if waited <= (limits.fault if hopeless else limits.capacity):
        return worker
    if passing:
        return replace(worker, since=now)  # Auto Scaling tries again by itself what AWS has failed in
    reason = refusal.text if refusal else worker.reason or f"no instance within {limits.capacity:g} s"
    return replace(move(worker, S.FAILED, now, reason), unserved=refusal is not None, aws_failed=True)


def _unadopted(worker: Worker, observed: Observed) -> Task | None:
    """Return a live task of this worker that we did not know of: its RunTask answer was lost."""
    return observed.live.get((worker.name, worker.launch))


def _booting(worker: Worker, observed: Observed, now: float, limits: Limits) -> bool:
    """Whether an instance of the group is young enough to be still on its way."""
    youngest = observed.youngest.get(worker.group)
    return youngest is not None and now - youngest <= limits.capacity


def _starting(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not alive(worker, observed):
        task = observed.tasks.get(worker.task or "")
        failed = move(worker, S.FAILED, now, _reason(worker, observed))
        return replace(failed, passing=task is None or task.passing, aws_failed=task is None or task.aws_failed)
    if not worker.requested:
        return move(worker, S.DRAINED, now)
    if worker.name in observed.members:
        return move(worker, S.READY, now)
    if now - worker.since > limits.connect:
        return move(worker, S.FAILED, now, f"did not join within {limits.connect:g} s")
    if worker.state is S.PLACED and observed.tasks[worker.task or ""].status == "RUNNING":
        return replace(move(worker, S.STARTED, now), since=worker.since)
    return worker


def _ready(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not alive(worker, observed):
        return move(worker, S.LOST, now, _reason(worker, observed))
    if not worker.requested or worker.over_budget:
        return move(worker, S.RETIRING, now)
    if worker.name in observed.members:
        return worker if worker.absent_since is None else replace(worker, absent_since=None)
    if worker.absent_since is None:
        return replace(worker, absent_since=now)
    if now - worker.absent_since > limits.absent:
        return move(worker, S.LOST, now, f"the scheduler lost it for {limits.absent:g} s")
    return worker


def _retiring(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not alive(worker, observed):
        return move(worker, S.STOPPED, now)
    if worker.name not in observed.members:
        return replace(move(worker, S.DRAINED, now), absent_since=now)
    if now - worker.since > limits.retire:
        return move(worker, S.DRAINED, now, f"not retired within {limits.retire:g} s")
    return worker


def _drained(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    return worker if alive(worker, observed) else move(worker, S.STOPPED, now)


def _stopped(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    return _retry(worker, now, 0, limits) if worker.requested else worker


def _lost(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not worker.requested:
        return move(worker, S.STOPPED, now)
    if worker.group == HEAD:
        return worker  # the work's graph died with it: only the user can start anew
    # The name is free once the scheduler has forgotten the dead one; step asks for that.
    return worker if worker.name in observed.members else _retry(worker, now, 0, limits)


def _failed(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not worker.requested:
        return move(worker, S.STOPPED, now)
    if worker.passing:
        pause = limits.backoff * 2 ** min(worker.transient_failures, _MAX_BACKOFF_DOUBLINGS)
        return replace(
            _retry(worker, now, worker.attempt, limits),
            not_before=now + pause,
            transient_failures=worker.transient_failures + 1,
            rounds=worker.rounds,
        )
    tries = worker.attempt + 1
    if tries >= limits.attempts:
        return retried(worker, now, limits) if by_itself(worker) and rested(worker, now, limits) else worker
    return replace(
        _retry(worker, now, tries, limits), not_before=now + limits.backoff * 2**worker.attempt, rounds=worker.rounds
    )


def _retry(worker: Worker, now: float, attempt: int, limits: Limits) -> Worker:
    """Return the worker wished anew, at the top of the ladder."""
    group = limits.fallback_groups[0] if worker.group in limits.fallback_groups else worker.group
    return replace(reset(worker, now, attempt), group=group)


def reset(worker: Worker, now: float, attempt: int) -> Worker:
    """Return the worker wished anew, for another task, after `attempt` failed attempts."""
    requested = move(worker, S.REQUESTED, now)
    return replace(
        requested,
        attempt=attempt,
        launch=worker.launch + 1,
        task=None,
        instance=None,
        absent_since=None,
        not_before=now,
        unserved=False,
        aws_failed=False,
        passing=False,
        transient_failures=0,
        rounds=0,
        notice=None,
    )


def _reason(worker: Worker, observed: Observed) -> str:
    task = observed.tasks.get(worker.task or "")
    if task is None:
        return "its task vanished"
    code = "" if task.exit_code is None else f" (exit code {task.exit_code})"
    return (task.reason or "its task stopped") + code


_RULES = {
    S.REQUESTED: _requested,
    S.CAPACITY: _capacity,
    S.PLACED: _starting,
    S.STARTED: _starting,
    S.READY: _ready,
    S.RETIRING: _retiring,
    S.DRAINED: _drained,
    S.STOPPED: _stopped,
    S.LOST: _lost,
    S.FAILED: _failed,
}
