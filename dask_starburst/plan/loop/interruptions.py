"""Workers that AWS takes back, and those that are to follow them: decided from values alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from dask_starburst.plan.loop.state import Limits, Name, Observed, Worker, WorkerState

S = WorkerState

#: Why a worker has to go: Spot takes its instance, may soon take it, somebody drains it, or its container is stopped.
#: Or it has gone already, because a client had Dask retire it.
NoticeKind = Literal["interruption", "rebalance", "stop", "retired"]


@dataclass(frozen=True, slots=True)
class Notice:
    """What the scheduler tells of a worker that has to go.

    Parameters
    ----------
    number : int
        Notices are counted from 1.
    name : int or str
        The worker's.
    kind : {"interruption", "rebalance", "stop", "retired"}
        Why it goes.
    seconds : float, optional
        How long it has; None where nobody has said.
    """

    number: int
    name: Name
    kind: NoticeKind
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Succession:
    """Worker `new` follows `old`, which goes when `new` is up; with `group`, only if it comes up in this group."""

    old: Name
    new: Name
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a succession has come to: the old one may go (``retire``), or the new one is taken back (``withdraw``)."""

    retire: bool = False
    withdraw: bool = False


def outcome(one: Succession, workers: Mapping[Name, Worker]) -> Outcome | None:
    """Return what is to be done about a succession; None while it is undecided.

    Parameters
    ----------
    one : Succession
        The two.
    workers : mapping of name to Worker
        All of the fleet.
    """
    old, new = workers.get(one.old), workers.get(one.new)
    if old is None:
        return Outcome()
    if new is None or not new.requested or old.state is not S.READY or new.state is S.READY:
        # It is up; or somebody wants fewer workers, or the old one is gone anyhow and is followed once only.
        return Outcome(retire=True)
    if one.group is not None and (new.group != one.group or new.attempt > 0):
        return Outcome(withdraw=True)
    return None


def to_move_back(workers: Iterable[Worker], observed: Observed, limits: Limits) -> Worker | None:
    """Return a worker to buy on Spot again, when that looks possible and nothing else is under way.

    Parameters
    ----------
    workers : iterable of Worker
        All of the fleet.
    observed : Observed
        With AWS's refusals of the last three minutes.
    limits : Limits
        With the ladder.
    """
    best, *lower = limits.fallback_groups or ("",)
    if not lower or any(refusal.group == best for refusal in observed.refusals):
        return None
    members = [w for w in workers if w.group in limits.fallback_groups and w.requested]
    if any(w.state is not S.READY for w in members):
        return None
    # The youngest one has had the least time to collect results.
    return max((w for w in members if w.group != best), key=lambda w: (w.since, w.name), default=None)
