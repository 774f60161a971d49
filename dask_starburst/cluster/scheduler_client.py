"""The scheduler as the fleet sees it, through the cluster's own connection."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from weakref import ref

from distributed.core import Status

from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.state import SCHEDULER, Name
from dask_starburst.plan.scheduler.notices import DRAINING, NOTICE_SECONDS

#: Seconds that the scheduler waits for a notice before it answers that there is none.
_LONG_POLL = 20.0
#: And this many has it to say what it knows.
_SOON = 3.0


class DaskSchedulerClient:
    """Reads and asks the scheduler of one cluster."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = ref(cluster)

    def members(self) -> frozenset[Name]:
        """Return the names of the workers that the scheduler knows, and the scheduler's own."""
        cluster = self._cluster()
        if cluster is None or cluster.scheduler is None:
            return frozenset()
        if cluster.scheduler.status is not Status.running:
            return frozenset()
        workers = cluster.scheduler_info.get("workers", {}).values()
        return frozenset({SCHEDULER, *(w["name"] for w in workers)})

    async def retire(self, name: Name) -> None:
        """Have the scheduler move what a worker holds to others, and close it.

        When nobody can take it over, as for the last worker, the scheduler keeps the worker as it
        is; then it is closed all the same, because it was asked to go, and Dask recomputes.
        """
        comm = self._comm()
        if comm is None:
            return
        # By its stimulus the scheduler tells this from a call of the user's, after which nothing is to replace it.
        stimulus = f"starburst-retire-{name}"
        retired = await comm.retire_workers(names=[name], close_workers=True, remove=True, stimulus_id=stimulus)
        if not retired:
            await self._remove(name, close=True)

    async def forget(self, name: Name) -> None:
        """Remove a worker that is dead, so that another may have its name."""
        await self._remove(name, close=False)

    async def _remove(self, name: Name, close: bool) -> None:
        cluster, comm = self._cluster(), self._comm()
        if cluster is None or comm is None:
            return
        for address, worker in dict(cluster.scheduler_info["workers"]).items():
            if worker["name"] == name:
                await comm.unregister(address=address, stimulus_id=f"starburst-{name}", expected=True, close=close)

    async def notices(self, after: int) -> list[Notice]:
        """Wait for notices of workers that have to go; none after a while without any."""
        comm = self._comm()
        if comm is None:
            await asyncio.sleep(1)
            return []
        found = await comm.starburst_next_notices(after=after, timeout=_LONG_POLL)
        return [Notice(n["number"], n["name"], n["kind"], n["seconds"]) for n in found]

    async def counts(self) -> dict[str, float]:
        """Return what the scheduler has counted of workers that went."""
        comm = self._comm()
        return {} if comm is None else dict(await comm.starburst_spot_counts())

    async def unrunnable(self) -> dict[str, str]:
        """Return what there is to say of the tasks that no worker can run, by what they were submitted with."""
        comm = self._comm()
        return {} if comm is None else dict(await comm.starburst_unrunnable())

    async def lease(self) -> float:
        """Return until when the scheduler has renewed the lease (seconds, AWS's clock); 0 if it does not say."""
        comm = self._comm()
        try:
            async with asyncio.timeout(_SOON):
                return 0.0 if comm is None else float(await comm.starburst_lease())
        except (OSError, TimeoutError):
            return 0.0

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Tell the scheduler what was spent and what an hour may cost; return each worker's busy seconds."""
        comm = self._comm()
        return {} if comm is None else dict(await comm.starburst_report_spending(spent=spent, rate=rate))

    async def clear_suspicion(self, names: Collection[Name]) -> None:
        """Have the scheduler not blame tasks for the loss of these workers."""
        comm = self._comm()
        if comm is not None:
            await comm.starburst_clear_suspicion(names=list(names))

    async def announce(self, name: Name) -> None:
        """Have the scheduler retire a worker that somebody drains, as it does after a notice.

        It waits for somebody who can take the results, which `retire` does not; and a notice of AWS that comes
        later finds the worker on its way.
        """
        cluster, comm = self._cluster(), self._comm()
        if cluster is None or comm is None:
            return
        for address, worker in dict(cluster.scheduler_info["workers"]).items():
            if worker["name"] == name:
                await comm.starburst_notice(worker=address, kind="stop", seconds=NOTICE_SECONDS, action=DRAINING)

    async def replace(self, name: Name) -> Name:
        """Wish for another worker in the place of this one; as many as before are wished for."""
        cluster = self._there()
        new: Name = next(iter(cluster.new_worker_spec()))
        self._swap(cluster, out=name, into=new)
        await cluster._correct_state()  # what `scale` calls; nothing public changes who is wished for by name
        return new

    async def withdraw(self, name: Name) -> None:
        """Cancel the request for a worker."""
        cluster = self._there()
        cluster.worker_spec.pop(name, None)
        await cluster._correct_state()

    async def take_back(self, new: Name, old: Name) -> None:
        """Wish for the old worker again in the place of the new one."""
        cluster = self._there()
        self._swap(cluster, out=new, into=old)
        await cluster._correct_state()

    def _there(self) -> Any:
        cluster = self._cluster()
        assert cluster is not None, "the fleet stops before its cluster goes"
        return cluster

    def _swap(self, cluster: Any, out: Name, into: Name) -> None:
        if cluster.worker_spec.pop(out, None) is not None:  # else somebody wants fewer workers meanwhile
            cluster.worker_spec[into] = cluster.new_spec

    def _comm(self) -> Any:
        cluster = self._cluster()
        return None if cluster is None else cluster.scheduler_comm
