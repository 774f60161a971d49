"""Renew the lease of the scheduler's own pool, and shut the pool down when it is not needed.

Loaded by ``dask scheduler --preload``. Its role allows two actions: postpone the scheduled action of the pool's groups,
and set these groups to zero. A short-lived subprocess (`aws_calls`) makes the calls.
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
from dask_starburst.runtime.scheduler.ending import Ending
from dask_starburst.runtime.scheduler.group_demand import GroupDemand
from dask_starburst.runtime.scheduler.unrunnable import Unrunnable

# A child of "distributed", whose handler writes to the scheduler's log.
logger = logging.getLogger("distributed.starburst")

#: Seconds between two checks of the scheduler's state, which are cheap.
_POLL_INTERVAL = 1.0
#: Seconds before a failed AWS call is retried.
_RETRY = 10.0
#: Renewals for each length of the lease; two failures in a row are harmless.
_RENEWALS = 3
#: Seconds before the first renewal. The client has just set the lease, and a process that imports boto3 would slow down
#: the start of the scheduler. A role that may not renew is still reported within a minute.
_FIRST_RENEWAL = 10.0
#: Prefix of the ids of clients that tasks open on workers (`get_client`). They outlive the client of the task.
_WORKER_CLIENT = "Client-worker-"


class LeaseKeeper(LoopingPlugin):
    """Renews the lease of a pool while its scheduler is needed, then shuts the pool down.

    Parameters
    ----------
    scheduler : distributed.Scheduler
        The one that runs in this process.
    region : str
        The region of the pool.
    groups : tuple of str
        The Auto Scaling groups of the pool. The scheduler's own is last: setting it to zero ends this process.
    lifetimes : Lifetimes
        When to shut down.
    busy_time : BusyTime
        The source of the amount spent.
    unrunnable : Unrunnable, optional
        The source of the idle time, which excludes tasks that cannot run.
    ending : Ending, optional
        Tells the clients why their cluster ends.
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
        ending: Ending | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._region = region
        self._groups = groups
        self._lifetimes = lifetimes
        self._busy_time = busy_time
        self._unrunnable = unrunnable or Unrunnable(scheduler)
        self._ending = ending or Ending(scheduler)
        self._last_attended = time.monotonic()
        self._reason: str | None = None
        pause = lifetimes.lease / _RENEWALS
        self._renewed = time.monotonic() - pause + min(_FIRST_RENEWAL, pause / 2)
        self._until = 0.0
        self._short_until = 0.0
        self._not_before = 0.0
        scheduler.handlers["starburst_lease"] = self.starburst_lease

    async def starburst_lease(self) -> float:
        """Return the end of the lease that was renewed last (seconds since the epoch, AWS's clock).

        0 if it was not renewed yet, and -1 during a shutdown, when it must not be renewed.
        """
        return self._until if self._reason is None else -1.0

    async def _run(self) -> None:
        while self._reason is None or self._groups:
            try:
                await self._poll()
            except StarburstError as error:
                logger.warning("AWS call failed: %s; retrying in %g s", error, _RETRY)
                self._not_before = time.monotonic() + _RETRY
            except Exception:  # the loop's edge: the scheduler must survive
                logger.exception("the lease keeper failed; retrying")
            await asyncio.sleep(_POLL_INTERVAL)

    async def _poll(self) -> None:
        if self._reason is None:
            self._reason = why_end(self._lifetimes, self._idle(), self._unattended(), self._busy_time.spent)
            if self._reason is not None:
                self._not_before = 0.0
                # Before the first call, so that the line is in the log when the instance terminates.
                logger.warning("%s%s", SHUTDOWN_PREFIX, self._reason)
                await self._ending.starburst_end(f"the scheduler has ended its cluster: {self._reason}.")
        if time.monotonic() < self._not_before:
            return
        # Do not renew the lease during a shutdown: if AWS refuses these calls, the lease empties the pool.
        await (self._renew() if self._reason is None else self._zero())

    async def _renew(self) -> None:
        length = self._lifetimes.lease
        # Monotonic, and taken before the call: a slow call makes the next renewal earlier, never later.
        now = time.monotonic()
        if now - self._renewed < length / _RENEWALS:
            return
        await self._call("renew", "--lease", str(length))
        self._renewed = now
        logger.info("lease of %s renewed for %g s", ", ".join(self._groups), length)

    async def _zero(self) -> None:
        await self._call("zero", "--until", str(self._short_until))

    async def _call(self, *arguments: str) -> None:
        """Run `aws_calls` for the remaining groups."""
        groups = [word for group in self._groups for word in ("--group", group)]
        await aws_process.call(self._handle, "--region", self._region, *arguments, *groups)

    def _handle(self, said: dict[str, Any]) -> None:
        match said:
            case {"shortened": group, "until": until, "error": error}:
                if self._short_until != until:
                    logger.warning("could not set %s to zero: %s; AWS does so when its short lease ends", group, error)
                # Repeated until then: a client may renew the lease before it hears of the shutdown.
                self._short_until, self._not_before = until, time.monotonic() + _RETRY
            case {"until": until}:
                self._until = until
            case {"zero": group}:
                logger.warning("set %s to zero", group)
                self._groups = tuple(name for name in self._groups if name != group)

    def _idle(self) -> float:
        """Return the seconds without work, as Dask counts it but without tasks that no worker can run."""
        return self._unrunnable.idle()

    def _unattended(self) -> float:
        """Return the seconds without a client and without a running task.

        Work without a client (`fire_and_forget`) may finish. Tasks that wait for workers do not count: without a
        StarburstCluster no worker is started.
        """
        if self._attended() or any(worker.processing for worker in self._scheduler.workers.values()):
            self._last_attended = time.monotonic()
        return time.monotonic() - self._last_attended

    def _attended(self) -> bool:
        """Return whether a user's Client or the StarburstCluster is connected.

        The connection by which a StarburstCluster watches its workers counts: its process is alive and may open a
        Client at any time. An open notebook without work is ended by the idle timeout. Dashboards, and clients that
        tasks open on workers, do not count.
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
@click.option("--offer", "offers", multiple=True, type=(str, int))
def dask_setup(
    scheduler: Any,
    region: str,
    groups: tuple[str, ...],
    lease: float,
    end_when_idle: float | None,
    end_when_alone: float | None,
    end_at_cost: float | None,
    hourly_cost: float,
    offers: tuple[tuple[str, int], ...],
) -> None:
    """Keep the lease of this scheduler's pool; called by Dask when the scheduler has started."""
    lifetimes = Lifetimes(lease, end_when_idle, end_when_alone, end_at_cost, hourly_cost)
    busy_time = BusyTime(scheduler, hourly_cost)
    resources = dict(offers)
    unrunnable = Unrunnable(scheduler, resources)
    if resources:
        scheduler.add_plugin(GroupDemand(scheduler, resources, unrunnable))
    ending = Ending(scheduler)
    scheduler.add_plugin(ending)
    keeper = LeaseKeeper(scheduler, region, groups, lifetimes, busy_time, unrunnable, ending)
    for plugin in (busy_time, unrunnable, keeper):
        scheduler.add_plugin(plugin)
        plugin.begin()
