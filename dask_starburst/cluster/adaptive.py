"""Adaptive scaling for machines that take a minute to come and cost money from the first second."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextvars import ContextVar
from difflib import get_close_matches
from functools import partial
from inspect import signature
from math import ceil
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
    """Follow the work as Dask's own does, with the patience that instances need.

    Parameters
    ----------
    cluster : StarburstCluster
        Whom to scale.
    interval : float or str, optional
        Seconds between two decisions. The work is looked at more often, five times but at most every second.
    minimum, maximum, target_duration, worker_key, **kwargs
        As in :class:`distributed.deploy.Adaptive`.
    wait_count : int, optional
        As in Dask: looks in a row in which a worker has to be superfluous. The same as a
        `scale_down_after` of ``(wait_count - 1) * interval``.
    scale_down_after : float or str, optional
        Nothing that has been launched is given up before fewer workers were enough for so long.
        Without it and without `wait_count`: the setting ``adaptive.scale-down-after``; without that
        too, what a boot takes here (:class:`.Patience`).
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
        **kwargs: Any,
    ) -> None:
        pace = parse_timedelta(interval if interval is not None else dask.config.get("distributed.adaptive.interval"))
        look = sample_every(pace)
        super().__init__(cluster, look, minimum, maximum, wait_count, target_duration, worker_key, **kwargs)
        self.interval = pace
        self._early = look / 2  # a look that comes a little early decides all the same
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
        """The present patience in seconds: as it was given, or what a boot takes here."""
        if self._chosen is not None:
            return self._chosen
        fleet, cloud = getattr(self.cluster, "_fleet", None), getattr(self.cluster, "_cloud", None)
        startups = fleet.startups.seen(fleet.pool.aws.now()) if fleet is not None else StartupTimes()
        return (cloud.patience if cloud is not None else Patience()).after(startups)

    async def target(self) -> int:
        """Return how many workers the work asks for, also while there is none to divide it by."""
        # Asked of the scheduler: what the client knows of its workers may be a second old.
        known = len(await self.scheduler.ncores())
        return workers_for(await super().target(), self.cluster._threads_per_worker(), known)

    async def recommendations(self, target: int) -> dict[str, Any]:
        """Turn the decision into what Dask's loop performs; between two decisions remember the target.

        Parameters
        ----------
        target : int
            Workers.

        Returns
        -------
        dict
            With the ``status`` ``"same"``, ``"up"`` (and ``n``) or ``"down"`` (and ``workers``).
        """
        now = time.monotonic()
        # Who waits for workers raises the floor; the maximum has the last word.
        least = max(self.minimum, getattr(self.cluster, "awaited", 0))
        limits = Limits(least, self.maximum, self.scale_down_after)
        if now < self._decide_at - self._early:
            self._samples = remember(self._samples, target, now, limits)
            return {"status": "same"}
        self._decide_at = now + self.interval
        if len(self.plan) != len(self.requested):
            await self.cluster
        running = self.plan & self.observed
        fleet = getattr(self.cluster, "_fleet", None)
        if fleet is not None and target > len(running):
            fleet.retry_rested()  # what was given up is asked for still, and is not there
        state = self._state(running)
        decision = recommend(state, target, now, limits)
        self._samples = decision.samples
        if decision.target_workers > state.planned:
            return {"status": "up", "n": decision.target_workers}
        going = [*decision.cancel, *await self._least(running, decision.retire)]
        return {"status": "down", "workers": going} if going else {"status": "same"}

    def _state(self, running: set[Any]) -> State:
        fleet = getattr(self.cluster, "_fleet", None)
        unordered = fleet.unordered() if fleet is not None else frozenset()
        absent = first_to_go(self.cluster.worker_spec, running, unordered)
        return State(
            unlaunched=tuple(name for name in absent if name in unordered),
            booting=tuple(name for name in absent if name not in unordered),
            running=len(running),
            samples=self._samples,
        )

    async def _least(self, running: set[Any], n: int) -> list[Any]:
        """Name the `n` running workers that hold least; those on their way out are not among them."""
        if not n:
            return []
        suggested = await self.workers_to_close(target=len(running) - n)
        return [name for name in suggested if name in running][:n]

    async def scale_down(self, workers: Any) -> None:
        """Take back these wishes; the fleet retires those that run.

        Dask's own waits here until the last result has moved, and looks at no new work meanwhile.

        Parameters
        ----------
        workers : iterable of int
            Names.
        """
        await self.cluster.scale_down(workers)


#: The adaptive scaling whose look is under way in this context. So `scale` tells its requests from those of people,
#: of which one ends adaptive scaling; and those of one that has been stopped meanwhile are passed over.
adapting: ContextVar[Any] = ContextVar("adapting", default=None)
#: What Scheduler.workers_to_close takes besides, which is where Dask's own Adaptive hands further keywords to.
_CHOICE = {"memory_ratio"}
#: The same question in other packages' words.
_ELSEWHERE = {"minimum_jobs": "minimum", "maximum_jobs": "maximum"}


def marked(adaptive: Adaptive) -> Adaptive:
    """Have `adapting` say, during each look of it, that it is this one; any class of adaptive scaling may be given."""
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
    """Refuse keywords that nothing would come of: Dask's own class takes all, and hands them to the scheduler.

    Raises
    ------
    BadArgument
        It says which one was meant, as far as that can be guessed.
    """
    for name in given:
        if name in _ELSEWHERE:
            said = f"adapt({name}=…) is of dask-jobqueue, where one job may be several workers"
            raise BadArgument(f"{said}; give {_ELSEWHERE[name]}=… in workers.")
    init = getattr(kind, "__init__", None)
    if init is not CloudAdaptive.__init__ and init is not Adaptive.__init__:
        return  # a user's own class, which may take any keyword
    own = {*signature(CloudAdaptive.__init__).parameters} - {"self", "cluster", "kwargs"}
    known = sorted({*own, *BOUNDS, *_CHOICE})
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BadArgument(f"adapt() has no argument {name!r}; it has {', '.join(known)}.{hint}")


def with_patience(
    kind: Any, after: float | str | None, settings: AdaptiveSettings, patience: Patience, options: dict[str, Any]
) -> Any:
    """Return the class to adapt with, given the patience in the way that it understands.

    Parameters
    ----------
    kind : type
        Ours, or any that takes what :class:`distributed.deploy.Adaptive` takes.
    after : float or str, optional
        ``scale_down_after``, where the user gave it.
    settings : AdaptiveSettings
        For what the user has not given.
    patience : Patience
        For what neither says.
    options : dict
        The keyword arguments that it will get besides.
    """
    if isinstance(kind, type) and issubclass(kind, CloudAdaptive):
        return partial(kind, scale_down_after=after)
    chosen = after if after is not None else settings.scale_down_after
    seconds = parse_timedelta(chosen) if chosen is not None else patience.after(StartupTimes())
    interval = parse_timedelta(options.get("interval") or settings.interval)
    return partial(kind, wait_count=1 + (ceil(seconds / interval) if interval else 0))
