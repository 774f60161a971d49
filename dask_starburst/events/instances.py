"""Events of EC2 instances."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dask_starburst.events.event import HEAD, InstanceEvent


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLaunched(InstanceEvent):
    """An instance of a worker group is booting, or is `warm`: launched before, and ready."""

    kind = "instance-launched"
    type: str
    market: str
    placement: str
    group: str
    warm: bool = False

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        state = "is warm and ready for a task" if self.warm else "is booting"
        return f"instance {self.instance} ({self.type}, {self.market}) {state}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceConnected(InstanceEvent):
    """The ECS agent of an instance has connected; it can run a task."""

    kind = "instance-connected"
    placement: str

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"instance {self.instance} is ready for {'the scheduler' if self.placement == HEAD else 'a worker'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceTimestamps(InstanceEvent):
    """EC2's times of an instance (seconds since the epoch). `ended`: None while it runs. `taken`: interrupted."""

    kind = "instance-timestamps"
    level = logging.DEBUG
    launched: float
    ended: float | None
    zone: str
    taken: bool

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"instance {self.instance} was launched in {self.zone}{' and interrupted' if self.taken else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGivenUp(InstanceEvent):
    """An instance is terminated for a `reason`, because it is not usable. `seen`: its ECS agent had connected."""

    kind = "instance-given-up"
    level = logging.WARNING
    type: str
    reason: str
    seen: bool

    @property
    def message(self) -> str:
        """What happened, and what to check if it repeats."""
        text = f"instance {self.instance} ({self.type}) is given up: {self.reason}; requesting another one."
        if self.seen:
            return text
        return (
            f"{text} If this repeats: can the subnet reach ECS (a public subnet, NAT or endpoints), and does the"
            " instance role allow ecs:RegisterContainerInstance?"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceTerminated(InstanceEvent):
    """An instance is terminated."""

    kind = "instance-terminated"

    @property
    def message(self) -> str:
        """What happened, as one sentence."""
        return f"instance {self.instance} is terminated"
