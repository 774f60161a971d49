"""What goes wrong with the next instances to boot and the next tasks to start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from dask_starburst.local.backend.state import Machine, Task
from dask_starburst.local.faults.events import (
    AgentNever,
    ExecFormat,
    Instances,
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
    event: _Boot | _Start
    left: int


class Luck:
    """Holds bad luck until somebody fits it. Call it with the world's lock held."""

    def __init__(self) -> None:
        self._waiting: list[_Next] = []

    def add(self, event: _Boot | _Start) -> None:
        """Let an event happen to the next that it fits."""
        self._waiting.append(_Next(event, event.count))

    def clear(self) -> None:
        """Forget all that has not happened."""
        self._waiting.clear()

    def registers(self, machine: Machine) -> bool:
        """Return whether an instance that boots will register with ECS."""
        return self._take(AgentNever, lambda event: fits(event, machine)) is None

    def delay(self, machine: Machine) -> float:
        """Return how many seconds more than usual an instance takes to boot."""
        slow = self._take(SlowBoot, lambda event: fits(event, machine))
        return 0.0 if slow is None else slow.seconds

    def pull_fails(self, task: Task) -> bool:
        """Return whether the image of a task cannot be pulled."""
        return self._take(PullFailure, lambda event: _of_family(event, task)) is not None

    def false_start(self, task: Task) -> tuple[int, str] | None:
        """Return the exit code and the last line with which a task's container ends at once."""
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


def fits(event: NextInstances | Instances, machine: Machine) -> bool:
    """Whether an event may happen to an instance."""
    wanted = ((event.type, machine.instance_type), (event.zone, machine.zone), (event.market, machine.lifecycle))
    return all(one in (None, has) for one, has in wanted) and like(machine.group, event.group)


def like(name: str | None, pattern: str | None) -> bool:
    """Whether a name is like a pattern; every one is like None."""
    return pattern is None or fnmatchcase(name or "", pattern)


def _of_family(event: NextTasks, task: Task) -> bool:
    return like(task.definition.family, event.family)
