"""What SpecCluster holds: processes that only register a wish with the fleet."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from distributed.comm import connect
from distributed.deploy.spec import ProcessInterface

from dask_starburst.errors import SchedulerFailed
from dask_starburst.plan.loop.state import HEAD, SCHEDULER, Name, WorkerState

if TYPE_CHECKING:
    from dask_starburst.fleet.controller.loop import Fleet

#: Seconds for one attempt to connect to a scheduler that may not listen yet.
_CONNECT = 3.0
_PAUSE = 0.1


class WorkerTask(ProcessInterface):
    """A worker that somebody wishes for.

    SpecCluster holds a lock while workers start, fails the batch when one fails and never replaces
    a lost one. So starting only records the wish, and the fleet does the rest.
    """

    def __init__(self, scheduler: str, *, name: Name, fleet: Fleet, group: str, **_: Any) -> None:
        super().__init__(scheduler, name)
        self.name = name
        self._fleet = fleet
        self._group = group

    async def start(self) -> None:
        """Wish for it."""
        self._fleet.request(self.name, self._group)
        await super().start()

    async def close(self) -> None:
        """Cancel the wish; the fleet retires it."""
        self._fleet.cancel(self.name)
        await super().close()


class SchedulerTask(ProcessInterface):
    """The scheduler; starting waits until it answers."""

    def __init__(self, *, fleet: Fleet, connection_args: dict[str, Any], timeout: float) -> None:
        super().__init__()
        self._fleet = fleet
        self._connection_args = connection_args
        self._timeout = timeout

    async def start(self) -> None:
        """Wish for it and connect to it.

        Raises
        ------
        StarburstError
            It could not be started, or cannot be reached from here.
        """
        fleet = self._fleet
        fleet.request(SCHEDULER, HEAD)
        await fleet.until(lambda: bool(fleet.workers[SCHEDULER].task and fleet.launcher.public))
        await self._connect()
        self.address = fleet.launcher.scheduler_address
        self.external_address = fleet.launcher.contact_address
        await super().start()

    async def _connect(self) -> None:
        """Try until the scheduler answers; what hinders it to start ends this too."""
        from dask_starburst.fleet.tls import refusal  # with cryptography, which only a cluster that exists needs

        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        while True:
            address = self._fleet.launcher.contact_address
            if self._fleet.error is not None:
                raise self._fleet.error
            try:
                comm = await connect(address, timeout=_CONNECT, **self._connection_args)
                await comm.close()
                return
            except OSError as error:
                # Before the container runs, what answers there may be the scheduler of an earlier cluster.
                if self._runs() and (refused := refusal(error)):
                    raise SchedulerFailed(
                        f"the scheduler at {address} and this computer do not accept each other's TLS certificates:"
                        f" {refused}. With security=…, its certificates have to be of one authority, valid now, and"
                        " for TLS servers and clients; else something in between answers in the scheduler's place."
                    ) from error
                if loop.time() > deadline:
                    raise SchedulerFailed(
                        f"the scheduler at {address} cannot be reached from here within"
                        f" {self._timeout:g} s ({error}). Is a firewall or a VPN in between? Your"
                        ' address is admitted as network={"caller": …}; give the one you really'
                        " come from."
                    ) from error
            await asyncio.sleep(_PAUSE)

    def _runs(self) -> bool:
        worker = self._fleet.workers.get(SCHEDULER)
        return worker is not None and worker.state in (WorkerState.STARTED, WorkerState.READY)

    async def close(self) -> None:
        """Nothing: the pool is emptied as a whole."""
        await super().close()
