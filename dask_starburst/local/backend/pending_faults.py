"""Faults that wait for the next instance to boot or the next task to start."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from dask_starburst.local.backend.state import Ec2Instance, Task
from dask_starburst.local.faults.events import (
    AgentNever,
    ExecFormat,
    Instances,
    LatePlacement,
    NextInstances,
    NextTasks,
    PullFailure,
    SlowBoot,
    TaskStopsAtOnce,
)

_Boot = AgentNever | SlowBoot
_Start = PullFailure | ExecFormat | TaskStopsAtOnce
_T = TypeVar("_T")


@dataclass
class _Next:
    event: _Boot | _Start | LatePlacement
    left: float


class PendingFaults:
    """Holds faults until an instance or a task matches. The backend's lock must be held."""

    def __init__(self) -> None:
        self._waiting: list[_Next] = []

    def add(self, event: _Boot | _Start | LatePlacement) -> None:
        """Add a fault for the next instances or tasks that match."""
        self._waiting.append(_Next(event, math.inf if event.count is None else event.count))

    def clear(self) -> None:
        """Drop all pending faults."""
        self._waiting.clear()

    def registers(self, ec2_instance: Ec2Instance) -> bool:
        """Return whether an instance that boots will register with ECS."""
        return self._take(AgentNever, lambda event: fits(event, ec2_instance)) is None

    def delay(self, ec2_instance: Ec2Instance) -> float:
        """Return the extra boot time of an instance in seconds."""
        slow = self._take(SlowBoot, lambda event: fits(event, ec2_instance))
        return 0.0 if slow is None else slow.seconds

    def late_placement(self, family: str) -> LatePlacement | None:
        """Return how a new task of a family is placed late; None if it is placed at once."""
        return self._take(LatePlacement, lambda event: like(family, event.family))

    def pull_fails(self, task: Task) -> bool:
        """Return whether the image pull of a task fails."""
        return self._take(PullFailure, lambda event: _of_family(event, task)) is not None

    def false_start(self, task: Task) -> tuple[int, str] | None:
        """Return the exit code and last log line of a container that exits at once; None if it starts normally."""
        wrong = self._take(ExecFormat, lambda event: _of_family(event, task))
        if wrong is not None:
            return wrong.exit_code, "exec {program}: exec format error"
        stops = self._take(TaskStopsAtOnce, lambda event: _of_family(event, task))
        return None if stops is None else (stops.exit_code, stops.log)

    def _take(self, kind: type[_T], fits: Callable[[_T], bool]) -> _T | None:
        for one in self._waiting:
            if isinstance(one.event, kind) and fits(one.event):
                one.left -= 1
                self._waiting = [other for other in self._waiting if other.left > 0]
                return one.event
        return None


def fits(event: NextInstances | Instances, ec2_instance: Ec2Instance) -> bool:
    """Return whether an event matches an instance."""
    requested = (
        (event.type, ec2_instance.instance_type),
        (event.zone, ec2_instance.zone),
        (event.market, ec2_instance.lifecycle),
    )
    return all(one in (None, has) for one, has in requested) and like(ec2_instance.group, event.group)


def like(name: str | None, pattern: str | None) -> bool:
    """Return whether a name matches a pattern; None matches every name."""
    return pattern is None or fnmatchcase(name or "", pattern)


def _of_family(event: NextTasks, task: Task) -> bool:
    return like(task.definition.family, event.family)
