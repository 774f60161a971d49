"""Report tasks that no worker can run, and exclude them from the idle timeout and adaptive scaling.

Loaded by the lease keeper, in the scheduler's process. Only this module changes what distributed counts as work: there
is no public API to exclude tasks (distributed 2026.7, ``Scheduler.check_idle``, ``adaptive_target``).
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import dask.config

from dask_starburst.plan.scheduler.unrunnable import Restricted, advice, hopeless, out_of_reach, suspect
from dask_starburst.runtime.plugin import LoopingPlugin

#: Seconds between two checks.
_POLL_INTERVAL = 1.0
#: How many existing workers a message names if a task names only missing ones.
_MAX_NAMES = 5
#: Settings by which an image can run code in each worker before it registers.
_PRELOADS = ("distributed.worker.preload", "distributed.nanny.preload")
#: Name prefixes of Dask's own plugins, which add no resources to a worker: P2P shuffles, uploaded files.
_DASKS_OWN = ("shuffle", "upload_file", "upload-directory-")


class Unrunnable(LoopingPlugin):
    """Tracks the tasks of a scheduler that no worker can run.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The scheduler in this process.
    offered : mapping of str to float, optional
        The resources that workers of this cluster are started with, besides those of Dask's configuration.
    """

    name = "starburst-unrunnable"

    def __init__(self, scheduler: Any, offered: Mapping[str, float] | None = None) -> None:
        self._scheduler = scheduler
        # Scheduler and workers run the same image with the same environment, so they read the same configuration.
        configured = dask.config.get("distributed.worker.resources", {}) or {}
        self._offered: dict[str, float] = {name: float(amount) for name, amount in configured.items()}
        self._offered |= offered or {}
        self._extended_by: frozenset[str] | None = None if any(map(dask.config.get, _PRELOADS)) else frozenset()
        self._hopeless: dict[Any, Restricted] = {}
        self._out_of_reach: frozenset[Any] = frozenset()
        self._suspects: list[Restricted] = []
        self._transitions = -1
        self._idle_since: float | None = None
        scheduler.handlers["starburst_unrunnable"] = self.starburst_unrunnable
        self._target = scheduler.handlers["adaptive_target"]  # Dask's, or that of `demand`, which wraps it too
        scheduler.handlers["adaptive_target"] = self.adaptive_target

    def idle(self) -> float:
        """Return the seconds without work that a worker could do."""
        since = self._scheduler.idle_since
        if since:
            return time.time() - float(since)
        return 0.0 if self._idle_since is None else time.time() - self._idle_since

    async def starburst_unrunnable(self) -> dict[str, str]:
        """Return a message about the tasks that cannot run, for each restriction they were submitted with."""
        alike: defaultdict[str, list[Restricted]] = defaultdict(list)
        for task in (*self._hopeless.values(), *self._suspects):
            alike[task.restriction].append(task)
        names = tuple(str(w.name) for w in list(self._scheduler.workers.values())[:_MAX_NAMES])
        return {said: advice(tasks[0], len(tasks), names) for said, tasks in alike.items()}

    def adaptive_target(self, target_duration: Any = None) -> int:
        """Return Dask's adaptive target without the tasks that no worker can run."""
        scheduler, whole = self._scheduler, self._scheduler.unrunnable
        scheduler.unrunnable = self.reachable()
        try:
            return int(self._target(target_duration=target_duration))
        finally:
            scheduler.unrunnable = whole

    def reachable(self) -> dict[Any, float]:
        """Return the waiting tasks that a new worker could run, with the times since which they wait."""
        self.poll()  # a task that was submitted since the last poll must not start a worker
        waiting = self._scheduler.unrunnable
        return {task: since for task, since in waiting.items() if task not in self._out_of_reach}

    async def _run(self) -> None:
        while True:
            self.poll()
            await asyncio.sleep(_POLL_INTERVAL)

    def poll(self) -> None:
        """Update which tasks cannot run, and since when there is no other work."""
        scheduler, known = self._scheduler, self._knows_offers()
        for name, supplied in scheduler.resources.items():
            self._offered[name] = max([self._offered.get(name, 0.0), *supplied.values()])
        now, offered = time.monotonic(), self._offered
        waiting = {t: self._restricted(t, now - since) for t, since in scheduler.unrunnable.items() if _is_bound(t)}
        self._out_of_reach = frozenset(t for t, r in waiting.items() if out_of_reach(r, offered, known=known))
        self._hopeless = {t: r for t, r in waiting.items() if hopeless(r, offered, known=known)}
        self._suspects = [r for t, r in waiting.items() if t not in self._hopeless and suspect(r, offered)]
        work = len(self._hopeless) < len(scheduler.unrunnable) or scheduler.queued or scheduler._active_graph_updates
        busy = work or any(worker.processing for worker in scheduler.workers.values())
        if busy or not self._hopeless or scheduler.transition_counter != self._transitions:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.time()
        self._transitions = scheduler.transition_counter

    def _knows_offers(self) -> bool:
        """Return whether the resources of a new worker are known.

        Only preloads and users' plugins can add to the configured resources; the first worker with them shows what
        they add.
        """
        registered = {*self._scheduler.worker_plugins, *self._scheduler.nanny_plugins}
        plugins = frozenset(name for name in registered if not name.startswith(_DASKS_OWN))
        if self._scheduler.workers:
            self._extended_by = plugins
        return self._extended_by is not None and plugins <= self._extended_by

    def _restricted(self, task: Any, waited: float) -> Restricted:
        scheduler = self._scheduler
        workers, hosts = task.worker_restrictions or set(), task.host_restrictions or set()
        there = any(w in scheduler.workers for w in workers) or any(
            scheduler.coerce_hostname(host) in scheduler.host_info for host in hosts
        )
        places = tuple(sorted({*map(str, workers), *map(str, hosts)}))
        return Restricted(str(task.key), waited, dict(task.resource_restrictions or {}), places, there)


def _is_bound(task: Any) -> bool:
    return bool(task.resource_restrictions or task.worker_restrictions or task.host_restrictions)
