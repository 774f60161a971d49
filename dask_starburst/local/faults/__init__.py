"""Faults that a test can inject into an embedded AWS, and reproducible scenarios of faults."""

from __future__ import annotations

from dask_starburst.local.faults.event import Event
from dask_starburst.local.faults.events import (
    AgentLost,
    AgentNever,
    Capacity,
    Clear,
    Error,
    ExecFormat,
    FreshProfile,
    HostDeath,
    Interrupt,
    Invisible,
    LatePlacement,
    LostResponse,
    OutOfMemory,
    PullFailure,
    Quota,
    Rebalance,
    Refuses,
    SlowBoot,
    SpotPrice,
    TaskDeath,
    TaskStopsAtOnce,
    Throttle,
    Timeout,
)
from dask_starburst.local.faults.scenario import Scenario

__all__ = [
    "AgentLost",
    "AgentNever",
    "Capacity",
    "Clear",
    "Error",
    "Event",
    "ExecFormat",
    "FreshProfile",
    "HostDeath",
    "Interrupt",
    "Invisible",
    "LatePlacement",
    "LostResponse",
    "OutOfMemory",
    "PullFailure",
    "Quota",
    "Rebalance",
    "Refuses",
    "Scenario",
    "SlowBoot",
    "SpotPrice",
    "TaskDeath",
    "TaskStopsAtOnce",
    "Throttle",
    "Timeout",
]
