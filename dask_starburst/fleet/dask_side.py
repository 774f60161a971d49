"""The scheduler as the fleet sees it, through the cluster's own connection."""

from __future__ import annotations

from typing import Any
from weakref import ref

from distributed.core import Status

from dask_starburst.plan.state import SCHEDULER


class ClusterSide:
    """Reads and asks the scheduler of one cluster."""

    def __init__(self, cluster: Any) -> None:
        self._cluster = ref(cluster)

    def members(self) -> frozenset[str]:
        """Return the names of the workers that the scheduler knows, and the scheduler's own."""
        cluster = self._cluster()
        if cluster is None or cluster.scheduler is None:
            return frozenset()
        if cluster.scheduler.status is not Status.running:
            return frozenset()
        workers = cluster.scheduler_info.get("workers", {}).values()
        return frozenset({SCHEDULER, *(str(w["name"]) for w in workers)})

    async def retire(self, name: str) -> None:
        """Have the scheduler move what a worker holds to others, and close it.

        When nobody can take it over, as for the last worker, the scheduler keeps the worker as it
        is; then it is closed all the same, because it was asked to go, and Dask recomputes.
        """
        comm = self._comm()
        if comm is None:
            return
        retired = await comm.retire_workers(names=[name], close_workers=True, remove=True)
        if not retired:
            await self._remove(name, close=True)

    async def forget(self, name: str) -> None:
        """Remove a worker that is dead, so that another may have its name."""
        await self._remove(name, close=False)

    async def _remove(self, name: str, close: bool) -> None:
        cluster, comm = self._cluster(), self._comm()
        if cluster is None or comm is None:
            return
        for address, worker in dict(cluster.scheduler_info["workers"]).items():
            if str(worker["name"]) == name:
                await comm.unregister(address=address, stimulus_id=f"starburst-{name}", expected=True, close=close)

    def _comm(self) -> Any:
        cluster = self._cluster()
        return None if cluster is None else cluster.scheduler_comm
