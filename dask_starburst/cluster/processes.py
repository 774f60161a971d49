"""SpecCluster's processes: they only request a worker or the scheduler from the controller."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distributed.comm import connect
from distributed.deploy.spec import ProcessInterface

from dask_starburst.errors import SchedulerFailed
from dask_starburst.plan.groups import HEAD
from dask_starburst.plan.loop.state import SCHEDULER, Name, WorkerState

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Controller

#: Seconds for one attempt to connect to a scheduler that may not listen yet.
_CONNECT = 3.0
_PAUSE = 0.1


class WorkerTask(ProcessInterface):
    """A requested worker.

    SpecCluster holds a lock while workers start, fails the batch if one fails, and never replaces a lost worker. So
    starting only requests the worker, and the controller does the rest.
    """

    def __init__(self, scheduler: str, *, name: Name, controller: Controller, group: str, **_: Any) -> None:
        super().__init__(scheduler, name)
        self.name = name
        self._controller = controller
        self._group = group

    async def start(self) -> None:
        """Request the worker."""
        self._controller.roster.request(self.name, self._group)
        await super().start()

    async def close(self) -> None:
        """Cancel the request; the controller retires the worker."""
        self._controller.roster.cancel(self.name)
        await super().close()


class SchedulerTask(ProcessInterface):
    """The scheduler; starting waits until it accepts connections."""

    def __init__(self, *, controller: Controller, connection_args: dict[str, Any], timeout: float) -> None:
        super().__init__()
        self._controller = controller
        self._connection_args = connection_args
        self._timeout = timeout

    async def start(self) -> None:
        """Request the scheduler and connect to it.

        Raises
        ------
        StarburstError
            The scheduler failed to start, or cannot be reached.
        """
        controller = self._controller
        controller.roster.request(SCHEDULER, HEAD)
        await controller.until(
            lambda: bool(controller.roster.workers[SCHEDULER].task and controller.capacity.reachable)
        )
        await self._connect()
        self.address = controller.capacity.scheduler_address
        self.external_address = controller.capacity.contact_address
        await super().start()

    async def _connect(self) -> None:
        """Retry until the scheduler accepts a connection; raise if the controller fails."""
        from dask_starburst.fleet.tls import refusal  # imports cryptography, which only a running cluster needs

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            address = self._controller.capacity.contact_address
            if self._controller.error is not None:
                raise self._controller.error
            try:
                comm = await connect(address, timeout=_CONNECT, **self._connection_args)
                await comm.close()
                return
            except OSError as error:
                # Before the container runs, the scheduler of an earlier cluster may answer at this address.
                if self._runs() and (refused := refusal(error)):
                    raise SchedulerFailed(
                        f"the scheduler at {address} and this computer do not accept each other's TLS certificates:"
                        f" {refused}. With security=…, its certificates have to be of one authority, valid now, and"
                        " for TLS servers and clients. Without it, a proxy may be answering instead of the scheduler."
                    ) from error
                if loop.time() > deadline:
                    raise SchedulerFailed(
                        f"the scheduler at {address} could not be reached within {self._timeout:g} s ({error}). Is a"
                        " firewall or a VPN in between? Only your detected address is admitted; set the right one with"
                        ' network={"caller": …}.'
                    ) from error
            await asyncio.sleep(_PAUSE)

    def _runs(self) -> bool:
        worker = self._controller.roster.scheduler
        return worker is not None and worker.state in (WorkerState.STARTED, WorkerState.READY)

    async def close(self) -> None:
        """Do nothing, because the pool is released as a whole."""
        await super().close()
