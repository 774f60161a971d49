"""How many workers the tasks of one worker group require, as Dask counts it for a whole cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass

#: The share of the workers' memory above which Dask doubles the workers (distributed, ``Scheduler.adaptive_target``).
_FULL = 0.6


@dataclass(frozen=True, slots=True)
class GroupLoad:
    """The tasks and the workers of one group.

    Parameters
    ----------
    ready : int
        Tasks that wait for a worker.
    processing : int
        Tasks that are assigned to a worker, of this group or of another.
    seconds : float
        Estimated run time of all of these.
    workers, nthreads : int
        Registered workers of the group, and their threads together.
    memory_limit, nbytes : int
        Their memory, and the size of the results that they hold, in bytes.
    """

    ready: int = 0
    processing: int = 0
    seconds: float = 0.0
    workers: int = 0
    nthreads: int = 0
    memory_limit: int = 0
    nbytes: int = 0


def group_target(load: GroupLoad, target_duration: float) -> int:
    """Return the number of workers that a group requires; for less than its workers, the caller asks which may go.

    The same rules as ``Scheduler.adaptive_target`` of distributed (2026.7), for a part of the tasks and workers: enough
    threads to finish within `target_duration` seconds, but no more than tasks; twice the workers if memory runs out.

    Parameters
    ----------
    load : GroupLoad
        Tasks and workers of the group.
    target_duration : float
        Seconds in which the tasks should be finished.
    """
    threads = min(load.ready + load.processing, math.ceil(load.seconds / target_duration))
    workers = math.ceil(threads / load.nthreads * load.workers) if load.workers else threads
    if load.ready and not load.workers:
        workers = max(1, workers)
    full = load.memory_limit > 0 and load.nbytes > _FULL * load.memory_limit
    return max(workers, 2 * load.workers if full else 0)
