"""The state machine of one worker: the rules that choose a transition."""

from __future__ import annotations

from dataclasses import replace

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.state import Limits, Observed, Task, Worker, WorkerState
from dask_starburst.plan.loop.transitions import accepted, move, placed, refused

S = WorkerState

#: Maximum number of doublings of the backoff after passing faults: 2 s, 4 s, … 128 s.
_MAX_BACKOFF_DOUBLINGS = 6


def rest_of(worker: Worker, limits: Limits) -> float:
    """Return the seconds until a failed worker may be retried, at most an hour by default.

    If only an instance was missing, a retry is free; any other retry costs an instance for minutes.
    """
    longer = 1 if worker.unserved else 2**worker.rounds
    return min(limits.rest * longer, max(limits.rest, limits.longest_rest))


def rested(worker: Worker, now: float, limits: Limits) -> bool:
    """Whether a failed worker may be retried now."""
    return now - worker.since > rest_of(worker, limits)


def by_itself(worker: Worker) -> bool:
    """Whether a failed worker is retried automatically on any cluster, because what AWS failed may succeed by then.

    A failure of its own process waits for adaptive scaling with work for it, or for a new request.
    """
    return not worker.is_scheduler and (worker.unserved or worker.aws_failed)


def retried(worker: Worker, now: float, limits: Limits) -> Worker:
    """Return a failed worker with a new set of attempts."""
    return replace(_retry(worker, now, 0, limits), rounds=worker.rounds + 1)


def given_up(worker: Worker, limits: Limits) -> bool:
    """Whether a worker has failed its last attempt."""
    return worker.state is S.FAILED and worker.attempt >= limits.attempts - 1 and not worker.passing


def track(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    """Apply all transitions of one worker that the observed state allows.

    Parameters
    ----------
    worker : Worker
        Its known state.
    observed : Observed
        State of AWS and Dask.
    now : float
        Seconds, AWS's clock.
    limits : Limits
        Deadlines in seconds.

    Returns
    -------
    Worker
        The same object if nothing changed. One that is STOPPED and not requested can be dropped.
    """
    for _ in range(len(S)):
        moved = _RULES[worker.state](worker, observed, now, limits)
        if moved is worker:
            break
        worker = moved
    return worker


def alive(worker: Worker, observed: Observed) -> bool:
    """Whether its task exists and has not stopped."""
    task = observed.tasks.get(worker.task or "")
    return task is not None and not task.stopped


def name_taken(worker: Worker, observed: Observed) -> bool:
    """Whether the scheduler still lists a dead process under this worker's name.

    It would refuse a new process of that name, and the dead one would be taken for the new one; `step` asks
    the scheduler to forget it.
    """
    return worker.name in observed.members and not worker.is_scheduler and _unadopted(worker, observed) is None


def _requested(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not worker.requested:
        return move(worker, S.STOPPED, now)
    # The budget is checked before workers are tracked, so a new request waits for the next poll.
    if worker.over_budget or (limits.capped and worker.since == now):
        return worker
    if now < worker.not_before or name_taken(worker, observed):
        return worker
    return replace(move(worker, S.CAPACITY, now), placement=next_placement(worker, observed, limits))


def next_placement(worker: Worker, observed: Observed, limits: Limits) -> Placement:
    """Return the first placement with capacity, from the worker's own on through its fallbacks."""
    remaining = _remaining_placements(worker, limits)
    return next((each for each in remaining if observed.closed(each) is None), worker.placement)


def _remaining_placements(worker: Worker, limits: Limits) -> tuple[Placement, ...]:
    placements = limits.of_group(worker.placement)
    return placements[placements.index(worker.placement) :]


def fell_back(old: Worker, new: Worker, limits: Limits) -> bool:
    """Whether a worker has fallen back to a later placement."""
    return new.placement != old.placement and new.placement in _remaining_placements(old, limits)


def _capacity(worker: Worker, observed: Observed, now: float, limits: Limits) -> Worker:
    if not worker.requested:
        return move(worker, S.STOPPED, now)
    found = _unadopted(worker, observed)
    if found is not None and not found.placed:
        return _unplaced(worker, found, observed, now)
    if found is not None:
        return placed(worker, found, now)
    if worker.task is not None:
        return _not_placed(worker, observed, now)
    if worker.refusal:
        return replace(move(worker, S.FAILED, now, worker.refusal), refusal="", aws_failed=True)
    if worker.over_budget:
        return move(worker, S.REQUESTED, now)
    if _booting(worker, observed, now, limits):
        return worker
    waited, refusal = now - worker.since, observed.closed(worker.placement)
    lower = _remaining_placements(worker, limits)[1:2]
    if lower and waited > (limits.fallback if refusal else limits.capacity):
        requested = move(worker, S.REQUESTED, now, refusal.text if refusal else "")
        return replace(requested, placement=lower[0], not_before=now)
    permanent = refusal is not None and refusal.kind in ("quota", "fault")
    passing = refusal is not None and refusal.kind == "passing"
    if waited <= (limits.fault if permanent else limits.capacity):
        return worker
    if passing:
        return replace(worker, since=now)  # Auto Scaling itself retries after a passing fault
    reason = refusal.text if refusal else worker.reason or f"no instance within {limits.capacity:g} s"
    return replace(move(worker, S.FAILED, now, reason), unserved=refusal is not None, aws_failed=True)


def _unplaced(worker: Worker, task: Task, observed: Observed, now: float) -> Worker:
    """Wait for ECS to place the task; `step` stops one that takes longer than `Limits.placing`."""
    if task.instance not in observed.standing:
        return refused(worker, "its instance was terminated before ECS placed its task", passing=True)
    return worker if worker.task == task.arn else accepted(worker, task, now)


def _not_placed(worker: Worker, observed: Observed, now: float) -> Worker:
    """Return the worker after its task ended: it was placed and ran between two polls, or ECS could not place it."""
    task = observed.tasks.get(worker.task or "")
    if task is None:
        return refused(worker, "ECS does not know its task any more", passing=True)
    if task.placed:
        return placed(worker, task, now)
    return refused(worker, f"ECS refused its task: {task.reason}", passing=task.passing)


def overdue(worker: Worker, now: float, limits: Limits) -> bool:
    """Whether ECS has taken too long to place the task of a worker."""
    return worker.awaits_place and worker.accepted is not None and now - worker.accepted > limits.placing


def _unadopted(worker: Worker, observed: Observed) -> Task | None:
    """Return a live task of this worker that is not known to be placed, or whose RunTask response was lost."""
    return observed.live.get((worker.name, worker.launch))


def _booting(worker: Worker, observed: Observed, now: float, limits: Limits) -> bool:
    """Whether an instance of its placement may still be booting."""
    youngest = observed.youngest.get(worker.placement)
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
        return move(worker, S.LOST, now, f"not known to the scheduler for {limits.absent:g} s")
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
    if worker.is_scheduler:
        return worker  # the task graph is lost with it: only the user can start again
    # The name is free once the scheduler has forgotten the dead process; `step` requests that.
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
    """Return the worker requested again, in the preferred placement of its group."""
    return replace(reset(worker, now, attempt), placement=limits.of_group(worker.placement)[0])


def reset(worker: Worker, now: float, attempt: int) -> Worker:
    """Return the worker requested again, for a new task, after `attempt` failed attempts."""
    requested = move(worker, S.REQUESTED, now)
    return replace(
        requested,
        attempt=attempt,
        launch=worker.launch + 1,
        task=None,
        instance=None,
        accepted=None,
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
        return "its task is gone"
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
