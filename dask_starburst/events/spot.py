"""Events of Spot interruptions, and of workers that leave their instance."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dask_starburst.events.event import ProcessEvent

_THEN = "it transfers its data and is replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Leaving(ProcessEvent):
    """The base of events about a worker whose instance is taken; `instance` and `type` are empty if unknown."""

    instance: str
    type: str

    @property
    def place(self) -> str:
        """The instance in a sentence."""
        return f"{self.instance} ({self.type})" if self.instance else "its instance"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotInterruption(_Leaving):
    """AWS takes an instance in `seconds`. `replaced`: its worker is replaced; else it was retiring already."""

    kind = "spot-interruption"
    level = logging.WARNING
    seconds: float
    replaced: bool

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        what = f"Spot interruption of {self.place} in {self.seconds:.0f} s"
        return f"{self.label} is leaving: {what}; {_THEN if self.replaced else 'it is retiring already'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotRebalance(_Leaving):
    """AWS recommends to leave an instance. `ignored`: its worker stays; `why` says the reason."""

    kind = "spot-rebalance"
    ignored: bool
    why: str = ""

    @property
    def level(self) -> int:
        """INFO if it is ignored."""
        return logging.INFO if self.ignored else logging.WARNING

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        then = f"ignored: {self.why}" if self.ignored else "replacing it before it is retired"
        return f"{self.label} has a rebalance recommendation for {self.place}: {then}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLeaving(_Leaving):
    """An instance is drained or stopped without a Spot notice; its worker is replaced."""

    kind = "worker-leaving"
    level = logging.WARNING

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} is leaving: {self.place} is drained or stopped; {_THEN}"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMovesBack(ProcessEvent):
    """A worker that fell back moves to its first `placement` again, once there is an instance."""

    kind = "worker-moves-back"
    placement: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.label} moves back to {self.placement} once an instance is available there"
