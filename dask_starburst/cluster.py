"""A Dask cluster in the user's own AWS account."""

from __future__ import annotations

import asyncio
import atexit
import logging
import uuid
import weakref
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from distributed.core import Status
from distributed.deploy.adaptive import Adaptive
from distributed.deploy.cluster import Cluster
from distributed.deploy.spec import SpecCluster
from distributed.utils import Log, Logs

from dask_starburst.adaptive import CloudAdaptive, with_patience
from dask_starburst.cloud import Cloud, open_cloud
from dask_starburst.cost.ledger import Cost, Ledger
from dask_starburst.errors import StarburstError, WorkerFailed
from dask_starburst.events import Event, EventLog, show_progress
from dask_starburst.fleet import tls
from dask_starburst.fleet.dask_side import ClusterSide
from dask_starburst.fleet.fleet import Fleet
from dask_starburst.fleet.logbook import chosen_names, read_logs
from dask_starburst.fleet.session import Session, blueprint
from dask_starburst.fleet.task import SchedulerTask, WorkerTask
from dask_starburst.settings import Settings, check_count
from dask_starburst.views.html import as_html
from dask_starburst.views.report import ClusterReport, as_text, report_of

logger = logging.getLogger(__name__)

#: The scheduler has this many seconds to say good-bye; its instance goes in any case.
_GOOD_BYE = 3.0


