"""A Dask cluster in the user's own AWS account."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Never

from distributed.deploy.adaptive import Adaptive
from distributed.utils import Log, Logs

from dask_starburst.cluster.adaptive import CloudAdaptive, adapting, check_keywords, marked, with_patience
from dask_starburst.cluster.lifecycle import CloudCluster
from dask_starburst.cluster.processes import SchedulerTask, WorkerTask
from dask_starburst.events import EventLog, show_progress
from dask_starburst.plan.loop.adaptive import Patience
from dask_starburst.plan.loop.scaling import BOUNDS, Shape, bounds, workers_requested
from dask_starburst.settings import UNSET, Settings, check_count

if TYPE_CHECKING:
    from dask_starburst.views.report import ClusterReport

# As in `lifecycle`, what only a cluster that exists needs is imported where it is used.


class StarburstCluster(CloudCluster):
    """A Dask cluster on ECS tasks on EC2 instances that it launches and terminates itself.

    Every argument is also a setting of ``dask.config`` below ``starburst``, with ``-`` for ``_``. What is not given is
    taken from there; None means null.

    Parameters
    ----------
    n_workers : int, optional
        How many workers. Without it the cluster adapts to its work, between
        ``adaptive.minimum`` (0) and ``adaptive.maximum`` (10) workers.
    arch : {"arm64", "x86_64"}
        The processors: Graviton, or Intel and AMD.
    instance_types : list of str, optional
        The EC2 types that workers may run on. Without it: all of the catalogue that have as many vCPUs
        as the smallest one that fits `worker`, ten and more, so that Spot has a choice.
    worker : mapping or WorkerShape, optional
        ``nthreads`` (count) and ``memory_limit`` (bytes, or ``"16 GiB"``) of one worker.
    spot_policy : {"spot", "spot_with_fallback", "on-demand"}
        How workers are bought; with ``"spot_with_fallback"`` on demand where AWS has had no Spot for
        ``timeouts.fallback``. The scheduler is always on demand.
    spot_notices : bool
        Whether workers listen for Spot notices and hand over what they hold before AWS takes their instance.
    on_rebalance : {"replace", "ignore"}
        Whether a worker whose instance AWS expects to take back is replaced; first comes the new one.
    image : str, optional
        A container image that you have, with dask_starburst in it. Without it one is built of the environment, in an
        account; the embedded AWS runs this Python environment.
    environment : str, optional
        What the workers have: a ``requirements.txt``, ``pyproject.toml``, ``uv.lock``, ``pylock.toml`` or
        ``environment.yml``, or a folder with one of them. Without it: the packages of this Python.
    ecr_image_ttl_days : int, optional
        ECR deletes an image so many days after it was pushed; one that is used is renewed before.
    hooks : list, optional
        Objects with some of ``on_before_launch``, ``on_ready`` and ``on_close``; see :class:`.LifecycleHook`.
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
    max_hourly_cost : float, optional
        USD that the cluster may cost an hour, the scheduler included. A launch above it is refused; workers beyond it
        wait until there is money for their instance.
    max_total_cost : float, optional
        USD that the cluster may cost in all. At 80 % it warns; then it takes its workers down and closes, also when
        the client is gone.
    cost_alert_threshold : float, optional
        USD an hour from which on it warns.
    idle_timeout : float or str, optional
        After so long without work the scheduler ends the cluster. Seconds, or ``"20 minutes"``; None for never.
    no_client_timeout : float or str, optional
        It does so too when nobody has been connected, and no task has run, for so long.
    warm : int
        How many empty instances are kept ready beyond what the workers need, so that the next ones
        start at once.
    warm_timeout : float or str
        How long an instance without a worker is kept before it is terminated. From 60 s on it holds
        over ``close()`` as well: the next cluster with the same specification takes the instances.
    lease : float or str
        AWS empties the pool by itself when nobody has renewed for so long.
    security : distributed.Security, optional
        Your own TLS certificates. Without it the cluster has a certificate authority of its own.
    tags : mapping, optional
        Tags on every AWS resource.
    build, scheduler, adaptive, network, timeouts, storage : mapping, optional
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
        except BaseException:  # Ctrl-C as well: nothing may be left running
            if not asynchronous and hasattr(self, "status"):
                self.close()
            raise

    def _prepare(self) -> tuple[str, dict[str, Any]]:
        """Make the certificates and the blueprint; return the name, and what SpecCluster has to know of a worker."""
        from dask_starburst.environment.hook import ImageHook
        from dask_starburst.fleet import tls
        from dask_starburst.fleet.blueprint import blueprint
        from dask_starburst.hooks import Hooks, named_hooks

        name = self.settings.name or f"starburst-{uuid.uuid4().hex[:8]}"
        self.events = EventLog(quiet=self.settings.quiet)
        if not self.settings.quiet:
            show_progress()
        # What people add comes first: it may say what is to be built.
        self._hooks = Hooks((*named_hooks(self.settings.hooks), ImageHook()))
        own = self.settings.security
        self._certificates = tls.issue(name) if own is None else tls.adopt(own)
        self._blueprint = blueprint(self.settings, self._certificates.secret)
        size = self._blueprint.size
        self._awaited = []
        return name, {"cls": WorkerTask, "options": {"nthreads": size.nthreads, "memory_limit": size.memory_limit}}

    # -- Dask's hooks ---------------------------------------------------------------------------

    def scale(self, n: int = 0, memory: str | None = None, cores: int | None = None) -> Any:
        """Ask for `n` workers; lost ones are replaced without asking again.

        A cluster that adapts stops adapting and keeps to `n` from here on, until :meth:`adapt`. Of fewer workers than
        before, requests are taken back first that are not up yet, then the latest workers go.

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
        wanted = workers_requested(n, memory, cores, self._shape, self.settings.max_workers)
        if self._is_over(adapting.get()):
            return None
        if adapting.get() is None:
            self._end_adapting(wanted)
        if self._fleet is not None:
            self._fleet.retry_failed()
        self._take_back(len(self.worker_spec) - wanted)
        return super().scale(wanted)

    async def scale_down(self, workers: Iterable[Any]) -> None:
        """Retire these workers, and ask for no others in their place.

        Parameters
        ----------
        workers : iterable of int
            Names, such as those in ``cluster.workers``.
        """
        if not self._is_over(adapting.get()):
            await super().scale_down(workers)

    def adapt(self, Adaptive: type[Adaptive] = CloudAdaptive, **kwargs: Any) -> Adaptive:  # noqa: N803 -- Dask's name
        """Follow the work: as :meth:`distributed.deploy.Cluster.adapt`, within ``max_workers``.

        Parameters
        ----------
        minimum, maximum : int
            Workers; by default those of the settings, as ``interval`` and ``scale_down_after`` are. A `maximum` of
            None or infinity is ``max_workers``.
        minimum_cores, maximum_cores : int
            The same in threads.
        minimum_memory, maximum_memory : str
            The same in memory, such as ``"100 GiB"``.
        **kwargs
            Further arguments of :class:`.CloudAdaptive`; those of Dask's own, such as ``wait_count``, work.

        Raises
        ------
        BadArgument
            A bound is negative, not a number, above ``max_workers`` or above the other; or the argument is unknown.
        """
        check_keywords(Adaptive, kwargs)
        ours = self.settings.adaptive
        asked = {key: kwargs.pop(key) for key in BOUNDS if key in kwargs}
        least, most = bounds(asked, (ours.minimum, ours.maximum), self._shape, self.settings.max_workers)
        kwargs["interval"] = ours.interval if kwargs.get("interval") is None else kwargs["interval"]
        kwargs.setdefault("target_duration", ours.target_duration)
        usual = self._cloud.patience if self._cloud is not None else Patience()
        patient = with_patience(Adaptive, kwargs.pop("scale_down_after", None), ours, usual, kwargs)
        self._sized = False
        return marked(super().adapt(Adaptive=patient, minimum=least, maximum=most, **kwargs))

    @property
    def _shape(self) -> Shape:
        return Shape(self._threads_per_worker(), self._memory_per_worker())

    async def _get_logs(self, cluster: bool = True, scheduler: bool = True, workers: Any = True) -> Logs:
        """Read logs from CloudWatch, where those of processes that are gone are too."""
        from dask_starburst.fleet.logs import chosen_names, read_logs

        logs = Logs()
        if cluster:
            logs["Cluster"] = Log("\n".join(map(str, self.events)))
        if self._fleet is not None:
            chosen = chosen_names(workers, self.scheduler_info["workers"])
            logs |= {title: Log(text) for title, text in (await read_logs(self._fleet, scheduler, chosen)).items()}
        return logs

    def quote(self, n_workers: int | None = None) -> Any:
        """Return what this cluster would cost an hour with a number of workers; nothing is launched.

        Before there is a cluster, :func:`dask_starburst.quote` returns the same.

        Parameters
        ----------
        n_workers : int, optional
            By default those of the settings, or the maximum of adaptive scaling.

        Returns
        -------
        Quote
            Amounts in US dollars an hour. A coroutine where the cluster is asynchronous.

        Raises
        ------
        BadArgument
            `n_workers` is negative or above ``max_workers``.
        """
        from dask_starburst.cluster.quote import quote_in

        check_count("n_workers", n_workers, self.settings.max_workers)
        wanted = self.settings if n_workers is None else replace(self.settings, n_workers=n_workers)
        pool = self._session.pool if self._session is not None else None
        planned = replace(self._blueprint, settings=wanted)
        return self.sync(quote_in, self._cloud, planned, pool.name if pool is not None else "")

    # -- what there is to see -------------------------------------------------------------------

    def report(self) -> ClusterReport:
        """Return what there is to say about the cluster now."""
        from dask_starburst.views.report import report_of

        types = [t.name for t in self._blueprint.worker_types]
        return report_of(self, self._cloud, self._session, types)

    @property
    def dashboard_link(self) -> str:
        """The address of Dask's dashboard; empty where there is none."""
        return str(super().dashboard_link) if self.settings.scheduler.dashboard else ""

    def __repr__(self) -> str:
        from dask_starburst.views.report import as_text

        return as_text(self.report())

    def _repr_html_(self, cluster_status: Any = None) -> str:
        from dask_starburst.views.html import as_html

        return as_html(self.report(), cluster_status or "")
