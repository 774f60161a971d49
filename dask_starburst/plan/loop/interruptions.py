"""Interrupted workers and their successors: pure decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.state import Limits, Name, Observed, Worker, WorkerState, order

S = WorkerState

#: Bytes of Dask data: half of what a worker of two vCPUs can transfer within a Spot notice (docs/explanation/spot.md).
#: With less, a notice is soon enough, and AWS recommends to leave many instances that it never interrupts.
REBALANCE_BYTES = 4 << 30
#: Seconds between two replacements because of recommendations: each costs a second instance while both run.
REBALANCE_PAUSE = 600.0

#: Why a worker has to leave: Spot interrupts its instance, may soon interrupt it, its container instance is drained,
#: or its container is stopped. Or a client has retired it through Dask already.
NoticeKind = Literal["interruption", "rebalance", "stop", "retired"]


@dataclass(frozen=True, slots=True)
class Notice:
    """A scheduler's notice about a worker that has to leave.

    Parameters
    ----------
    number : int
        Sequence number, from 1.
    name : int or str
        Name of the worker.
    kind : {"interruption", "rebalance", "stop", "retired"}
        Why it leaves.
    seconds : float, optional
        Time until then; None if unknown.
    held : int
        Bytes of Dask data that the worker holds.
    """

    number: int
    name: Name
    kind: NoticeKind
    seconds: float | None = None
    held: int = 0


def why_not_replaced(held: int, now: float, last: float | None) -> str:
    """Return why a worker is not replaced because of a rebalance recommendation; empty if it is.

    Parameters
    ----------
    held : int
        Bytes of Dask data that it holds.
    now : float
        Seconds on any clock.
    last : float, optional
        When the last worker was replaced for this reason, on the same clock.
    """
    if held < REBALANCE_BYTES:
        return f"it holds {held / 2**30:.1f} GiB, which a Spot notice leaves time to transfer"
    if last is not None and now - last < REBALANCE_PAUSE:
        return f"another worker was replaced within the last {REBALANCE_PAUSE / 60:g} minutes"
    return ""


@dataclass(frozen=True, slots=True)
class Succession:
    """Worker `new` replaces `old`, which retires once `new` is ready; with `placement`, only if `new` is in it."""

    old: Name
    new: Name
    placement: Placement | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a succession: retire the old worker (``retire``), or cancel the new one (``withdraw``)."""

    retire: bool = False
    withdraw: bool = False


def outcome(one: Succession, workers: Mapping[Name, Worker]) -> Outcome | None:
    """Return the result of a succession; None while it is pending.

    Parameters
    ----------
    one : Succession
        The old and the new worker.
    workers : mapping of name to Worker
        All requested workers.
    """
    old, new = workers.get(one.old), workers.get(one.new)
    if old is None:
        return Outcome()
    if new is None or not new.requested or old.state is not S.READY or new.state is S.READY:
        # The new worker is ready or no longer requested, or the old one is gone and is replaced only once.
        return Outcome(retire=True)
    if one.placement is not None and (new.placement != one.placement or new.attempt > 0):
        return Outcome(withdraw=True)
    return None


def to_move_back(workers: Iterable[Worker], observed: Observed, limits: Limits) -> tuple[Worker, Placement] | None:
    """Return a worker to move back to the preferred placement of its group, and that placement.

    Only if capacity looks available there, and no other worker of the group is starting.

    Parameters
    ----------
    workers : iterable of Worker
        All requested workers.
    observed : Observed
        Includes AWS's refusals of the last three minutes.
    limits : Limits
        Includes the placements of each group.
    """
    workers = tuple(workers)
    for best, *lower in limits.placements.values():
        if not lower or any(refusal.placement == best for refusal in observed.refusals):
            continue
        members = [w for w in workers if w.placement.group == best.group and w.requested]
        if any(w.state is not S.READY for w in members):
            continue
        # The youngest worker has had the least time to collect results.
        fallen = [w for w in members if w.placement != best]
        if fallen:
            return max(fallen, key=lambda w: (w.since, order(w.name))), best
    return None
