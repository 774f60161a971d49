"""A SpecCluster whose processes are wishes: how it starts, how it closes, and what it waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from distributed.comm import CommClosedError
from distributed.core import Status
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.versions import get_versions

from dask_starburst import cancellation
from dask_starburst.cluster.ownership import OwnedCluster
from dask_starburst.errors import StarburstError, VersionMismatch
from dask_starburst.events import Event, EventLog
from dask_starburst.plan.loop.scaling import first_to_go
from dask_starburst.settings import Settings, check_names

if TYPE_CHECKING:
    from dask_starburst.cluster.cloud import Cloud
    from dask_starburst.cost.bill import Cost
    from dask_starburst.cost.ledger import Ledger
    from dask_starburst.cost.updater import LedgerUpdater
    from dask_starburst.fleet.blueprint import Blueprint
    from dask_starburst.fleet.controller.loop import Fleet
    from dask_starburst.fleet.session import Session
    from dask_starburst.hooks import Hooks, Launch

# What only a cluster that runs needs is imported where it is used: boto3 and all that calls AWS take a third as long
# to import as distributed, and many a program imports StarburstCluster without starting one.

logger = logging.getLogger(__name__)

#: The scheduler has this many seconds to close its workers and itself before their instances are terminated.
_GOOD_BYE = 3.0
#: Dask's own part of closing takes no longer than this: nothing of it costs anything any more.
_DASKS_OWN = 10.0
T = TypeVar("T")


class CloudCluster(OwnedCluster):
    """Everything of :class:`.StarburstCluster` that Dask asks of it but no user calls."""

    settings: Settings
    events: EventLog
    _blueprint: Blueprint
    _hooks: Hooks
    _cloud: Cloud | None = None
    _session: Session | None = None
    _ledger: Ledger | None = None
    _ledger_updater: LedgerUpdater | None = None
    #: Whether `scale` has said how many workers there are to be, and `adapt` nothing since.
    _sized: bool = False
    #: How many workers each call of `wait_for_workers` waits for.
    _awaited: list[int]

    # -- start and close ------------------------------------------------------------------------

    async def _start_once(self) -> None:
        self._lock = asyncio.Lock()  # SpecCluster's _close takes it even where its _start was never reached
        self.new_spec["options"]["fleet"] = await self._launch()
        await SpecCluster._start(self)
        await self._check_versions()
        await self._hooks.ready(self, self._hook_failed)
        if self.settings.n_workers is None and not self._sized:
            self.adapt()

    async def _launch(self) -> Fleet:
        from dask_starburst.cluster.cloud import open_cloud
        from dask_starburst.hooks import Launch

        self._cloud = await open_cloud(self.settings)
        launch = Launch(self._cloud.settings, self._cloud.aws, self._cloud.simulated, self._tell)
        try:
            await self._hooks.before_launch(launch)
            return await self._launch_as(launch)
        finally:
            if launch.image is not None:
                launch.image.cancel()
                await asyncio.gather(launch.image, return_exceptions=True)

    async def _launch_as(self, launch: Launch) -> Fleet:
        from dask_starburst.cluster.scheduler_client import DaskSchedulerClient
        from dask_starburst.fleet.session import Session

        assert self._cloud is not None
        self.settings = settings = launch.settings
        check_names(settings)  # a hook may have changed them
        ledger = await self._open_books(self._cloud)
        self._session = Session(self._cloud.aws, replace(self._blueprint, settings=settings), self.events, ledger)
        fleet = await self._session.start(DaskSchedulerClient(self), self.worker_spec, launch.image)
        self.settings = replace(settings, image=self._session.image)
        fleet.on_fatal = self._on_fatal
        self.new_spec["options"]["group"] = self._session.worker_group
        self.scheduler_spec["options"] = {
            "fleet": fleet,
            "connection_args": self.security.get_connection_args("client"),
            "timeout": settings.timeouts.connect,
        }
        return fleet

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
        """Refuse to go on with a scheduler whose messages we would not understand; its workers have its image."""
        from dask_starburst.plan.images import versions

        there = (await self.scheduler_comm.versions())["packages"]
        found = versions.mismatches(get_versions()["packages"], there)
        if found:
            built = self.settings.environment is not None
            raise VersionMismatch(versions.explain(found, f"the image {self.settings.image}", built=built))

    async def _close_once(self) -> None:
        """Empty the pool before Dask's own part, which calls the cluster closed at its end."""
        with suppress(AttributeError):
            self._adaptive.stop()
        # Only what was sound is kept; and an embedded AWS that was started for this cluster ends with it.
        warm = self.status is Status.running and self._cloud is not None and not self._cloud.owned
        ready = self.status is Status.running
        self.status = Status.closing
        if self._session is not None and self._session.lease is not None:
            self._session.lease.closing = True
        if ready:
            await self._part("the hooks", self._hooks.close(self, self._hook_failed))
        if self._fleet is not None:
            await self._part("the final report of the scheduler", self._fleet.budget.final_report())
            await self._part("the loop", self._fleet.stop())  # it would take what follows for losses
        if self._session is not None:
            await self._part("giving the pool back", self._end(self._session, warm))
        if self._ledger_updater is not None:
            await self._part("the prices", self._ledger_updater.stop())
        if self._cloud is not None:
            await self._part("closing the cost ledger", self._tell_the_end())
            await self._part("the connection to AWS", self._cloud.close())
        await self._part("Dask's own part", self._close_dask())
        self.status = Status.closed
        self._open.discard(self)

    async def _part(self, what: str, work: Awaitable[T]) -> T | None:
        """Do one part of closing. Whatever becomes of it, the next one follows."""
        try:
            return await work
        except Exception:
            logger.exception("while cluster %s closed, %s failed", self.name, what)
            return None

    async def _close_dask(self) -> None:
        self.shutdown_scheduler = False  # it is gone: Dask must not wait for its answer
        if self.scheduler is not None:
            await self.scheduler.close()
        self.status = Status.failed  # SpecCluster waits for ever for one that is closing
        async with asyncio.timeout(_DASKS_OWN):
            await SpecCluster._close(self)

    async def _release(self) -> None:
        if self._session is not None:
            await self._session.end(warm=False)
        if self._cloud is not None:
            await self._part("closing the cost ledger", self._tell_the_end())
            await self._part("the connection to AWS", self._cloud.close())

    @property
    def _patience(self) -> float:
        return self.settings.timeouts.close + 2 * _GOOD_BYE

    def _fatal(self) -> StarburstError | None:
        return self._fleet.error if self._fleet is not None else None

    def _tell(self, kind: str, subject: str, message: str, level: int = logging.INFO, **facts: Any) -> None:
        assert self._cloud is not None
        self.events.emit(Event(self._cloud.aws.now(), kind, subject, message, level, facts))

    def _hook_failed(self, message: str) -> None:
        self._tell("hook-failed", self.name, message, logging.WARNING)

    async def _tell_the_end(self) -> None:
        if self._ledger_updater is not None:
            await self._ledger_updater.close()
        if self._session is not None:
            self._keep_record(self._session)
        self._tell("cluster-closed", self.name, f"cluster {self.name} is closed; it cost {self.cost}")

    def _keep_record(self, session: Session) -> None:
        from dask_starburst.cost.record import record_of, save_record

        pool, now, cost = session.pool, session.aws.now(), self.cost
        if pool is not None and cost.usd:
            opened = now if self.events.began is None else self.events.began
            startups = session.fleet.startups.seen(now).measured if session.fleet is not None else ()
            save_record(record_of(self.name, pool.name, opened, now, cost, startups))

    async def _end(self, session: Session, warm: bool) -> None:
        """Let the scheduler end, as long as it answers, and give the pool back."""
        good_bye = asyncio.ensure_future(self._say_good_bye())
        try:
            await asyncio.wait([good_bye], timeout=_GOOD_BYE)
            left = await session.end(warm=warm, ended=lambda: good_bye.done() and good_bye.result())
        finally:
            await cancellation.end([good_bye])
        if left:
            logger.warning("AWS is still terminating: %s", ", ".join(left))

    async def _say_good_bye(self) -> bool:
        """Have the scheduler close all of its workers and itself, in one call; whether it has ended.

        It answers, or drops the connection, when its lease keeper has ended, which could still act on the pool.
        """
        try:
            if self.scheduler_comm is not None:
                await self.scheduler_comm.terminate()
        except CommClosedError:
            return True
        except Exception as error:  # noqa: BLE001 -- it is gone or does not answer; its instance ends in any case
            logger.debug("the scheduler was not told of the end: %r", error)
            return False
        return self.scheduler_comm is not None

    def _on_fatal(self, error: StarburstError) -> None:
        if self.status is Status.running:
            from dask_starburst.fleet.controller import futures

            futures.cancel(self, str(error))
            self._begin_to_close()

    def _update_worker_status(self, op: str, msg: Any) -> None:
        # Not SpecCluster's own: after a while it closes a lost worker, which cancels the wish. Here
        # the fleet replaces it. Its comment there invites clusters to override this.
        Cluster._update_worker_status(self, op, msg)
        if self._fleet is not None:
            self._fleet.wake()

    async def _wait_for_workers(self, n_workers: int = 0, timeout: Any = None) -> None:
        """Wait as Dask does, but not for workers that cannot come any more; adaptive scaling brings the others."""
        self._awaited.append(n_workers)
        self._warn_of_waiting(n_workers)
        waiting = asyncio.ensure_future(super()._wait_for_workers(n_workers, timeout=timeout))
        try:
            while not waiting.done():
                await asyncio.wait([waiting], timeout=0.2)
                if (hopeless := self._why_hopeless(n_workers)) is not None:
                    raise hopeless
            await waiting
        finally:
            waiting.cancel()
            self._awaited.remove(n_workers)

    @property
    def awaited(self) -> int:
        """As many workers as somebody waits for now: adaptive scaling has no fewer meanwhile, within its maximum."""
        return max(self._awaited, default=0)

    def _warn_of_waiting(self, n_workers: int) -> None:
        if self._adapts and n_workers > self._adaptive.maximum:
            most = self._adaptive.maximum
            text = f"wait_for_workers({n_workers}) waits for more workers than adaptive scaling has: maximum={most}."
            text += f" Call adapt(maximum={n_workers}) or scale({n_workers})"
            self._tell("wait-exceeds-maximum", self.name, text, logging.WARNING)

    # -- scaling --------------------------------------------------------------------------------

    @property
    def _adapts(self) -> bool:
        return self._adaptive is not None and self._adaptive.state in ("starting", "running")

    def _is_over(self, adaptive: Any) -> bool:
        """Whether what asks is adaptive scaling that has been stopped: its last look may still be under way."""
        return adaptive is not None and (adaptive is not self._adaptive or adaptive.state == "stopped")

    def _end_adapting(self, n: int) -> None:
        """Let `n` workers hold that somebody has asked for; adaptive scaling would take them back."""
        if self.status in (Status.closing, Status.closed, Status.failed):
            return  # SpecCluster's own scale(0), at the end
        self._sized = True
        if self._adapts:
            least, most = self._adaptive.minimum, self._adaptive.maximum
            self._adaptive.stop(reason=f"scale({n})")
            if self._cloud is not None:
                text = f"scale({n}) ends adaptive scaling ({least} to {most} workers); adapt() starts it again"
                self._tell("adaptive-stopped", self.name, text)

    def _take_back(self, surplus: int) -> None:
        """Cancel requests for workers that are not up. SpecCluster would do it too, in no order."""
        if surplus > 0:
            unordered = self._fleet.unordered() if self._fleet is not None else frozenset()
            for name in first_to_go(self.worker_spec, self.observed, unordered)[:surplus]:
                del self.worker_spec[name]

    def _why_hopeless(self, n_workers: int) -> StarburstError | None:
        if self._fleet is None:
            return None
        if self._fleet.error is not None:
            return self._fleet.error
        if n_workers > len(self.scheduler_info["workers"]) and (waits := self._fleet.budget.hopeless()) is not None:
            return waits
        failed = self._fleet.failed()
        told = [error for worker in failed if (error := self._fleet.explained(worker)) is not None]
        return told[0] if told and len(self.worker_spec) - len(failed) < n_workers else None

    @property
    def _fleet(self) -> Fleet | None:
        session = getattr(self, "_session", None)
        return None if session is None else session.fleet

    @property
    def cost(self) -> Cost:
        """What the cluster has cost so far, as far as we know the prices."""
        from dask_starburst.cost.bill import Cost

        if self._ledger is None or self._cloud is None:
            return Cost()
        return self._ledger.total(self._cloud.aws.now())
