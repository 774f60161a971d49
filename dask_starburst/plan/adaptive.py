"""How many workers to wish for, given what the work asks for: a pure decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

#: From zero the scheduler only guesses how long tasks take (0.5 s where it has seen none), so the
#: first step is small: this many workers, or this share of the maximum if that is more.
FIRST_STEP = 4
FIRST_SHARE = 0.1
#: Every later look may multiply the wishes by this. From a tenth to the maximum takes four looks, 20 s
#: at the pace of an account and less than one boot; a blip that one look saw costs only a first step.
GROWTH = 2


@dataclass(frozen=True, slots=True)
class Look:
    """What the work asked for at one time: `target` workers, within the bounds; `at` in seconds."""

    at: float
    target: int


@dataclass(frozen=True, slots=True)
class State:
    """What there is, and what was asked for lately.

    Parameters
    ----------
    unlaunched : tuple of str
        Wishes for which nothing has been ordered, or that were given up: taking them back is free.
    booting : tuple of str
        Wishes whose instance is ordered and whose worker has not registered.
    running : int
        Workers that are wished for and have registered.
    looks : tuple of Look
        Earlier ones, oldest first, as the decision before returned them.
    """

    unlaunched: tuple[str, ...] = ()
    booting: tuple[str, ...] = ()
    running: int = 0
    looks: tuple[Look, ...] = ()

    @property
    def planned(self) -> int:
        """Everything wished for: what is on its way counts as there."""
        return len(self.unlaunched) + len(self.booting) + self.running


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in workers; `scale_down_after` in seconds."""

    minimum: int = 0
    maximum: float = math.inf
    scale_down_after: float = 60.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now.

    Parameters
    ----------
    wish : int
        How many workers there shall be when all of this is done.
    cancel : tuple of str
        Wishes to take back.
    retire : int
        Running workers to retire. Which ones, the scheduler knows: those that hold least.
    looks : tuple of Look
        For the next :class:`State`.
    """

    wish: int
    cancel: tuple[str, ...] = ()
    retire: int = 0
    looks: tuple[Look, ...] = ()


def workers_for(target: int, nthreads: int, known: int) -> int:
    """Convert the scheduler's target to workers.

    ``Scheduler.adaptive_target`` divides by the threads of a worker only while it has workers; without
    any its answer is a number of threads (distributed 2026.7, ``scheduler.py``).

    Parameters
    ----------
    target : int
        What the scheduler answered.
    nthreads : int
        Threads of one new worker.
    known : int
        Workers that the scheduler had.

    Returns
    -------
    int
        Workers.
    """
    return target if known else math.ceil(target / max(1, nthreads))


def recommend(state: State, target: int, now: float, limits: Limits) -> Decision:
    """Decide what to wish for, to cancel and to retire.

    Growth is at once, in steps. What has been paid for goes only once all that was asked for in the
    last ``scale_down_after`` seconds was less, so that work which comes in waves finds its workers
    still there; of that, what boots goes before what runs.

    Parameters
    ----------
    state : State
        What there is.
    target : int
        Workers that the work asks for now.
    now : float
        Seconds, of any clock that does not go back.
    limits : Limits
        Bounds and patience.

    Returns
    -------
    Decision
        Never both more wishes and fewer.
    """
    target = _within(target, limits)
    looks = _lately((*state.looks, Look(now, target)), now - limits.scale_down_after)
    planned = state.planned
    if target > planned:
        return Decision(_next_step(planned, target, limits), looks=looks)
    free = state.unlaunched[: planned - target]
    left = planned - len(free)
    superfluous = max(0, left - _needed(looks, left, now - limits.scale_down_after))
    cancelled = state.booting[:superfluous]
    retire = superfluous - len(cancelled)
    # What would stay waiting while workers are retired: only where `unlaunched` was needed after all.
    return Decision(left - superfluous, (*free, *cancelled), retire, looks)


def _within(target: int, limits: Limits) -> int:
    """Keep to the bounds; the maximum has the last word, as it is about money."""
    return int(min(max(target, limits.minimum), limits.maximum))


def _next_step(planned: int, target: int, limits: Limits) -> int:
    share = math.ceil(FIRST_SHARE * limits.maximum) if math.isfinite(limits.maximum) else 0
    step = max(FIRST_STEP, share, GROWTH * planned)
    return _within(min(target, step), limits)


def _lately(looks: Sequence[Look], start: float) -> tuple[Look, ...]:
    """Return the looks since `start`, and the last one before it: it tells what held at `start`."""
    before = [look for look in looks if look.at <= start]
    return (*before[-1:], *(look for look in looks if look.at > start))


def _needed(looks: Sequence[Look], left: int, start: float) -> int:
    """Return the most that was asked for since `start`; everything, if we have not looked that long."""
    if looks[0].at > start:
        return left
    return max(look.target for look in looks)
