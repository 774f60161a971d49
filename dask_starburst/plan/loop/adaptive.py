"""How many workers to wish for, given what the work asks for: a pure decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dask_starburst.plan.loop.state import Name

#: From zero the scheduler only guesses how long tasks take (0.5 s where it has seen none), so the
#: first step is small: this many workers, or this share of the maximum if that is more.
FIRST_STEP = 4
FIRST_SHARE = 0.1
#: Every later look may multiply the wishes by this. From a tenth to the maximum takes four looks, 20 s
#: at the pace of an account and less than one boot; a blip that one look saw costs only a first step.
GROWTH = 2
#: So many looks to one decision. What is seen only when something is decided misses the top of every wave
#: that is shorter: workers would be given up and launched again though they were wanted all the time.
SAMPLES = 5
#: Seconds between two looks at least, as Dask's own has it.
MIN_SAMPLE_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class StartupTimes:
    """How long workers take from the order of their instance until they register, in seconds.

    Parameters
    ----------
    measured : tuple of float
        The latest ones.
    under_way : float
        How long the oldest has taken that has not registered yet.
    """

    measured: tuple[float, ...] = ()
    under_way: float = 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long nothing that has been launched is given up, where the user has not said it: one boot.

    A launch costs one boot during which nobody is served, so a worker that is kept through a pause
    which turns out longer has cost at most twice of what foresight would have: as with skis, which one
    buys once their rent has reached the price. Work that comes again within one boot finds its workers.

    Parameters
    ----------
    least : float
        Seconds. Shorter than this the scheduler's guess changes by itself.
    boot : float
        Seconds, until one has been measured. 50 workers on EC2 took 75 to 105 s in the predecessor's
        runs, 87 s and more in the latency model (aws-facts §2.1, §2.3).
    most : float
        Seconds. Boots that take longer than this wait for capacity or for a busy computer; nobody is
        to pay for idle workers as long as that.
    """

    least: float = 60.0
    boot: float = 90.0
    most: float = 300.0

    def after(self, startups: StartupTimes) -> float:
        """Return the seconds, given what this cluster's own boots have taken.

        The median, since a few wait for capacity for minutes. Before the first, what is still on its
        way shows that boots take no less.
        """
        from statistics import median  # with `fractions` and `decimal` it is a tenth of what our import takes

        boot = median(startups.measured) if startups.measured else max(self.boot, startups.under_way)
        return min(max(self.least, boot), self.most)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the work asked for at one time: `target` workers, within the bounds; `at` in seconds."""

    at: float
    target: int


@dataclass(frozen=True, slots=True)
class State:
    """What there is, and what was asked for lately.

    Parameters
    ----------
    unlaunched : tuple of names
        Wishes for which nothing has been ordered, or that were given up: taking them back is free.
    booting : tuple of names
        Wishes whose instance is ordered and whose worker has not registered.
    running : int
        Workers that are wished for and have registered.
    looks : tuple of Look
        Earlier ones, oldest first, as the decision before returned them.
    """

    unlaunched: tuple[Name, ...] = ()
    booting: tuple[Name, ...] = ()
    running: int = 0
    samples: tuple[Sample, ...] = ()

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
    cancel : tuple of names
        Wishes to take back.
    retire : int
        Running workers to retire. Which ones, the scheduler knows: those that hold least.
    looks : tuple of Look
        For the next :class:`State`.
    """

    target_workers: int
    cancel: tuple[Name, ...] = ()
    retire: int = 0
    samples: tuple[Sample, ...] = ()


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


def sample_every(interval: float) -> float:
    """Return the seconds between two looks, given those between two decisions."""
    return min(interval, max(MIN_SAMPLE_INTERVAL, interval / SAMPLES))


def remember(samples: Sequence[Sample], target: int, now: float, limits: Limits) -> tuple[Sample, ...]:
    """Return the looks that still matter, with what the work asks for now; parameters as of `recommend`."""
    start = now - limits.scale_down_after
    samples = (*samples, Sample(now, _within(target, limits)))
    before = [sample for sample in samples if sample.at <= start]
    # The last one before it tells what held at the start.
    return (*before[-1:], *(sample for sample in samples if sample.at > start))


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
    samples = remember(state.samples, target, now, limits)
    target, planned = _within(target, limits), state.planned
    if target > planned:
        return Decision(_next_step(planned, target, limits), samples=samples)
    free = state.unlaunched[: planned - target]
    left = planned - len(free)
    superfluous = max(0, left - _most_requested(samples, left, now - limits.scale_down_after))
    cancelled = state.booting[:superfluous]
    retire = superfluous - len(cancelled)
    # What would stay waiting while workers are retired: only where `unlaunched` was needed after all.
    return Decision(left - superfluous, (*free, *cancelled), retire, samples)


def _within(target: int, limits: Limits) -> int:
    """Keep to the bounds; the maximum has the last word, as it is about money."""
    return int(min(max(target, limits.minimum), limits.maximum))


def _next_step(planned: int, target: int, limits: Limits) -> int:
    share = math.ceil(FIRST_SHARE * limits.maximum) if math.isfinite(limits.maximum) else 0
    step = max(FIRST_STEP, share, GROWTH * planned)
    return _within(min(target, step), limits)


def _most_requested(samples: Sequence[Sample], left: int, start: float) -> int:
    """Return the most that was asked for since `start`; everything, if we have not looked that long."""
    if samples[0].at > start:
        return left
    return max(sample.target for sample in samples)
