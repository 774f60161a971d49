"""The controller's client of the scheduler, through the cluster's connection."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from weakref import ref

from distributed.core import Status

from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.state import SCHEDULER, Name
from dask_starburst.plan.scheduler.notices import DRAINING, NOTICE_SECONDS

#: Seconds that the scheduler waits for a notice before it returns none.
_LONG_POLL = 20.0
#: Seconds that the scheduler has to return its lease.
_SOON = 3.0


class DaskSchedulerClient:
    """Calls the scheduler of one cluster, and SpecCluster for replacements."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = ref(cluster)

    def members(self) -> frozenset[Name]:
        """Return the names of the registered workers, and the scheduler's own."""
        cluster = self._cluster()
        if cluster is None or cluster.scheduler is None:
            return frozenset()
        if cluster.scheduler.status is not Status.running:
            return frozenset()
        workers = cluster.scheduler_info.get("workers", {}).values()
        return frozenset({SCHEDULER, *(w["name"] for w in workers)})

    async def retire(self, name: Name) -> None:
        """Retire a worker: move its data to other workers, and close it.

        If no other worker can take its data, as for the last worker, the scheduler keeps the worker. Then close it
        anyway, because its request was cancelled; Dask recomputes the data.
        """
        comm = self._comm()
        if comm is None:
            return
        # The stimulus distinguishes this call from the user's, after which the worker is not replaced.
        stimulus = f"starburst-retire-{name}"
        retired = await comm.retire_workers(names=[name], close_workers=True, remove=True, stimulus_id=stimulus)
        if not retired:
            await self._remove(name, close=True)

    async def forget(self, name: Name) -> None:
        """Remove a dead worker, so that another one may use its name."""
        await self._remove(name, close=False)

    async def _remove(self, name: Name, close: bool) -> None:
        cluster, comm = self._cluster(), self._comm()
        if cluster is None or comm is None:
            return
        for address, worker in dict(cluster.scheduler_info["workers"]).items():
            if worker["name"] == name:
                await comm.unregister(address=address, stimulus_id=f"starburst-{name}", expected=True, close=close)

    async def notices(self, after: int) -> list[Notice]:
        """Wait for notices of workers that have to leave; return none after a timeout."""
        comm = self._comm()
        if comm is None:
            await asyncio.sleep(1)
            return []
        found = await comm.starburst_next_notices(after=after, timeout=_LONG_POLL)
        return [Notice(n["number"], n["name"], n["kind"], n["seconds"], n.get("held", 0)) for n in found]

    async def counts(self) -> dict[str, float]:
        """Return the scheduler's counts of data moved, lost and recomputed."""
        comm = self._comm()
        return {} if comm is None else dict(await comm.starburst_spot_counts())

    async def unrunnable(self) -> dict[str, str]:
        """Return a message for each restriction that no worker meets, by restriction."""
        comm = self._comm()
        return {} if comm is None else dict(await comm.starburst_unrunnable())

    async def lease(self) -> float:
        """Return the time until which the scheduler has renewed the lease (seconds, AWS's clock).

        0 if it is unknown, and -1 while the scheduler shuts the pool down.
        """
        comm = self._comm()
        try:
            async with asyncio.timeout(_SOON):
                return 0.0 if comm is None else float(await comm.starburst_lease())
        except (OSError, TimeoutError):
            return 0.0

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Report the cost so far and the highest hourly cost; return each worker's busy seconds."""
        comm = self._comm()
        return {} if comm is None else dict(await comm.starburst_report_spending(spent=spent, rate=rate))

    async def exempt(self, names: Collection[Name]) -> None:
        """Exempt tasks from suspicion for the loss of these workers."""
        comm = self._comm()
        if comm is not None:
            await comm.starburst_clear_suspicion(names=list(names))

    async def announce_drain(self, name: Name) -> None:
        """Announce a worker whose instance is drained; the scheduler retires it as after a notice.

        Unlike `retire`, it waits for another worker that can take the results. A later notice of AWS finds the worker
        retiring already.
        """
        cluster, comm = self._cluster(), self._comm()
        if cluster is None or comm is None:
            return
        for address, worker in dict(cluster.scheduler_info["workers"]).items():
            if worker["name"] == name:
                await comm.starburst_notice(worker=address, kind="stop", seconds=NOTICE_SECONDS, action=DRAINING)

    async def replace(self, name: Name) -> Name:
        """Request another worker in place of this one; the number of requested workers stays the same."""
        cluster = self._live_cluster()
        new: Name = cluster.replace_worker(name)
        await cluster._correct_state()  # as `scale` does; no public method replaces a worker by name
        return new

    async def withdraw(self, name: Name) -> None:
        """Cancel the request for a worker."""
        cluster = self._live_cluster()
        cluster.worker_spec.pop(name, None)
        await cluster._correct_state()

    async def restore(self, new: Name, old: Name) -> None:
        """Request the old worker again in place of the new one."""
        cluster = self._live_cluster()
        cluster.swap_workers(new, old)
        await cluster._correct_state()

    def _live_cluster(self) -> Any:
        cluster = self._cluster()
        assert cluster is not None, "the controller stops before its cluster is deleted"
        return cluster

    def _comm(self) -> Any:
        cluster = self._cluster()
        return None if cluster is None else cluster.scheduler_comm
