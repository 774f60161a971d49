"""Adaptive scaling for instances that take a minute to start and cost money from the first second."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextvars import ContextVar
from difflib import get_close_matches
from functools import partial
from inspect import signature
from math import ceil, inf
from typing import Any
from weakref import ref

import dask.config
from dask.utils import parse_timedelta
from distributed.deploy.adaptive import Adaptive

from dask_starburst.errors import BadArgument
from dask_starburst.plan.loop.adaptive import (
    Limits,
    Patience,
    Sample,
    StartupTimes,
    State,
    recommend,
    remember,
    sample_every,
    workers_for,
)
from dask_starburst.plan.loop.scaling import BOUNDS, first_to_go
from dask_starburst.settings import AdaptiveSettings


class CloudAdaptive(Adaptive):
    """Adaptive scaling as in Dask, with a patience that accounts for the startup time of instances.

    Parameters
    ----------
    cluster : StarburstCluster
        The cluster to scale.
    interval : float or str, optional
        Seconds between two decisions. The target is sampled five times as often, but at most every second.
    minimum, maximum, target_duration, worker_key, **kwargs
        As in :class:`distributed.deploy.Adaptive`.
    wait_count : int, optional
        As in Dask: the number of consecutive decisions for which a worker has to be superfluous. The same as a
        `scale_down_after` of ``(wait_count - 1) * interval``.
    group : str, optional
        The worker group to scale, in a cluster with several.
    scale_down_after : float or str, optional
        A launched worker is kept until fewer workers have been sufficient for this long. By default the setting
        ``adaptive.scale-down-after``; if that is not set either, the measured startup time (:class:`.Patience`).
    """

    def __init__(
        self,
        cluster: Any,
        interval: Any = None,
        minimum: int | None = None,
        maximum: float | None = None,
        wait_count: int | None = None,
        target_duration: Any = None,
        worker_key: Any = None,
        *,
        scale_down_after: float | str | None = None,
        group: str | None = None,
        **kwargs: Any,
    ) -> None:
        pace = parse_timedelta(interval if interval is not None else dask.config.get("distributed.adaptive.interval"))
        sampling = sample_every(pace)
        super().__init__(cluster, sampling, minimum, maximum, wait_count, target_duration, worker_key, **kwargs)
        self.interval = pace
        self.group = group
        self._early = sampling / 2  # a sample that comes a little early still leads to a decision
        self._decide_at = 0.0
        settings = cluster.settings.adaptive if hasattr(cluster, "settings") else AdaptiveSettings()
        self._chosen: float | None = settings.scale_down_after
        if scale_down_after is not None:
            self._chosen = float(parse_timedelta(scale_down_after))
        elif wait_count is not None:
            self._chosen = max(0, wait_count - 1) * pace
        self._samples: tuple[Sample, ...] = ()

    @property
    def scale_down_after(self) -> float:
        """The current patience in seconds: as given, or derived from the measured startup times."""
        if self._chosen is not None:
            return self._chosen
        controller, cloud = getattr(self.cluster, "_controller", None), getattr(self.cluster, "_cloud", None)
        startups = controller.startups.snapshot(controller.roster.clock()) if controller is not None else StartupTimes()
        return (cloud.patience if cloud is not None else Patience()).after(startups)

    async def target(self) -> int:
        """Return the number of workers that the work requires, also while there are none."""
        # Ask the scheduler, because the client's information about workers may be a second old.
        if self.group is None:
            known = len(await self.scheduler.ncores())
            return workers_for(await super().target(), self.cluster._threads_per_worker(), known)
        found = await self.scheduler.starburst_group_target(
            group=self.group, rest=self.group == self.cluster.group_of_rest, target_duration=self.target_duration
        )
        return workers_for(found["target"], self.cluster.shape_of(self.group).nthreads, found["workers"])

    @property
    def plan(self) -> set[Any]:
        """The requested workers, of its group."""
        return self._mine(super().plan)

    @property
    def requested(self) -> set[Any]:
        """The workers that have been requested from the controller, of its group."""
        return self._mine(super().requested)

    @property
    def observed(self) -> set[Any]:
        """The workers that are up, of its group."""
        return self._mine(super().observed)

    def _mine(self, names: set[Any]) -> set[Any]:
        return names if self.group is None else names.intersection(self.cluster.workers_of(self.group))

    async def recommendations(self, target: int) -> dict[str, Any]:
        """Return the decision as Dask's loop expects it; between two decisions only record the target.

        Parameters
        ----------
        target : int
            Number of workers.

        Returns
        -------
        dict
            With the ``status`` ``"same"``, ``"up"`` (and ``n``) or ``"down"`` (and ``workers``).
        """
        now = time.monotonic()
        # A call of wait_for_workers raises the minimum, but not above the maximum.
        least, most = max(self.minimum, self._awaited()), min(self.maximum, self._room())
        limits = Limits(least, most, self.scale_down_after)
        if now < self._decide_at - self._early:
            self._samples = remember(self._samples, target, now, limits)
            return {"status": "same"}
        self._decide_at = now + self.interval
        if len(self.plan) != len(self.requested):
            await self.cluster
        running = self.plan & self.observed
        controller = getattr(self.cluster, "_controller", None)
        if controller is not None and target > len(running):
            controller.roster.retry_rested()  # workers that were given up are still requested
        state = self._state(running)
        decision = recommend(state, target, now, limits)
        self._samples = decision.samples
        if decision.target_workers > state.planned:
            return {"status": "up", "n": decision.target_workers}
        going = [*decision.cancel, *await self._idlest(running, decision.retire)]
        return {"status": "down", "workers": going} if going else {"status": "same"}

    def _awaited(self) -> int:
        """Return the number of its workers that callers wait for; workers of other groups count for them, too."""
        awaited = int(getattr(self.cluster, "awaited", 0))
        if self.group is None:
            return awaited
        return max(0, awaited - self.cluster._others(self.group)) if self.group == self.cluster.group_of_rest else 0

    def _room(self) -> float:
        """Return the number of workers that max_workers leaves for its group."""
        return inf if self.group is None else self.cluster.settings.max_workers - self.cluster._others(self.group)

    def _state(self, running: set[Any]) -> State:
        controller = getattr(self.cluster, "_controller", None)
        unordered = controller.roster.unordered() if controller is not None else frozenset()
        mine = self.cluster.worker_spec if self.group is None else self.cluster.workers_of(self.group)
        absent = first_to_go(mine, running, unordered)
        return State(
            unlaunched=tuple(name for name in absent if name in unordered),
            booting=tuple(name for name in absent if name not in unordered),
            running=len(running),
            samples=self._samples,
        )

    async def _idlest(self, running: set[Any], n: int) -> list[Any]:
        """Return the `n` running workers that hold the least data, without those that are retiring already."""
        if not n:
            return []
        if self.group is None:
            suggested = await self.workers_to_close(target=len(running) - n)
        else:
            suggested = await self.scheduler.starburst_group_workers_to_close(group=self.group, n=n)
        return [name for name in suggested if name in running][:n]

    async def scale_up(self, n: int) -> None:
        """Request `n` workers.

        Parameters
        ----------
        n : int
            The number of workers, of its group.
        """
        if self.group is None:
            await super().scale_up(n)
        else:
            self.cluster.scale(n, group=self.group)

    async def scale_down(self, workers: Any) -> None:
        """Cancel the requests for these workers; the controller retires the running ones.

        Dask's own class waits here until all results have moved, and does not adapt meanwhile.

        Parameters
        ----------
        workers : iterable of int
            Names of workers.
        """
        await self.cluster.scale_down(workers)


#: The adaptive scaling that is running in this context. It lets `scale` distinguish its calls from a user's call, which
#: stops adaptive scaling, and ignore calls of an instance that has been stopped.
adapting: ContextVar[Any] = ContextVar("adapting", default=None)
#: Keywords of Scheduler.workers_to_close; Dask's Adaptive passes further keywords on to it.
_CHOICE = {"memory_ratio"}
#: Keywords of other packages, and ours for the same.
_OTHER_PACKAGES = {"minimum_jobs": "minimum", "maximum_jobs": "maximum"}


def mark_calls(adaptive: Adaptive) -> Adaptive:
    """Set `adapting` during each call of this adaptive scaling, which may be of any class."""
    kind, self = type(adaptive), ref(adaptive)

    async def adapt() -> None:
        token = adapting.set(self())
        try:
            await kind.adapt(self())
        finally:
            adapting.reset(token)

    adaptive.adapt = adapt
    return adaptive


def check_keywords(kind: Any, given: Iterable[str]) -> None:
    """Refuse unknown keywords: Dask's own class accepts any, and passes them on to the scheduler.

    Raises
    ------
    BadArgument
        A keyword is unknown; the message suggests a similar one.
    """
    for name in given:
        if name in _OTHER_PACKAGES:
            said = f"adapt({name}=…) is an argument of dask-jobqueue, where a job may have several workers"
            raise BadArgument(f"{said}; give {_OTHER_PACKAGES[name]}=… in workers.")
    init = getattr(kind, "__init__", None)
    if init is not CloudAdaptive.__init__ and init is not Adaptive.__init__:
        return  # a user's class, which may take any keyword
    own = {*signature(CloudAdaptive.__init__).parameters} - {"self", "cluster", "kwargs", "group"}
    known = sorted({*own, *BOUNDS, *_CHOICE})
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BadArgument(f"adapt() has no argument {name!r}; its arguments are {', '.join(known)}.{hint}")


def of_group(kind: Any, patient: Any, group: str) -> Any:
    """Return the adaptive class for one worker group of a cluster with several.

    Raises
    ------
    BadArgument
        The class does not know groups.
    """
    if not (isinstance(kind, type) and issubclass(kind, CloudAdaptive)):
        raise BadArgument(
            f"adapt(Adaptive={getattr(kind, '__name__', kind)}) cannot scale one of several worker groups; give a"
            " subclass of dask_starburst's CloudAdaptive, or no worker_groups."
        )
    return partial(patient, group=group)


def with_patience(
    kind: Any, after: float | str | None, settings: AdaptiveSettings, patience: Patience, options: dict[str, Any]
) -> Any:
    """Return the adaptive class with its patience as a keyword argument that it accepts.

    Parameters
    ----------
    kind : type
        :class:`CloudAdaptive`, or any class with the arguments of :class:`distributed.deploy.Adaptive`.
    after : float or str, optional
        ``scale_down_after``, if the user gave it.
    settings : AdaptiveSettings
        The defaults for what the user did not give.
    patience : Patience
        The default if neither says anything.
    options : dict
        The other keyword arguments that the class gets.
    """
    if isinstance(kind, type) and issubclass(kind, CloudAdaptive):
        return partial(kind, scale_down_after=after)
    chosen = after if after is not None else settings.scale_down_after
    seconds = parse_timedelta(chosen) if chosen is not None else patience.after(StartupTimes())
    interval = parse_timedelta(options.get("interval") or settings.interval)
    return partial(kind, wait_count=1 + (ceil(seconds / interval) if interval else 0))
