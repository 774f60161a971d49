"""A Dask cluster in the user's own AWS account."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Never

from distributed.deploy.adaptive import Adaptive
from distributed.utils import Log, Logs

from dask_starburst.cluster.adaptive import CloudAdaptive, adapting, check_keywords, mark_calls, with_patience
from dask_starburst.cluster.lifecycle import CloudCluster
from dask_starburst.cluster.processes import SchedulerTask, WorkerTask
from dask_starburst.events.stream import EventLog, show_progress
from dask_starburst.plan.loop.adaptive import Patience
from dask_starburst.plan.loop.scaling import BOUNDS, Shape, bounds, workers_requested
from dask_starburst.settings import UNSET, Settings, check_count

if TYPE_CHECKING:
    from dask_starburst.views.report import ClusterReport

# As in `lifecycle`, modules that only a running cluster needs are imported where they are used.


class StarburstCluster(CloudCluster):
    """A Dask cluster on ECS tasks on EC2 instances that it launches and terminates itself.

    Every argument is also a setting of ``dask.config`` below ``starburst``, with ``-`` for ``_``. Arguments that are
    not given are read from there; None means null.

    Parameters
    ----------
    n_workers : int, optional
        The number of workers. Without it the cluster adapts to its work, between ``adaptive.minimum`` (0) and
        ``adaptive.maximum`` (10) workers.
    arch : {"arm64", "x86_64"}
        The processor architecture: Graviton, or Intel and AMD.
    instance_types : list of str, optional
        The EC2 types that workers may run on. By default all types of the catalogue with as many vCPUs as the smallest
        one that fits `worker`: ten or more, so that Spot has a choice.
    worker : mapping or WorkerShape, optional
        ``nthreads`` (count) and ``memory_limit`` (bytes, or ``"16 GiB"``) of one worker.
    spot_policy : {"spot", "spot_with_fallback", "on-demand"}
        The purchase option of workers. With ``"spot_with_fallback"`` a worker runs on demand if Spot has had no
        capacity for ``timeouts.fallback``. The scheduler always runs on demand.
    spot_notices : bool
        Whether workers listen for Spot notices and transfer their data before AWS interrupts their instance.
    on_rebalance : {"replace", "ignore"}
        Whether a worker is replaced after a rebalance recommendation; the new worker starts before the old one retires.
    image : str, optional
        An existing container image that contains dask_starburst. By default an image is built from the environment; the
        embedded AWS runs this Python environment without an image.
    environment : str, optional
        The workers' packages: a ``requirements.txt``, ``pyproject.toml``, ``uv.lock``, ``pylock.toml`` or
        ``environment.yml``, or a folder with one of them. By default the packages of this Python environment.
    ecr_image_ttl_days : int, optional
        ECR deletes an image this many days after it was pushed; an image in use is renewed before.
    hooks : list, optional
        Objects with some of ``on_before_launch``, ``on_ready`` and ``on_close``; see :class:`.LifecycleHook`.
    region, profile : str, optional
        As in your AWS configuration; None for its default.
    cloud : {"local"}, optional
        Use the embedded AWS on this computer instead of an account.
    endpoint_url : str, optional
        Another endpoint than AWS's; with ``cloud="local"`` that of an embedded AWS that is running already.
    name : str, optional
        A name to recognize the cluster by.
    quiet : bool
        Whether to print no progress; events still go to the log and to ``cluster.events``.
    max_workers : int
        The most workers that may be requested.
    max_hourly_cost : float, optional
        The most that the cluster may cost an hour, in USD, including the scheduler. A launch above it is refused;
        further workers wait until the cap allows their instance.
    max_total_cost : float, optional
        The most that the cluster may cost in all, in USD. The cluster warns at 80 %, and closes at 100 %, also if the
        client is gone.
    cost_alert_threshold : float, optional
        The hourly cost above which the cluster warns, in USD.
    idle_timeout : float or str, optional
        The scheduler ends the cluster after this time without work. Seconds, or ``"20 minutes"``; None for never.
    no_client_timeout : float or str, optional
        The scheduler ends the cluster after this time without a client and without a running task.
    warm : int
        The number of spare instances that are kept ready, so that further workers start at once.
    warm_timeout : float or str
        The time for which an instance without a worker is kept before it is terminated. From 60 s on instances are
        kept after ``close()`` too: the next cluster with the same specification uses them.
    lease : float or str
        The time after which AWS empties the pool unless the client or the scheduler renews the lease.
    security : distributed.Security, optional
        Your own TLS certificates. By default the cluster creates its own certificate authority.
    tags : mapping, optional
        Tags on every AWS resource.
    build, scheduler, adaptive, network, timeouts, storage : mapping, optional
        Groups of settings; see the configuration reference.
    asynchronous : bool
        Whether the cluster is used with ``async``/``await``.
    loop : tornado.ioloop.IOLoop, optional
        The loop to run in.
    shutdown_on_close : bool
        As in every Dask cluster: whether the cluster is closed when the interpreter exits.

    Raises
    ------
    BadArgument
        An argument is not valid; nothing was launched.
    NoCredentials, CredentialsExpired, PermissionDenied
        AWS refused the credentials or a call; the start was undone.
    SchedulerFailed, LeaseExpired, AWSError
        The cluster failed to start; the start was undone.

    Examples
    --------
    >>> from dask.distributed import Client
    >>> with StarburstCluster(cloud="local", n_workers=2) as cluster, Client(cluster) as client:
    ...     client.submit(sum, [1, 2, 3]).result()
    6
    """

    def __init__(
        self,
        *,
        n_workers: int | None = UNSET,
        arch: str = UNSET,
        instance_types: Iterable[str] | None = UNSET,
        worker: Any = UNSET,
        spot_policy: str = UNSET,
        spot_notices: bool = UNSET,
        on_rebalance: str = UNSET,
        image: str | None = UNSET,
        environment: str | None = UNSET,
        ecr_image_ttl_days: int | None = UNSET,
        hooks: Any = UNSET,
        region: str | None = UNSET,
        profile: str | None = UNSET,
        cloud: str | None = UNSET,
        endpoint_url: str | None = UNSET,
        name: str | None = UNSET,
        quiet: bool = UNSET,
        max_workers: int = UNSET,
        max_hourly_cost: float | None = UNSET,
        max_total_cost: float | None = UNSET,
        cost_alert_threshold: float | None = UNSET,
        idle_timeout: float | str | None = UNSET,
        no_client_timeout: float | str | None = UNSET,
        warm: int = UNSET,
        warm_timeout: float | str = UNSET,
        lease: float | str = UNSET,
        security: Any = UNSET,
        tags: Mapping[str, str] = UNSET,
        build: Any = UNSET,
        scheduler: Any = UNSET,
        adaptive: Any = UNSET,
        network: Any = UNSET,
        timeouts: Any = UNSET,
        storage: Any = UNSET,
        asynchronous: bool = False,
        loop: Any = None,
        shutdown_on_close: bool = True,
        **unknown: Never,
    ) -> None:
        self.settings = Settings.of_arguments(locals())
        name, spec = self._prepare()
        try:
            super().__init__(
                workers=dict.fromkeys(range(self.settings.n_workers or 0), spec),
                scheduler={"cls": SchedulerTask, "options": {}},
                worker=spec,
                asynchronous=asynchronous,
                loop=loop,
                security=self._certificates.client,
                name=name,
                shutdown_on_close=shutdown_on_close,
            )
        except BaseException:  # Ctrl-C as well: leave nothing running
            if not asynchronous and hasattr(self, "status"):
                self.close()
            raise

    def _prepare(self) -> tuple[str, dict[str, Any]]:
        """Create the certificates and the blueprint; return the name, and SpecCluster's specification of a worker."""
        from dask_starburst.environment.hook import ImageHook
        from dask_starburst.fleet import tls
        from dask_starburst.fleet.blueprint import blueprint
        from dask_starburst.hooks import Hooks, named_hooks

        name = self.settings.name or f"starburst-{uuid.uuid4().hex[:8]}"
        self.events = EventLog(quiet=self.settings.quiet)
        if not self.settings.quiet:
            show_progress()
        # The user's hooks run first: they may change what is built.
        self._hooks = Hooks((*named_hooks(self.settings.hooks), ImageHook()))
        own = self.settings.security
        self._certificates = tls.issue(name) if own is None else tls.adopt(own)
        self._blueprint = blueprint(self.settings, self._certificates.secret)
        size = self._blueprint.size
        self._awaited = []
        return name, {"cls": WorkerTask, "options": {"nthreads": size.nthreads, "memory_limit": size.memory_limit}}

    # -- Dask's hooks ---------------------------------------------------------------------------

    def scale(self, n: int = 0, memory: str | None = None, cores: int | None = None) -> Any:
        """Request `n` workers; lost workers are replaced.

        This stops adaptive scaling until :meth:`adapt` is called again. To scale down, workers that are not up yet are
        cancelled first, then the latest workers are retired.

        Parameters
        ----------
        n : int
            Number of workers.
        memory : str, optional
            Total memory of the workers, such as ``"100 GiB"``.
        cores : int, optional
            Total number of threads of the workers.

        Raises
        ------
        BadArgument
            The number is negative, not a number, or above ``max_workers``.
        """
        requested = workers_requested(n, memory, cores, self._shape, self.settings.max_workers)
        if self._is_over(adapting.get()):
            return None
        if adapting.get() is None:
            self._end_adapting(requested)
        if self._fleet is not None:
            self._fleet.retry_failed()
        self._cancel_surplus(len(self.worker_spec) - requested)
        return super().scale(requested)

    async def scale_down(self, workers: Iterable[Any]) -> None:
        """Retire these workers without replacing them.

        Parameters
        ----------
        workers : iterable of int
            Names of workers, as in ``cluster.workers``.
        """
        if not self._is_over(adapting.get()):
            await super().scale_down(workers)

    def adapt(self, Adaptive: type[Adaptive] = CloudAdaptive, **kwargs: Any) -> Adaptive:  # noqa: N803 -- Dask's name
        """Scale adaptively as :meth:`distributed.deploy.Cluster.adapt`, within ``max_workers``.

        Parameters
        ----------
        minimum, maximum : int
            Numbers of workers. They default to the settings, as ``interval`` and ``scale_down_after`` do. A `maximum`
            of None or infinity is ``max_workers``.
        minimum_cores, maximum_cores : int
            The same as numbers of threads.
        minimum_memory, maximum_memory : str
            The same as memory, such as ``"100 GiB"``.
        **kwargs
            Further arguments of :class:`.CloudAdaptive`, including those of Dask's own class, such as ``wait_count``.

        Raises
        ------
        BadArgument
            A bound is negative, not a number, above ``max_workers`` or above the other one; or an argument is unknown.
        """
        check_keywords(Adaptive, kwargs)
        defaults = self.settings.adaptive
        given = {key: kwargs.pop(key) for key in BOUNDS if key in kwargs}
        least, most = bounds(given, (defaults.minimum, defaults.maximum), self._shape, self.settings.max_workers)
        kwargs["interval"] = defaults.interval if kwargs.get("interval") is None else kwargs["interval"]
        kwargs.setdefault("target_duration", defaults.target_duration)
        usual = self._cloud.patience if self._cloud is not None else Patience()
        patient = with_patience(Adaptive, kwargs.pop("scale_down_after", None), defaults, usual, kwargs)
        self._sized = False
        return mark_calls(super().adapt(Adaptive=patient, minimum=least, maximum=most, **kwargs))

    @property
    def _shape(self) -> Shape:
        return Shape(self._threads_per_worker(), self._memory_per_worker())

    async def _get_logs(self, cluster: bool = True, scheduler: bool = True, workers: Any = True) -> Logs:
        """Read logs from CloudWatch, which also has those of ended processes."""
        from dask_starburst.fleet.logs import chosen_names, read_logs

        logs = Logs()
        if cluster:
            logs["Cluster"] = Log("\n".join(map(str, self.events)))
        if self._fleet is not None:
            chosen = chosen_names(workers, self.scheduler_info["workers"])
            logs |= {title: Log(text) for title, text in (await read_logs(self._fleet, scheduler, chosen)).items()}
        return logs

    def quote(self, n_workers: int | None = None) -> Any:
        """Return the hourly cost of this cluster with a number of workers, without launching anything.

        Without a cluster, use :func:`dask_starburst.quote`.

        Parameters
        ----------
        n_workers : int, optional
            By default those of the settings, or the maximum of adaptive scaling.

        Returns
        -------
        Quote
            Amounts in US dollars an hour. A coroutine if the cluster is asynchronous.

        Raises
        ------
        BadArgument
            `n_workers` is negative or above ``max_workers``.
        """
        from dask_starburst.cluster.quote import quote_in

        check_count("n_workers", n_workers, self.settings.max_workers)
        requested = self.settings if n_workers is None else replace(self.settings, n_workers=n_workers)
        pool = self._session.pool if self._session is not None else None
        planned = replace(self._blueprint, settings=requested)
        return self.sync(quote_in, self._cloud, planned, pool.name if pool is not None else "")

    # -- display --------------------------------------------------------------------------------

    def report(self) -> ClusterReport:
        """Return a report of the cluster's current state."""
        from dask_starburst.views.report import report_of

        types = [t.name for t in self._blueprint.worker_types]
        return report_of(self, self._cloud, self._session, types)

    @property
    def dashboard_link(self) -> str:
        """The address of Dask's dashboard; empty if it is disabled."""
        return str(super().dashboard_link) if self.settings.scheduler.dashboard else ""

    def __repr__(self) -> str:
        from dask_starburst.views.report import as_text

        return as_text(self.report())

    def _repr_html_(self, cluster_status: Any = None) -> str:
        from dask_starburst.views.html import as_html

        return as_html(self.report(), cluster_status or "")
