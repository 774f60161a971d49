"""Events of a whole Dask cluster, and of its hooks."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from dask_starburst.events.event import ClusterEvent, Event, PoolEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveStopped(ClusterEvent):
    """``scale(n)`` has stopped adaptive scaling, which kept `minimum` to `maximum` workers.

    `group`: the worker group; empty for the default one.
    """

    kind = "adaptive-stopped"
    n: int
    minimum: float
    maximum: float
    group: str = ""

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        limits = f"{self.minimum} to {self.maximum} workers"
        group = f", group={self.group!r}" if self.group else ""
        return f"scale({self.n}{group}) stops adaptive scaling ({limits}); adapt() starts it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitExceedsMaximum(ClusterEvent):
    """``wait_for_workers(n)`` waits for more workers than adaptive scaling allows."""

    kind = "wait-exceeds-maximum"
    level = logging.WARNING
    n: int
    maximum: float

    @property
    def message(self) -> str:
        """What happened, and what to call instead."""
        return (
            f"wait_for_workers({self.n}) waits for more workers than adaptive scaling allows: maximum={self.maximum:g}."
            f" Call adapt(maximum={self.n}) or scale({self.n})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DaskError(PoolEvent):
    """An `action` through Dask's scheduler failed."""

    kind = "dask-error"
    level = logging.WARNING
    action: str
    error: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.action} failed: {self.error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFailed(PoolEvent):
    """The cluster cannot continue, and closes."""

    kind = "cluster-failed"
    level = logging.ERROR
    error: str

    @property
    def message(self) -> str:
        """The text of the error."""
        return self.error


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterClosed(ClusterEvent):
    """The cluster is closed. It cost `usd` US dollars; `cost` is the text with the sources of the prices."""

    kind = "cluster-closed"
    usd: float
    cost: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"cluster {self.cluster} is closed; it cost {self.cost}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationLeftOut(Event):
    """The part `names` of the client's Dask configuration does not go to the workers; `text` has the reasons."""

    kind = "configuration-left-out"
    level = logging.WARNING
    names: str
    text: str

    @property
    def subject(self) -> str:
        """The names."""
        return self.names

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"the scheduler and the workers do not get this part of your Dask configuration: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookFailed(ClusterEvent):
    """A `method` of a lifecycle hook failed; the cluster continues."""

    kind = "hook-failed"
    level = logging.WARNING
    hook: str
    method: str
    error: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.method} of the hook {self.hook} failed: {self.error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookMessage(Event):
    """A message of a user's own hook, with a `kind`, a `subject`, a `text` and a logging `level` of its choice."""

    # A field needs an explicit `field()` here: else it takes the property of the base class for its default.
    kind: str = field()
    subject: str = field()
    text: str
    level: int = logging.INFO

    @property
    def message(self) -> str:
        """The text."""
        return self.text
