"""Events of requested capacity, refusals and quotas."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dask_starburst.events.event import Event, PlacementEvent, PoolEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityRequested(PlacementEvent):
    """The desired capacity of an Auto Scaling group was set."""

    kind = "capacity-requested"
    desired: int

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"group {self.placement}: requested {self.desired} instance{'' if self.desired == 1 else 's'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypesChosen(PlacementEvent):
    """An Auto Scaling group launches only these instance types from now on."""

    kind = "types-chosen"
    level = logging.DEBUG
    types: tuple[str, ...]

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"group {self.placement}: launching only {', '.join(self.types)} from now on"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchFailed(PlacementEvent):
    """AWS refused a launch. `why`: ``capacity``, ``quota``, ``fault`` or ``passing``; `text` has AWS's message."""

    kind = "launch-failed"
    level = logging.WARNING
    type: str
    why: str
    text: str

    @property
    def message(self) -> str:
        """What AWS refused and why, what else was tried, and the next step."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaShort(PoolEvent):
    """The account's quotas allow only some `workers` of those `requested`. `text` says which quota and what to do."""

    kind = "quota-short"
    level = logging.WARNING
    workers: int
    requested: int
    text: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"{self.text} Until then the other workers wait." if self.requested else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaUnknown(Event):
    """The account's quotas could not be read; the launch is not checked."""

    kind = "quota-unknown"
    region: str
    why: str

    @property
    def subject(self) -> str:
        """The region."""
        return self.region

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"vCPU quotas are unknown, launching without a check: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SparesRequested(PoolEvent):
    """Spare instances are kept ready while the cluster runs. `text` has their price."""

    kind = "spares-requested"
    type: str
    count: int
    text: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return self.text
