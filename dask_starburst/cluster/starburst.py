"""A Dask cluster in the user's own AWS account."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from distributed.core import Status
from distributed.deploy.adaptive import Adaptive
from distributed.utils import Log, Logs, NoOpAwaitable

from dask_starburst.cluster.adaptive import CloudAdaptive, adapting, check_keywords, mark_calls, of_group, with_patience
from dask_starburst.cluster.lifecycle import CloudCluster
from dask_starburst.cluster.processes import SchedulerTask, WorkerTask
from dask_starburst.events.cluster import ConfigurationLeftOut
from dask_starburst.events.stream import EventLog, show_progress
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.adaptive import Patience
from dask_starburst.plan.loop.scaling import BOUNDS, bounds, workers_requested
from dask_starburst.settings import Arguments, Settings, check_count, shows_settings

if TYPE_CHECKING:
    from dask_starburst.plan.groups import WorkerGroup
    from dask_starburst.plan.loop.state import Name
    from dask_starburst.views.report import ClusterReport

# As in `lifecycle`, modules that only a running cluster needs are imported where they are used.


def _options(group: WorkerGroup) -> dict[str, Any]:
    return {"nthreads": group.size.nthreads, "memory_limit": group.size.memory_limit, "group": group.name}


class StarburstCluster(CloudCluster):
    """A Dask cluster on ECS tasks on EC2 instances that it launches and terminates itself.

    Every argument is also a setting of ``dask.config`` below ``starburst``, with ``-`` for ``_``. Arguments that are
    not given are read from there; None means null.

    Parameters
    ----------
    n_workers : int, optional
        The number of workers to start. None means as many as the work needs, between ``adaptive.minimum`` and
        ``adaptive.maximum`` workers.
    arch : {"arm64", "x86_64"}
        The processor architecture. "arm64" is Graviton, "x86_64" is Intel and AMD.
    instance_types : list of str, optional
        The EC2 types of workers. The default gives Spot a choice of often more than ten types. None means all
        types with as many vCPUs as the smallest one that fits the worker.
    worker : mapping or WorkerShape
        The size of one worker. Keys: ``nthreads`` (int, optional), ``memory_limit`` (int or str, optional).
    worker_groups : mapping of names to mappings
        Further groups of workers by name. A task runs on a group if it is submitted with its resource, such as
        `resources={"group-big": 1}`. Keys: ``worker`` (mapping), ``instance_types`` (list of str, optional),
        ``arch`` ({"arm64", "x86_64"}, optional), ``policy`` ({"spot", "spot_with_fallback", "on-demand"},
        optional), ``n_workers`` (int, optional), ``minimum`` (int), ``maximum`` (int, optional), ``env``
        (mapping).
    spot : mapping or SpotSettings
        Whether workers run on Spot instances, and what they do when AWS takes one back. Keys: ``policy``
        ({"spot", "spot_with_fallback", "on-demand"}), ``notices`` (bool), ``on_rebalance`` ({"replace",
        "ignore"}).
    image : str, optional
        An existing container image. It must contain dask_starburst. The embedded AWS runs this Python
        environment, and builds an image only if ``environment`` is given. None means an image that is built
        from the environment.
    environment : str, optional
        The packages of the workers. Give a requirements.txt, pyproject.toml, uv.lock, pylock.toml or
        environment.yml, or a folder with one of them; "current" is the packages of this Python. None means the
        packages of this Python.
    hooks : object, optional
        Your lifecycle hooks, as objects or "package.module:Name". They have some of ``on_before_launch``,
        ``on_ready`` and ``on_close``. None means no hooks.
    env : mapping
        Environment variables of the scheduler and the workers. They can be read in the task definition, so
        names that look like those of secrets are refused.
    send_dask_config : bool
        Whether your Dask configuration holds on the scheduler and the workers, as in a LocalCluster: what
        differs from Dask's defaults, except secrets and what is your computer's or the cluster's own.
    region : str, optional
        The AWS region, such as "us-east-1". None means the region of your AWS configuration.
    profile : str, optional
        The profile of your AWS configuration. None means the default profile.
    cloud : {"local"}, optional
        Where to launch. "local" is the embedded AWS on this computer. None means your AWS account.
    endpoint_url : str, optional
        Another endpoint than AWS's. With ``cloud`` "local" it is that of a running embedded AWS, as ``starburst
        local up`` prints it. None means AWS's own endpoints, or a new embedded AWS.
    name : str, optional
        A name to recognize the cluster by. None means a generated name.
    quiet : bool
        Whether to print no progress. Events still go to the log and to ``cluster.events``.
    max_workers : int
        The most workers that may be requested. It limits the bill: a larger number is refused.
    money : mapping or MoneySettings
        Caps on the cost, and warnings. Keys: ``max_hourly_cost`` (float, optional), ``max_total_cost`` (float,
        optional), ``cost_alert_threshold`` (float, optional).
    keep : mapping or KeepSettings
        How long the cluster and its instances are kept without work. Keys: ``idle_timeout`` (float or str,
        optional), ``no_client_timeout`` (float or str, optional), ``warm`` (int), ``warm_timeout`` (float or
        str), ``lease`` (float or str).
    security : object, optional
        A ``distributed.Security`` with your own TLS certificates. False is refused. None means a new
        certificate authority for every cluster.
    tags : mapping
        Tags on every AWS resource, for cost allocation.
    build : mapping or BuildSettings
        How the workers' image is built from the environment. Keys: ``builder`` ({"direct", "buildx"}), ``base``
        (str), ``repository`` (str), ``add`` (list of str), ``exclude`` (list of str), ``image_ttl_days`` (int,
        optional), ``modules`` ({"by-value", "package", "none"}), ``compression`` ({"zstd", "gzip"}),
        ``dockerfile`` (str, optional), ``apt`` (list of str).
    scheduler : mapping or SchedulerSettings
        The scheduler's instance type and TCP ports. Keys: ``instance_type`` (str, optional), ``port`` (int),
        ``dashboard_port`` (int), ``dashboard`` (bool).
    adaptive : mapping or AdaptiveSettings
        Bounds and timing of adaptive scaling. Keys: ``minimum`` (int), ``maximum`` (int), ``interval`` (float
        or str), ``scale_down_after`` (float or str, optional), ``target_duration`` (float or str).
    network : mapping or NetworkSettings
        Where to launch, and who may reach the scheduler. Keys: ``access`` ({"public", "private"}), ``vpc``
        (str, optional), ``subnet`` (str, optional), ``subnets`` (list of str), ``security_groups`` (list of
        str), ``caller`` (str, optional), ``checkip_url`` (str).
    timeouts : mapping or Timeouts
        Timeouts and the polling interval. Keys: ``capacity`` (float or str), ``fallback`` (float or str),
        ``connect`` (float or str), ``retire`` (float or str), ``poll`` (float or str), ``consistency`` (float
        or str), ``close`` (float or str).
    storage : mapping or StorageSettings
        Disks, logs and metrics. Keys: ``volume_size`` (int), ``log_retention`` (int), ``container_insights``
        ({"disabled", "enabled", "enhanced"}).
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

    @shows_settings
    def __init__(
        self,
        *,
        asynchronous: bool = False,
        loop: Any = None,
        shutdown_on_close: bool = True,
        **settings: Unpack[Arguments],
    ) -> None:
        self.settings = Settings.load(**settings)
        name = self._prepare()
        try:
            super().__init__(
                workers=self._first_workers(),
                scheduler={"cls": SchedulerTask, "options": {}},
                worker=self._specs[DEFAULT],
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

    def _prepare(self) -> str:
        """Create the certificates, the blueprint, and SpecCluster's specifications of workers; return the name."""
        from dask_starburst.cluster.cloud import with_region
        from dask_starburst.environment.hook import ImageHook
        from dask_starburst.fleet import tls
        from dask_starburst.fleet.blueprint import blueprint
        from dask_starburst.fleet.configuration import container_environment
        from dask_starburst.hooks import Hooks, named_hooks

        self.settings = with_region(self.settings)
        name = self.settings.name or f"starburst-{uuid.uuid4().hex[:8]}"
        self.events = EventLog(quiet=self.settings.quiet)
        if not self.settings.quiet:
            show_progress()
        # The user's hooks run first: they may change what is built.
        self._hooks = Hooks((*named_hooks(self.settings.hooks), ImageHook()))
        own = self.settings.security
        self._certificates = tls.issue(name) if own is None else tls.adopt(own)
        variables, left_out = container_environment(self.settings)
        if left_out:
            text = ", ".join(f"{name} ({why})" for name, why in left_out.items())
            self.events.emit(ConfigurationLeftOut(names=", ".join(left_out), text=text))
        self._blueprint = replace(blueprint(self.settings, self._certificates.secret), environment=variables)
        self._awaited, self._sized, self._adaptives = [], set(), {}
        self._specs = {group.name: {"cls": WorkerTask, "options": _options(group)} for group in self._blueprint.groups}
        return name

    def _first_workers(self) -> dict[Name, Any]:
        """Return SpecCluster's specification of each worker that is requested at the start, by name."""
        first: dict[Name, Any] = {}
        for group, number in self._blueprint.first_counts().items():
            names = range(number) if group == DEFAULT else (f"{group}-{n}" for n in range(number))
            first |= dict.fromkeys(names, self._specs[group])
        return first

    # -- Dask's hooks ---------------------------------------------------------------------------

    def scale(self, n: int = 0, memory: str | None = None, cores: int | None = None, *, group: str = DEFAULT) -> Any:
        """Request `n` workers of a group; lost workers are replaced.

        This stops adaptive scaling of the group until :meth:`adapt` is called again. To scale down, workers that are
        not up yet are cancelled first, then the latest workers are retired.

        Parameters
        ----------
        n : int
            Number of workers.
        memory : str, optional
            Total memory of the workers, such as ``"100 GiB"``.
        cores : int, optional
            Total number of threads of the workers.
        group : str
            One of ``worker_groups``; by default the group that the arguments of the cluster describe.

        Raises
        ------
        BadArgument
            The number is negative, not a number, or above ``max_workers`` with the workers of the other groups; or
            there is no such group.
        """
        self._check_group(group)
        if self.status in (Status.closing, Status.closed, Status.failed):  # SpecCluster's own scale(0), at the end
            self.worker_spec.clear()
        else:
            most = self.settings.max_workers - self._others(group)
            requested = workers_requested(n, memory, cores, self.shape_of(group), most)
            if self._is_over(adapting.get()):
                return None
            if adapting.get() is None:
                self._end_adapting(group, requested)
            if self._controller is not None:
                self._controller.roster.retry_failed()
            self._set_count(group, requested)
        self.loop.add_callback(self._correct_state)
        return NoOpAwaitable() if self.asynchronous else None

    async def scale_down(self, workers: Iterable[Any]) -> None:
        """Retire these workers without replacing them.

        Parameters
        ----------
        workers : iterable of int
            Names of workers, as in ``cluster.workers``.
        """
        if not self._is_over(adapting.get()):
            await super().scale_down(workers)

    def adapt(
        self,
        Adaptive: type[Adaptive] = CloudAdaptive,  # noqa: N803 -- Dask's name
        *,
        group: str = DEFAULT,
        **kwargs: Any,
    ) -> Adaptive:
        """Scale a group adaptively as :meth:`distributed.deploy.Cluster.adapt`, within ``max_workers``.

        Tasks that are restricted to a group by its resource, such as ``resources={"group-big": 1}``, count for that
        group only, and all other tasks for the default group.

        Parameters
        ----------
        minimum, maximum : int
            Numbers of workers. They default to the settings, as ``interval`` and ``scale_down_after`` do. A `maximum`
            of None or infinity is ``max_workers``.
        minimum_cores, maximum_cores : int
            The same as numbers of threads.
        minimum_memory, maximum_memory : str
            The same as memory, such as ``"100 GiB"``.
        group : str
            One of ``worker_groups``; by default the group that the arguments of the cluster describe.
        **kwargs
            Further arguments of :class:`.CloudAdaptive`, including those of Dask's own class, such as ``wait_count``.

        Raises
        ------
        BadArgument
            A bound is negative, not a number, above ``max_workers`` or above the other one; or an argument or the
            group is unknown.
        """
        self._check_group(group)
        check_keywords(Adaptive, kwargs)
        defaults, own = self.settings.adaptive, self.settings.groups[group]
        given = {key: kwargs.pop(key) for key in BOUNDS if key in kwargs}
        usual_bounds = (own.minimum, self.settings.most_workers(group))
        least, most = bounds(given, usual_bounds, self.shape_of(group), self.settings.max_workers)
        kwargs["interval"] = defaults.interval if kwargs.get("interval") is None else kwargs["interval"]
        kwargs.setdefault("target_duration", defaults.target_duration)
        usual = self._cloud.patience if self._cloud is not None else Patience()
        patient = with_patience(Adaptive, kwargs.pop("scale_down_after", None), defaults, usual, kwargs)
        if len(self._specs) > 1:
            patient = of_group(Adaptive, patient, group)
        self._sized.discard(group)
        if group == DEFAULT:
            adaptive = super().adapt(Adaptive=patient, minimum=least, maximum=most, **kwargs)
        else:
            if group in self._adaptives:
                self._adaptives[group].stop(reason="adapt() was called again")
            adaptive = patient(self, minimum=least, maximum=most, **kwargs)
        self._adaptives[group] = mark_calls(adaptive)
        return self._adaptives[group]

    async def _get_logs(self, cluster: bool = True, scheduler: bool = True, workers: Any = True) -> Logs:
        """Read logs from CloudWatch, which also has those of ended processes."""
        from dask_starburst.fleet.logs import chosen_names, read_logs

        logs = Logs()
        if cluster:
            logs["Cluster"] = Log("\n".join(map(str, self.events)))
        if self._controller is not None:
            chosen = chosen_names(workers, self.scheduler_info["workers"])
            logs |= {title: Log(text) for title, text in (await read_logs(self._controller, scheduler, chosen)).items()}
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

        types = self._blueprint.default.type_names
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
