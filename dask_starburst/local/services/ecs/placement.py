"""ECS task placement: eligible instances, and the reasons of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from dask_starburst.local.backend.state import Cluster, ContainerInstance, Task
from dask_starburst.local.services.ecs.query import matches


@dataclass(frozen=True)
class Demand:
    """The requirements of a task on its instance."""

    cpu: int
    memory: int
    ports: tuple[int, ...]
    architecture: str | None
    group: str
    distinct: bool
    expressions: tuple[str, ...]
    zones: frozenset[str] | None = None  # of the subnets for its own interface

    def refusal(self, instance: ContainerInstance) -> str | None:
        """Return ECS's reason why an instance cannot run the task; None if it can."""
        if not instance.connected:
            return "AGENT"
        if self.architecture is not None and instance.ec2_instance.architecture != self.architecture:
            return "ATTRIBUTE"
        if self.zones is not None and instance.ec2_instance.zone not in self.zones:
            return "ATTRIBUTE"
        if self.distinct and instance.groups.get(self.group):
            return "DISTINCT_INSTANCE"
        if self.expressions and not all(matches(instance, one) for one in self.expressions):
            return "MEMBEROF"
        if instance.free_cpu < self.cpu:
            return "RESOURCE:CPU"
        if instance.free_memory < self.memory:
            return "RESOURCE:MEMORY"
        if any(port in instance.ports for port in self.ports):
            return "RESOURCE:PORTS"
        if self.zones is not None and not _has_room_for_an_interface(instance):
            return "RESOURCE:ENI"
        return None


class NoCapacityError(Exception):
    """There are no active instances. ``reason`` is ECS's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def candidates(cluster: Cluster, provider: str | None) -> list[ContainerInstance]:
    """Return the active instances of a cluster or of one of its capacity providers.

    Raises
    ------
    NoCapacityError
        There are none.
    """
    instances = [one for one in cluster.instances.values() if provider is None or one.provider == provider]
    if provider is not None and not instances:
        raise NoCapacityError("EMPTY CAPACITY PROVIDER")
    active = [one for one in instances if one.status == "ACTIVE"]
    if provider is not None and not active:
        raise NoCapacityError("NO ACTIVE INSTANCES")
    return active


def place(
    instances: list[ContainerInstance],
    demand: Demand,
    count: int,
    strategy: Iterable[dict[str, Any]],
    start: Callable[[ContainerInstance], Task],
) -> tuple[list[Task], list[dict[str, str]]]:
    """Place equal tasks one after the other.

    Because they are equal, an instance that refuses one refuses the rest: every instance is checked only a few
    times a call, whatever the number of tasks.

    Returns
    -------
    tuple of list of Task and list of dict
        The placed tasks; and, if some were not placed, the failures of the instances.
    """
    refused: dict[str, str] = {}
    tasks: list[Task] = []
    for instance in _rounds(instances, strategy, refused):
        if len(tasks) == count:
            break
        reason = demand.refusal(instance)
        if reason is None:
            tasks.append(start(instance))
        else:
            refused[instance.arn] = reason
    if len(tasks) == count:
        return tasks, []
    return tasks, [{"arn": arn, "reason": reason} for arn, reason in refused.items()]


def late_reason(failures: list[dict[str, str]]) -> str:
    """Return the stop reason of a task that could not be placed after RunTask had returned it.

    ECS gives one reason. The instances outside of a placement constraint say the least, so the others come first.
    """
    reasons = [failure["reason"] for failure in failures]
    best = next((reason for reason in reasons if reason != "MEMBEROF"), "MEMBEROF")
    return "MemberOf placement constraint unsatisfied." if best == "MEMBEROF" else best


def _rounds(
    instances: list[ContainerInstance], strategy: Iterable[dict[str, Any]], refused: dict[str, str]
) -> Iterator[ContainerInstance]:
    """Yield instances in the order of a strategy until all have refused. The default is spread."""
    packed_by = [str(step.get("field", "")).lower() for step in strategy if step["type"] == "binpack"]
    pack = bool(packed_by)
    left = sorted(instances, key=lambda one: _rank(one, packed_by[0] if pack else None))
    while left:
        for instance in left:
            yield instance
            while pack and instance.arn not in refused:
                yield instance
        left = [one for one in left if one.arn not in refused]


def _rank(instance: ContainerInstance, packed_by: str | None) -> int:
    if packed_by is None:
        return len(instance.tasks)
    return instance.free_cpu if packed_by == "cpu" else instance.free_memory


def occupy(task: Task) -> None:
    """Reserve the resources of a task on its instance."""
    _change(task, 1)
    task.instance.tasks[task.id] = task


def release(task: Task) -> None:
    """Release the resources of a task on its instance."""
    if task.placed_on is not None and task.placed_on.tasks.pop(task.id, None) is not None:
        _change(task, -1)


def _has_room_for_an_interface(instance: ContainerInstance) -> bool:
    """Return whether an instance can attach one more interface. The first is its own; trunking is off."""
    taken = sum(task.interface is not None for task in instance.tasks.values())
    return taken + 1 < instance.ec2_instance.interfaces


def _change(task: Task, sign: int) -> None:
    instance = task.instance
    instance.free_cpu -= sign * task.cpu
    instance.free_memory -= sign * task.memory
    instance.version += 1
    for port in task.ports:
        instance.ports[port] = instance.ports.get(port, 0) + sign
        if not instance.ports[port]:
            del instance.ports[port]
    instance.groups[task.group] = instance.groups.get(task.group, 0) + sign