class StarburstCluster(SpecCluster):
    """A Dask cluster on ECS tasks on EC2 instances that it launches and terminates itself.

    Every argument is also a setting of ``dask.config`` below ``starburst``, with ``-`` for ``_``.

    Parameters
    ----------
    n_workers : int, optional
        How many workers. Without it the cluster adapts to its work, between
        ``adaptive.minimum`` (0) and ``adaptive.maximum`` (10) workers.
    arch : {"arm64", "x86_64"}
        The processors: Graviton, or Intel and AMD.
    instance_types : list of str, optional
        The EC2 types that workers may run on. Without it the cheapest that fits `worker`.
    worker : mapping or WorkerShape, optional
        ``nthreads`` (count) and ``memory_limit`` (bytes, or ``"16 GiB"``) of one worker.
    spot_policy : {"spot", "on-demand"}
        How workers are bought. The scheduler is always on demand.
    image : str, optional
        The container image. Needed in an account; the embedded AWS runs this Python environment.
    region, profile : str, optional
        As in your AWS configuration; None for its default.
    cloud : {"local"}, optional
        The embedded AWS on this computer in place of an account.
    endpoint_url : str, optional
        Another endpoint than AWS's own; with ``cloud="local"`` that of an embedded AWS that runs
        already.
    name : str, optional
        A name for people.
    quiet : bool
        Whether to keep progress to the log and ``cluster.events``, and print none.
    max_workers : int
        More workers than this are refused.
    idle_timeout : float or str, optional
        After so long without work the scheduler ends the cluster. Seconds, or ``"20 minutes"``.
    no_client_timeout : float or str, optional
        It does so too when nobody has been connected, and no task has run, for so long.
    warm_timeout : float or str
        How long an instance without a worker is kept before it is terminated.
    lease : float or str
        AWS empties the pool by itself when nobody has renewed for so long.
    security : distributed.Security, optional
        Your own TLS certificates. Without it the cluster has a certificate authority of its own.
    tags : mapping, optional
        Tags on every AWS resource.
    scheduler, adaptive, network, timeouts, storage : mapping, optional
        Groups of settings; see the configuration reference.
    asynchronous : bool
        Whether to be used with ``async``/``await``.
    loop : tornado.ioloop.IOLoop, optional
        The loop to run in.
    shutdown_on_close : bool
        As in every Dask cluster: whether the end of the interpreter closes it.

    Raises
    ------
    BadArgument
        Some argument is wrong; nothing was launched.
    NoCredentials, CredentialsExpired, PermissionDenied
        AWS does not let us; what was begun has been undone.
    SchedulerFailed, LeaseExpired, AWSError
        It could not be started; what was begun has been undone.

    Examples
    --------
    >>> from dask.distributed import Client
    >>> with StarburstCluster(cloud="local", n_workers=2) as cluster, Client(cluster) as client:
    ...     client.submit(sum, [1, 2, 3]).result()
    6
    """

    _open: ClassVar[weakref.WeakSet[StarburstCluster]] = weakref.WeakSet()
    _cloud: Cloud | None = None
    _session: Session | None = None
    _ledger: Ledger | None = None
    _starting: asyncio.Future[None] | None = None
    _closing: asyncio.Future[None] | None = None

    def __init__(
        self,
        *,
        n_workers: int | None = None,
        arch: str | None = None,
        instance_types: Iterable[str] | None = None,
        worker: Any = None,
        spot_policy: str | None = None,
        image: str | None = None,
        region: str | None = None,
        profile: str | None = None,
        cloud: str | None = None,
        endpoint_url: str | None = None,
        name: str | None = None,
        quiet: bool | None = None,
        max_workers: int | None = None,
        idle_timeout: float | str | None = None,
        no_client_timeout: float | str | None = None,
        warm_timeout: float | str | None = None,
        lease: float | str | None = None,
        security: Any = None,
        tags: Mapping[str, str] | None = None,
        scheduler: Any = None,
        adaptive: Any = None,
        network: Any = None,
        timeouts: Any = None,
        storage: Any = None,
        asynchronous: bool = False,
        loop: Any = None,
        shutdown_on_close: bool = True,
    ) -> None:
        given = {k: v for k, v in locals().items() if k in Settings.__dataclass_fields__}
        self.settings = Settings.load(**given)
        self.events = EventLog()
        if not self.settings.quiet:
            show_progress()
        name = self.settings.name or f"starburst-{uuid.uuid4().hex[:8]}"
        self._certificates = tls.issue(name) if self.settings.security is None else tls.adopt(self.settings.security)
        self._blueprint = blueprint(self.settings, self._certificates.secret)
        size = self._blueprint.size
        spec = {"cls": WorkerTask, "options": {"nthreads": size.nthreads, "memory_limit": size.memory_limit}}
        workers = {str(i): spec for i in range(self.settings.n_workers or 0)}
        self._open.add(self)
        try:
            super().__init__(
                workers=workers,
                scheduler={"cls": SchedulerTask, "options": {}},
                worker=spec,
                asynchronous=asynchronous,
                loop=loop,
                security=self._certificates.client,
                name=name,
                shutdown_on_close=shutdown_on_close,
            )
        except BaseException:  # Ctrl-C as well: nothing may be left running
            if not asynchronous:
                self.close()
            raise

    # -- start and close ------------------------------------------------------------------------

    async def _start(self) -> None:
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start_once())
        try:
            await asyncio.shield(self._starting)
        except asyncio.CancelledError:
            self._starting.cancel()
            raise

    async def _start_once(self) -> None:
        self._lock = asyncio.Lock()  # SpecCluster's _close takes it even where its _start was never reached
        try:
            self.new_spec["options"]["fleet"] = await self._launch()
            await super()._start()
        except BaseException as error:  # noqa: BLE001 -- a cancelled start leaves nothing behind either
            self.status = Status.failed
            await self._close()
            cause = error.__cause__
            # SpecCluster wraps what hinders the scheduler; the user is to see our own words.
            raise cause if isinstance(cause, StarburstError) else error from None
        if self.settings.n_workers is None:
            self.adapt()

    async def _launch(self) -> Fleet:
        self._cloud = await open_cloud(self.settings)
        self.settings = settings = self._cloud.settings
        self._ledger = Ledger(volume_gb=settings.storage.volume_size, simulated=self._cloud.simulated)
        self.events.listen(self._ledger.note)
        self._session = Session(self._cloud.aws, replace(self._blueprint, settings=settings), self.events)
        fleet = await self._session.start(ClusterSide(self), self.worker_spec)
        fleet.on_fatal = self._on_fatal
        self.new_spec["options"]["group"] = self._session.worker_group
        self.scheduler_spec["options"] = {
            "fleet": fleet,
            "connection_args": self.security.get_connection_args("client"),
            "timeout": settings.timeouts.connect,
        }
        return fleet

    async def _close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close_once())
        await asyncio.shield(self._closing)

    async def _close_once(self) -> None:
        """Empty the pool before Dask's own part, which calls the cluster closed at its end."""
        with suppress(AttributeError):
            self._adaptive.stop()
        self.status = Status.closing
        if self._fleet is not None:
            await self._fleet.stop()  # it would take what follows for losses
        await self._say_good_bye()
        left = await self._session.end() if self._session else []
        if left:
            logger.warning("AWS is still terminating: %s", ", ".join(left))
        if self._cloud is not None:
            self._tell_the_end()
            await self._cloud.close()
        self.shutdown_scheduler = False  # it is gone: Dask must not wait for its answer
        if self.scheduler is not None:
            await self.scheduler.close()
        self.status = Status.failed  # SpecCluster waits for ever for one that is closing
        await super()._close()
        self._open.discard(self)

    def _tell_the_end(self) -> None:
        assert self._cloud is not None
        now = self._cloud.aws.now()
        if self._ledger is not None:
            self._ledger.close(now)
        text = f"cluster {self.name} is closed; it cost {self.cost}"
        self.events.emit(Event(now, "cluster-closed", self.name, text))

    async def _say_good_bye(self) -> None:
        """Let the scheduler end by itself, and its workers with it, as long as it answers."""
        if self.scheduler_comm is None:
            return
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(self.scheduler_comm.terminate(), _GOOD_BYE)

    def _on_fatal(self, error: StarburstError) -> None:
        if self.status is Status.running:
            self._closing = self._closing or asyncio.ensure_future(self._close_once())

    # -- Dask's hooks ---------------------------------------------------------------------------

    def _new_worker_name(self, worker_number: int) -> str:
        return str(worker_number)

    def _update_worker_status(self, op: str, msg: Any) -> None:
        # Not SpecCluster's own: after a while it closes a lost worker, which cancels the wish. Here
        # the fleet replaces it. Its comment there invites clusters to override this.
        Cluster._update_worker_status(self, op, msg)
        if self._fleet is not None:
            self._fleet.wake()

    def scale(self, n: int = 0, memory: str | None = None, cores: int | None = None) -> Any:
        """Ask for `n` workers; lost ones are replaced without asking again.

        Parameters
        ----------
        n : int
            Workers.
        memory : str, optional
            Memory of all together, such as ``"100 GiB"``.
        cores : int, optional
            Threads of all together.

        Raises
        ------
        BadArgument
            Negative, no number, or above ``max_workers``.
        """
        check_count("n", n, self.settings.max_workers)
        if self._fleet is not None:
            self._fleet.retry_failed()
        return super().scale(n, memory=memory, cores=cores)

    def adapt(self, Adaptive: type[Adaptive] = CloudAdaptive, **kwargs: Any) -> Adaptive:  # noqa: N803 -- Dask's name
        """Follow the work: as :meth:`distributed.deploy.Cluster.adapt`, within ``max_workers``.

        Parameters
        ----------
        minimum, maximum : int
            Workers; by default those of the settings, as ``interval`` and ``scale_down_after`` are.
        **kwargs
            Further arguments of :class:`.CloudAdaptive`; those of Dask's own, such as ``wait_count``, work.

        Raises
        ------
        BadArgument
            A bound is negative, no number, or above ``max_workers``.
        """
        ours = self.settings.adaptive
        for bound in ("minimum", "maximum"):
            check_count(bound, kwargs.get(bound), self.settings.max_workers)
        kwargs.setdefault("minimum", ours.minimum)
        kwargs.setdefault("maximum", ours.maximum)
        kwargs.setdefault("interval", ours.interval)
        kwargs.setdefault("target_duration", ours.target_duration)
        patient = with_patience(Adaptive, kwargs.pop("scale_down_after", None), ours, kwargs)
        return super().adapt(Adaptive=patient, **kwargs)

    async def _wait_for_workers(self, n_workers: int = 0, timeout: Any = None) -> None:
        """Wait as Dask does, but not for workers that cannot come any more."""
        waiting = asyncio.ensure_future(super()._wait_for_workers(n_workers, timeout=timeout))
        while not waiting.done():
            await asyncio.wait([waiting], timeout=0.2)
            if (hopeless := self._why_hopeless(n_workers)) is not None:
                waiting.cancel()
                raise hopeless
        await waiting

    def _why_hopeless(self, n_workers: int) -> StarburstError | None:
        if self._fleet is None:
            return None
        if self._fleet.error is not None:
            return self._fleet.error
        failed = self._fleet.failed()
        if failed and len(self.worker_spec) - len(failed) < n_workers:
            return WorkerFailed(failed[0].reason)
        return None

    async def _get_logs(self, cluster: bool = True, scheduler: bool = True, workers: Any = True) -> Logs:
        """Read logs from CloudWatch, where those of processes that are gone are too."""
        logs = Logs()
        if cluster:
            logs["Cluster"] = Log("\n".join(map(str, self.events)))
        if self._fleet is not None:
            chosen = chosen_names(workers, self.scheduler_info["workers"])
            logs |= {title: Log(text) for title, text in (await read_logs(self._fleet, scheduler, chosen)).items()}
        return logs

    # -- what there is to see -------------------------------------------------------------------

    @property
    def _fleet(self) -> Fleet | None:
        session = getattr(self, "_session", None)
        return None if session is None else session.fleet

    @property
    def cost(self) -> Cost:
        """What the cluster has cost so far, as far as we know the prices."""
        if self._ledger is None or self._cloud is None:
            return Cost()
        return self._ledger.total(self._cloud.aws.now())

    def report(self) -> ClusterReport:
        """Return what there is to say about the cluster now."""
        return report_of(self, self._cloud, self._session, [t.name for t in self._blueprint.worker_types])

    def __repr__(self) -> str:
        return as_text(self.report())

    def _repr_html_(self, cluster_status: Any = None) -> str:
        return as_html(self.report(), cluster_status or "")


@atexit.register
def _close_all() -> None:
    """Close what a script has forgotten, with more patience than distributed has.

    Registered after distributed's own, so it runs before it.
    """
    for cluster in list(StarburstCluster._open):
        if cluster.shutdown_on_close and cluster.status is not Status.closed:
            with suppress(TimeoutError):
                cluster.close(timeout=cluster.settings.timeouts.close + 2 * _GOOD_BYE)
