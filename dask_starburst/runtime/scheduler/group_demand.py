"""Adaptive targets by worker group: which tasks count for a group, and which of its workers may be closed.

Loaded by the lease keeper in a cluster with several groups. ``Scheduler.adaptive_target`` counts all tasks for all
workers. A task belongs to the group whose resource it is restricted to (``group-big``); the others belong to the group
that the client calls the rest. Reads ``unrunnable``, ``queued``, ``processing`` and ``_get_prefix_duration`` of the
scheduler (distributed 2026.7.0 and 2026.8.0), for which there is no public interface.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from dask.utils import parse_timedelta
from distributed import SchedulerPlugin

from dask_starburst.plan.groups import resource_of
from dask_starburst.plan.scheduler.group_target import GroupLoad, group_target
from dask_starburst.runtime.scheduler.demand import Demand
from dask_starburst.runtime.scheduler.unrunnable import Unrunnable

#: The number of tasks of each collection whose duration is looked up; Dask looks at as many of the waiting ones.
_SAMPLE = 100


class GroupDemand(SchedulerPlugin):
    """Answers the client's questions about one group.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler in this process.
    resources : collection of str
        The resources of the groups.
    unrunnable : Unrunnable
        Knows the waiting tasks that a new worker could run.
    """

    name = "starburst-group-demand"

    def __init__(self, scheduler: Any, resources: Collection[str], unrunnable: Unrunnable) -> None:
        self._scheduler = scheduler
        self._resources = frozenset(resources)
        self._unrunnable = unrunnable
        self._closing: str | None = None
        scheduler.handlers["starburst_group_target"] = self.starburst_group_target
        scheduler.handlers["starburst_group_workers_to_close"] = self.starburst_group_workers_to_close

    async def starburst_group_target(self, group: str, rest: bool, target_duration: Any) -> dict[str, int]:
        """Return the number of workers that the tasks of a group require, and the number of its workers.

        Parameters
        ----------
        group : str
            Name of the group.
        rest : bool
            Whether tasks that are not restricted to any group count for it.
        target_duration : float or str
            Seconds in which the tasks should be finished.
        """
        scheduler, resource = self._scheduler, resource_of(group)
        workers = self._workers(resource)
        tasks, processing = _Tasks(scheduler), 0
        waiting = chain(self._unrunnable.reachable(), scheduler.queued if rest else ())
        ready = tasks.add(task for task in waiting if self._belongs(task, resource, rest))
        for worker in scheduler.workers.values():
            processing += tasks.add(task for task in worker.processing if self._belongs(task, resource, rest))
        load = GroupLoad(
            ready=ready,
            processing=processing,
            seconds=tasks.seconds,
            workers=len(workers),
            nthreads=sum(worker.nthreads for worker in workers),
            memory_limit=sum(worker.memory_limit for worker in workers),
            nbytes=sum(worker.nbytes for worker in workers),
        )
        target = group_target(load, parse_timedelta(target_duration))
        if target < len(workers):
            target = len(workers) - len(self._close(resource))
        demand: Demand | None = scheduler.extensions.get(Demand.name)
        least = demand.least_workers() if rest and demand is not None else 0
        return {"target": max(target, least), "workers": len(workers)}

    async def starburst_group_workers_to_close(self, group: str, n: int) -> list[Any]:
        """Return the names of the `n` workers of a group that hold the least data, idle ones first."""
        return self._close(resource_of(group), n=n)

    def valid_workers_downscaling(self, scheduler: Any, workers: list[Any]) -> list[Any]:
        """Restrict Dask's choice of workers to close to the group that was asked for."""
        return workers if self._closing is None else [w for w in workers if self._closing in w.resources]

    def _close(self, resource: str, **options: Any) -> list[Any]:
        self._closing = resource
        try:
            found: list[Any] = self._scheduler.workers_to_close(attribute="name", **options)
            return found
        finally:
            self._closing = None

    def _workers(self, resource: str) -> list[Any]:
        return [worker for worker in self._scheduler.workers.values() if resource in worker.resources]

    def _belongs(self, task: Any, resource: str, rest: bool) -> bool:
        restricted = self._resources.intersection(task.resource_restrictions or ())
        return resource in restricted or (rest and not restricted)


class _Tasks:
    """Adds up the estimated run times of tasks."""

    def __init__(self, scheduler: Any) -> None:
        self._duration = scheduler._get_prefix_duration
        self.seconds = 0.0

    def add(self, tasks: Iterable[Any]) -> int:
        """Add tasks and return their number; of many only a sample is looked at."""
        found: Iterator[Any] = iter(tasks)
        sample = [self._duration(task.prefix) for task in islice(found, _SAMPLE)]
        count = len(sample) + sum(1 for _ in found)
        self.seconds += sum(sample) * count / len(sample) if sample else 0.0
        return count
