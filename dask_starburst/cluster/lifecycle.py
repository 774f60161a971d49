"""A SpecCluster whose processes are requests to the controller: start, close, and wait for workers."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from distributed.comm import CommClosedError
from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.versions import get_versions

from dask_starburst import cancellation
from dask_starburst.cluster.groups import GroupedCluster, is_active
from dask_starburst.errors import StarburstError, VersionMismatch
from dask_starburst.events.cluster import AdaptiveStopped, ClusterClosed, WaitExceedsMaximum
from dask_starburst.events.stream import EventLog
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.settings import Settings, check_names

if TYPE_CHECKING:
    from dask_starburst.cluster.cloud import Cloud
    from dask_starburst.cost.bill import Cost
    from dask_starburst.cost.ledger import Ledger
    from dask_starburst.cost.updater import LedgerUpdater
    from dask_starburst.fleet.blueprint import Blueprint
    from dask_starburst.fleet.controller.loop import Controller
    from dask_starburst.fleet.session import Session
    from dask_starburst.hooks import Hooks, Launch

# Modules that only a running cluster needs are imported where they are used: boto3 and the modules that call AWS take a
# third as long to import as distributed, and many programs import StarburstCluster without starting a cluster.

logger = logging.getLogger(__name__)

#: Seconds that the scheduler has to close its workers and itself before their instances are terminated.
_TERMINATE_TIMEOUT = 3.0
#: The most seconds that Dask's part of closing may take; nothing is billed any more by then.
_DASK_CLOSE_TIMEOUT = 10.0
T = TypeVar("T")


class CloudCluster(GroupedCluster):
    """The part of :class:`.StarburstCluster` that Dask calls, but not the user."""

    settings: Settings
    events: EventLog
    _blueprint: Blueprint
    _hooks: Hooks
    _cloud: Cloud | None = None
    _session: Session | None = None
    _ledger: Ledger | None = None
    _ledger_updater: LedgerUpdater | None = None
    #: The number of workers that each call of `wait_for_workers` waits for.
    _awaited: list[int]

    # -- start and close ------------------------------------------------------------------------

    async def _start_once(self) -> None:
        self._lock = asyncio.Lock()  # SpecCluster's _close acquires it even if its _start was never reached
        controller = await self._launch()
        for spec in self._specs.values():
            spec["options"]["controller"] = controller
        await SpecCluster._start(self)
        await self._check_versions()
        await self._hooks.ready(self)
        for name, group in self.settings.groups.items():
            if group.n_workers is None and name not in self._sized:
                self.adapt(group=name)

    async def _launch(self) -> Controller:
        from dask_starburst.cluster.cloud import open_cloud
        from dask_starburst.hooks import Launch

        self._cloud = await open_cloud(self.settings)
        self.events.now = self._cloud.aws.now
        launch = Launch(self._cloud.settings, self._cloud.aws, self._cloud.simulated, self.events.emit)
        try:
            await self._hooks.before_launch(launch)
            return await self._launch_as(launch)
        finally:
            if launch.image is not None:
                launch.image.cancel()
                await asyncio.gather(launch.image, return_exceptions=True)

    async def _launch_as(self, launch: Launch) -> Controller:
        from dask_starburst.cluster.scheduler_client import DaskSchedulerClient
        from dask_starburst.fleet.session import Session

        assert self._cloud is not None
        self.settings = settings = launch.settings
        check_names(settings)  # a hook may have changed them
        ledger = await self._open_books(self._cloud)
        blueprint = replace(self._blueprint, settings=settings)
        self._session = Session(self._cloud.aws, blueprint, self.events.emit, ledger)
        workers = {name: self.group_of(name) for name in self.worker_spec}
        controller = await self._session.start(DaskSchedulerClient(self), workers, launch.image)
        self.settings = replace(settings, image=self._session.image)
        controller.on_fatal = self._on_fatal
        self.scheduler_spec["options"] = {
            "controller": controller,
            "connection_args": self.security.get_connection_args("client"),
            "timeout": settings.timeouts.connect,
        }
        return controller

    async def _open_books(self, cloud: Cloud) -> Ledger:
        """Start the cost ledger, and raise an error before the launch if a cost cap would be exceeded."""
        from dask_starburst.cost.ledger import Ledger
        from dask_starburst.cost.price_book import PriceBook
        from dask_starburst.cost.updater import LedgerUpdater
        from dask_starburst.fleet.blueprint import caps_of, within_caps

        settings, aws, blueprint = self.settings, cloud.aws, self._blueprint
        book = PriceBook(aws.region, now=aws.now)
        caps = caps_of(settings)
        types = tuple(dict.fromkeys(blueprint.types))
        self._ledger = Ledger(book, settings.storage.volume_size, cloud.simulated, caps, types)
        self.events.listen(self._ledger.note)
        self._ledger_updater = LedgerUpdater(aws, book, self._ledger)
        await self._ledger_updater.begin()
        if caps.binding:
            self._ledger.require_prices()
            self._blueprint = within_caps(self._blueprint, caps, self._ledger.rates())
        return self._ledger

    async def _check_versions(self) -> None:
        """Refuse a scheduler with incompatible versions; its workers run the same image."""
        from dask_starburst.plan.images import versions

        there = (await self.scheduler_comm.versions())["packages"]
        found = versions.mismatches(get_versions()["packages"], there)
        if found:
            built = self.settings.environment is not None
            raise VersionMismatch(versions.explain(found, f"the image {self.settings.image}", built=built))

    async def _close_once(self) -> None:
        """Release the pool before Dask's part, which marks the cluster closed at its end."""
        for adaptive in self._adaptives.values():
            adaptive.stop()
        # Only a running cluster is kept warm; an embedded AWS that was started for this cluster stops with it.
        warm = self.status is Status.running and self._cloud is not None and not self._cloud.owned
        ready = self.status is Status.running
        self.status = Status.closing
        if self._session is not None and self._session.lease is not None:
            self._session.lease.closing = True
        if ready:
            await self._attempt("the hooks", self._hooks.close(self))
        if self._controller is not None:
            await self._attempt("the final report of the scheduler", self._controller.budget.final_report())
            await self._attempt("the loop", self._controller.stop())  # it would treat the shutdown as losses
        if self._session is not None:
            await self._attempt("releasing the pool", self._end(self._session, warm))
        if self._ledger_updater is not None:
            await self._attempt("the prices", self._ledger_updater.stop())
        if self._cloud is not None:
            await self._attempt("closing the cost ledger", self._emit_closed())
            await self._attempt("the connection to AWS", self._cloud.close())
        await self._attempt("Dask's own part", self._close_dask())
        self.status = Status.closed
        self._open.discard(self)

    async def _attempt(self, what: str, work: Awaitable[T]) -> T | None:
        """Run one step of closing; log its failure, so that the next step follows."""
        try:
            return await work
        except Exception:
            logger.exception("closing cluster %s: %s failed; continuing", self.name, what)
            return None

    async def _close_dask(self) -> None:
        self.shutdown_scheduler = False  # it is gone: Dask must not wait for its response
        if self.scheduler is not None:
            await self.scheduler.close()
        self.status = Status.failed  # SpecCluster would wait for ever if the status were `closing`
        async with asyncio.timeout(_DASK_CLOSE_TIMEOUT):
            await SpecCluster._close(self)

    async def _release(self) -> None:
        if self._session is not None:
            await self._session.end(warm=False)
        if self._cloud is not None:
            await self._attempt("closing the cost ledger", self._emit_closed())
            await self._attempt("the connection to AWS", self._cloud.close())

    @property
    def _close_timeout(self) -> float:
        return self.settings.timeouts.close + 2 * _TERMINATE_TIMEOUT

    def _fatal(self) -> StarburstError | None:
        return self._controller.error if self._controller is not None else None

    async def _emit_closed(self) -> None:
        if self._ledger_updater is not None:
            await self._ledger_updater.close()
        if self._session is not None:
            self._keep_record(self._session)
        cost = self.cost
        self.events.emit(ClusterClosed(cluster=self.name, usd=cost.usd, cost=str(cost)))

    def _keep_record(self, session: Session) -> None:
        from dask_starburst.cost.record import record_of, save_record

        pool, now, cost = session.pool, session.aws.now(), self.cost
        if pool is not None and cost.usd:
            opened = now if self.events.began is None else self.events.began
            startups = session.controller.startups.snapshot(now).measured if session.controller is not None else ()
            save_record(record_of(self.name, pool.name, opened, now, cost, startups))

    async def _end(self, session: Session, warm: bool) -> None:
        """Terminate the scheduler, within a timeout, and release the pool."""
        terminating = asyncio.ensure_future(self._terminate_scheduler())
        try:
            await asyncio.wait([terminating], timeout=_TERMINATE_TIMEOUT)
            left = await session.end(warm=warm, ended=lambda: terminating.done() and terminating.result())
        finally:
            await cancellation.end([terminating])
        if left:
            logger.warning("instances are still terminating: %s", ", ".join(left))

    async def _terminate_scheduler(self) -> bool:
        """Ask the scheduler to close its workers and itself, in one call; return whether it has.

        The scheduler responds, or drops the connection, once its lease keeper has ended, which could change the pool.
        If the cluster has failed, all clients are told why first.
        """
        try:
            if self.scheduler_comm is not None:
                if (error := self._fatal()) is not None:
                    await self.scheduler_comm.starburst_end(message=str(error))
                await self.scheduler_comm.terminate()
        except CommClosedError:
            return True
        except Exception as error:  # noqa: BLE001 -- it is gone or does not answer; its instance is terminated anyway
            logger.debug("the scheduler could not be terminated: %r", error)
            return False
        return self.scheduler_comm is not None

    def _on_fatal(self, error: StarburstError) -> None:
        if self.status is Status.running:
            from dask_starburst.fleet.controller import futures

            futures.cancel(self, str(error))
            self._begin_to_close()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        # Not SpecCluster's own method: it closes a lost worker after a while, which cancels the request. Here the
        # controller replaces it. The comment there invites clusters to override this method.
        Cluster._update_worker_status(self, op, msg)
        if self._controller is not None:
            self._controller.wake()

    async def _wait_for_workers(self, n_workers: int = 0, timeout: Any = None) -> None:
        """Wait as Dask does, but raise if the workers cannot start any more; adaptive scaling requests the others."""
        self._awaited.append(n_workers)
        self._warn_of_waiting(n_workers)
        waiting = asyncio.ensure_future(super()._wait_for_workers(n_workers, timeout=timeout))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=0.2)
                if (blocked_error := self._wait_error(n_workers)) is not None:
                    raise blocked_error
            await waiting
        finally:
            waiting.cancel()
            self._awaited.remove(n_workers)

    @property
    def awaited(self) -> int:
        """The number of workers that callers wait for now: a minimum for adaptive scaling, within its maximum."""
        return max(self._awaited, default=0)

    def _warn_of_waiting(self, n_workers: int) -> None:
        most = self._most_workers()
        if n_workers > most:
            self.events.emit(WaitExceedsMaximum(cluster=self.name, n=n_workers, maximum=most))

    def _end_adapting(self, group: str, n: int) -> None:
        """Stop the adaptive scaling of a group, because the user has requested `n` workers."""
        self._sized.add(group)
        adaptive = self._adaptives.get(group)
        if adaptive is None or not is_active(adaptive):
            return
        least, most, other = adaptive.minimum, adaptive.maximum, "" if group == DEFAULT else group
        adaptive.stop(reason=f"scale({n})")
        if self._cloud is not None:
            self.events.emit(AdaptiveStopped(cluster=self.name, n=n, minimum=least, maximum=most, group=other))

    def _wait_error(self, n_workers: int) -> StarburstError | None:
        if self._controller is None:
            return None
        if self._controller.error is not None:
            return self._controller.error
        if (
            n_workers > len(self.scheduler_info["workers"])
            and (waits := self._controller.budget.blocked_error()) is not None
        ):
            return waits
        failed = self._controller.roster.failed()
        errors = [error for worker in failed if (error := self._controller.explained(worker)) is not None]
        return errors[0] if errors and len(self.worker_spec) - len(failed) < n_workers else None

    @property
    def _controller(self) -> Controller | None:
        session = getattr(self, "_session", None)
        return None if session is None else session.controller

    @property
    def cost(self) -> Cost:
        """The cost of the cluster so far, as far as the prices are known."""
        from dask_starburst.cost.bill import Cost

        if self._ledger is None or self._cloud is None:
            return Cost()
        return self._ledger.total(self._cloud.aws.now())
