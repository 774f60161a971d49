"""How many workers an adaptive cluster requests, given the load: a pure decision."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dask_starburst.plan.loop.state import Name

#: From zero workers the scheduler only guesses task durations (0.5 s where it has measured none), so the
#: first step is small: this many workers, or this share of the maximum if that is more.
FIRST_STEP = 4
FIRST_SHARE = 0.1
#: Every later decision may multiply the requested workers by this. From a tenth to the maximum takes four decisions,
#: 20 s at an account's interval and less than one startup; a short peak in one sample costs only a first step.
GROWTH = 2
#: Number of samples for each decision. With one sample per decision, shorter load peaks would be missed, and workers
#: that are needed all the time would be retired and launched again.
SAMPLES = 5
#: Minimum seconds between two samples, as in Dask's own adaptive scaling.
MIN_SAMPLE_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class StartupTimes:
    """Seconds from the request of a worker's instance until the worker registers.

    Parameters
    ----------
    measured : tuple of float
        The most recent startups.
    under_way : float
        Time so far of the oldest startup that has not finished.
    """

    measured: tuple[float, ...] = ()
    under_way: float = 0.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long launched workers are kept without load, unless the user sets it: the time of one startup.

    A launch costs one startup during which the instance is paid for and does no work. So a worker that is kept
    through a longer pause costs at most twice as much as with perfect foresight (the ski rental problem). Work that
    returns within one startup finds its workers still there.

    Parameters
    ----------
    least : float
        Minimum in seconds: within less time the scheduler's own estimate fluctuates.
    boot : float
        Seconds assumed until one startup has been measured. 50 workers on EC2 took 75 to 105 s in the predecessor's
        runs, 87 s and more in the latency model (aws-facts §2.1, §2.3).
    most : float
        Maximum in seconds. Longer startups wait for capacity or for a busy computer, and idle workers
        must not cost money for that long.
    """

    least: float = 60.0
    boot: float = 90.0
    most: float = 300.0

    def after(self, startups: StartupTimes) -> float:
        """Return the seconds to keep workers, given the startup times of this cluster.

        The median, because a few startups wait minutes for capacity. Before the first startup is measured, the
        time of an unfinished one is a lower bound.
        """
        from statistics import median  # with `fractions` and `decimal` it is a tenth of what our import takes

        boot = median(startups.measured) if startups.measured else max(self.boot, startups.under_way)
        return min(max(self.least, boot), self.most)


@dataclass(frozen=True, slots=True)
class Sample:
    """The load at one time: `target` workers, within the bounds; `at` in seconds."""

    at: float
    target: int


@dataclass(frozen=True, slots=True)
class State:
    """The workers of the cluster, and the recent load.

    Parameters
    ----------
    unlaunched : tuple of names
        Requested workers without an instance, or that have failed: cancelling them is free.
    booting : tuple of names
        Workers whose instance is requested and that have not registered.
    running : int
        Requested workers that have registered.
    samples : tuple of Sample
        Earlier samples, oldest first, as the previous decision returned them.
    """

    unlaunched: tuple[Name, ...] = ()
    booting: tuple[Name, ...] = ()
    running: int = 0
    samples: tuple[Sample, ...] = ()

    @property
    def planned(self) -> int:
        """All requested workers, including those that are still starting."""
        return len(self.unlaunched) + len(self.booting) + self.running


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds in workers; `scale_down_after` in seconds."""

    minimum: int = 0
    maximum: float = math.inf
    scale_down_after: float = 60.0


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do next.

    Parameters
    ----------
    target_workers : int
        Number of workers once the decision is carried out.
    cancel : tuple of names
        Requests to cancel.
    retire : int
        Number of running workers to retire. The scheduler chooses those with the least data.
    samples : tuple of Sample
        Input of the next :class:`State`.
    """

    target_workers: int
    cancel: tuple[Name, ...] = ()
    retire: int = 0
    samples: tuple[Sample, ...] = ()


def workers_for(target: int, nthreads: int, known: int) -> int:
    """Convert the scheduler's target to workers.

    ``Scheduler.adaptive_target`` divides by the threads of a worker only while it has workers; without
    workers its result is a number of threads (distributed 2026.7, ``scheduler.py``).

    Parameters
    ----------
    target : int
        Result of the scheduler.
    nthreads : int
        Threads of one new worker.
    known : int
        Number of workers that the scheduler had.

    Returns
    -------
    int
        Workers.
    """
    return target if known else math.ceil(target / max(1, nthreads))


def sample_every(interval: float) -> float:
    """Return the seconds between two samples, given the seconds between two decisions."""
    return min(interval, max(MIN_SAMPLE_INTERVAL, interval / SAMPLES))


def remember(samples: Sequence[Sample], target: int, now: float, limits: Limits) -> tuple[Sample, ...]:
    """Return the samples that still matter, with the current one; parameters as in `recommend`."""
    start = now - limits.scale_down_after
    samples = (*samples, Sample(now, _within(target, limits)))
    before = [sample for sample in samples if sample.at <= start]
    # The last sample before the window holds the load at its start.
    return (*before[-1:], *(sample for sample in samples if sample.at > start))


def recommend(state: State, target: int, now: float, limits: Limits) -> Decision:
    """Decide how many workers to request, and which to cancel or retire.

    Scale up immediately, in steps. Scale down launched workers only when every target of the last
    ``scale_down_after`` seconds was lower, so that periodic load finds its workers still there. Cancel starting
    workers before retiring running ones.

    Parameters
    ----------
    state : State
        Current workers and earlier samples.
    target : int
        Number of workers for the current load.
    now : float
        Seconds of a monotonic clock.
    limits : Limits
        Bounds and scale-down delay.

    Returns
    -------
    Decision
        Either scales up or scales down, never both.
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
    # Unlaunched workers left over while others are retired: only if the load of the window needed them.
    return Decision(left - superfluous, (*free, *cancelled), retire, samples)


def _within(target: int, limits: Limits) -> int:
    """Clip to the bounds. The maximum takes precedence, because it limits the cost."""
    return int(min(max(target, limits.minimum), limits.maximum))


def _next_step(planned: int, target: int, limits: Limits) -> int:
    share = math.ceil(FIRST_SHARE * limits.maximum) if math.isfinite(limits.maximum) else 0
    step = max(FIRST_STEP, share, GROWTH * planned)
    return _within(min(target, step), limits)


def _most_requested(samples: Sequence[Sample], left: int, start: float) -> int:
    """Return the highest target since `start`, or `left` if the samples do not reach back that far."""
    if samples[0].at > start:
        return left
    return max(sample.target for sample in samples)
