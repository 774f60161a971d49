"""The scheduler guards its own pool: it renews the lease, and ends the pool that nobody needs any more.

Loaded by ``dask scheduler --preload``. It may do two things in the account: put off the scheduled
action of its pool's groups, and set these groups to zero. A process of its own does that (`aws_calls`), and ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import click

from dask_starburst.errors import StarburstError
from dask_starburst.plan.scheduler.shutdown_rules import SHUTDOWN_PREFIX, Lifetimes, why_end
from dask_starburst.runtime.plugin import LoopingPlugin
from dask_starburst.runtime.scheduler import aws_process
from dask_starburst.runtime.scheduler.busy_time import BusyTime
from dask_starburst.runtime.scheduler.unrunnable import Unrunnable

# Below "distributed", whose handler Dask has set up: so it is in the scheduler's log.
logger = logging.getLogger("distributed.starburst")

#: Seconds between two looks at the scheduler, which cost nothing.
_POLL_INTERVAL = 1.0
#: Seconds before a call that AWS refused is made again.
_RETRY = 10.0
#: Renewed three times in its length, so that two failures in a row do no harm.
_RENEWALS = 3
#: Clients that tasks open on workers (`get_client`) are called so. They outlive whoever sent the task.
_WORKER_CLIENT = "Client-worker-"


class LeaseKeeper(LoopingPlugin):
    """Renews the lease of a pool as long as its scheduler is needed; then ends it.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The one that runs in this process.
    region : str
        Where the pool is.
    groups : tuple of str
        The Auto Scaling groups of the pool, the scheduler's own last: it takes this process with it.
    lifetimes : Lifetimes
        How long to go on.
    busy_time : BusyTime
        What was spent.
    unrunnable : Unrunnable, optional
        Which tasks are no work.
    """

    name = "starburst-lease-keeper"

    def __init__(
        self,
        scheduler: Any,
        region: str,
        groups: tuple[str, ...],
        lifetimes: Lifetimes,
        busy_time: BusyTime,
        unrunnable: Unrunnable | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._region = region
        self._groups = groups
        self._lifetimes = lifetimes
        self._busy_time = busy_time
        self._unrunnable = unrunnable or Unrunnable(scheduler)
        self._last_attended = time.monotonic()
        self._reason: str | None = None
        self._renewed = float("-inf")
        self._until = 0.0
        self._not_before = 0.0
        scheduler.handlers["starburst_lease"] = self.starburst_lease

    async def starburst_lease(self) -> float:
        """Return until when the pool may have capacity, as far as it was renewed here (seconds, AWS's clock)."""
        return self._until if self._reason is None else 0.0

    async def _run(self) -> None:
        while self._reason is None or self._groups:
            try:
                await self._poll()
            except StarburstError as error:
                logger.warning("the guardian tries again in %g s: %s", _RETRY, error)
                self._not_before = time.monotonic() + _RETRY
            except Exception:  # the loop's edge: the scheduler must not die of its guardian
                logger.exception("the guardian stumbled and goes on")
            await asyncio.sleep(_POLL_INTERVAL)

    async def _poll(self) -> None:
        if self._reason is None:
            self._reason = why_end(self._lifetimes, self._idle(), self._unattended(), self._busy_time.spent)
            if self._reason is not None:
                self._not_before = 0.0
                # Before the first call, so that the line is out when the instance goes.
                logger.warning("%s%s", SHUTDOWN_PREFIX, self._reason)
        if time.monotonic() < self._not_before:
            return
        # Once it has begun to end, the lease is not renewed any more: should AWS refuse what
        # follows, the lease still does it.
        await (self._renew() if self._reason is None else self._zero())

    async def _renew(self) -> None:
        length = self._lifetimes.lease
        # By the clock that does not jump; it also says no less than the lease has really left when this takes long.
        now = time.monotonic()
        if now - self._renewed < length / _RENEWALS:
            return
        await self._call("renew", "--lease", str(length))
        self._renewed = now
        logger.info("lease of %s renewed for %g s", ", ".join(self._groups), length)

    async def _zero(self) -> None:
        await self._call("zero")

    async def _call(self, *arguments: str) -> None:
        """Have AWS called for all groups that are left."""
        groups = [word for group in self._groups for word in ("--group", group)]
        await aws_process.call(self._handle, "--region", self._region, *arguments, *groups)

    def _handle(self, said: dict[str, Any]) -> None:
        match said:
            case {"until": until}:
                self._until = until
            case {"zero": group}:
                logger.warning("set %s to zero", group)
                self._groups = tuple(name for name in self._groups if name != group)

    def _idle(self) -> float:
        """Return for how many seconds there has been no work, as Dask counts it but for what no worker can run."""
        return self._unrunnable.idle()

    def _unattended(self) -> float:
        """Return for how many seconds nobody has been there and no task has run.

        Work that was sent off to go on alone (`fire_and_forget`) may finish. What waits for workers
        does not count: without a StarburstCluster nobody brings any.
        """
        if self._attended() or any(worker.processing for worker in self._scheduler.workers.values()):
            self._last_attended = time.monotonic()
        return time.monotonic() - self._last_attended

    def _attended(self) -> bool:
        """Whether somebody is there: a Client of a person, or the StarburstCluster itself.

        A StarburstCluster is no Client, but its process is alive and may open one at any time; so the
        connection by which it watches the workers counts. A notebook that stays open without work is
        ended by the idle timeout. Dashboards, and what tasks open on workers, do not count.
        """
        if any(not str(client).startswith(_WORKER_CLIENT) for client in self._scheduler.client_comms):
            return True
        watcher = self._scheduler.plugins.get("worker-status")
        return watcher is not None and not watcher.bcomm.closed()


@click.command()
@click.option("--region", required=True)
@click.option("--group", "groups", multiple=True, required=True)
@click.option("--lease", type=float, required=True)
@click.option("--end-when-idle", type=float, default=None)
@click.option("--end-when-alone", type=float, default=None)
@click.option("--end-at-cost", type=float, default=None)
@click.option("--hourly-cost", type=float, default=0.0)
def dask_setup(
    scheduler: Any,
    region: str,
    groups: tuple[str, ...],
    lease: float,
    end_when_idle: float | None,
    end_when_alone: float | None,
    end_at_cost: float | None,
    hourly_cost: float,
) -> None:
    """Guard the pool of this scheduler; called by Dask when the scheduler has started."""
    lifetimes = Lifetimes(lease, end_when_idle, end_when_alone, end_at_cost, hourly_cost)
    busy_time = BusyTime(scheduler, hourly_cost)
    unrunnable = Unrunnable(scheduler)
    keeper = LeaseKeeper(scheduler, region, groups, lifetimes, busy_time, unrunnable)
    for plugin in (busy_time, unrunnable, keeper):
        scheduler.add_plugin(plugin)
        plugin.begin()
