"""AWS's request throttling: token buckets that several actions share.

The buckets of ECS are those of "Request throttling for the Amazon ECS API", per account and region:
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html. They are off until somebody turns
them on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A bucket: how many calls it holds, and how many come back in a second."""

    burst: float
    refill: float


LIMITS: Mapping[str, Limit] = {
    "ecs cluster resource modify": Limit(100, 40),
    "ecs cluster resource read": Limit(100, 20),
    "ecs task definition modify": Limit(20, 1),
    "ecs task definition read": Limit(50, 20),
    "ecs task definition delete": Limit(5, 1),
    "ecs cluster modify": Limit(20, 1),
    "ecs cluster read": Limit(50, 20),
    "ecs capacity provider modify": Limit(10, 1),
    "ecs capacity provider read": Limit(50, 20),
    "ecs tags modify": Limit(20, 10),
    "ecs tags read": Limit(50, 20),
    "ecs settings read": Limit(50, 20),
}

_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "ecs cluster resource modify": (
        "RunTask",
        "StartTask",
        "StopTask",
        "DeregisterContainerInstance",
        "ExecuteCommand",
        "PutAttributes",
        "DeleteAttributes",
        "UpdateContainerAgent",
        "UpdateContainerInstancesState",
    ),
    "ecs cluster resource read": (
        "DescribeTasks",
        "ListTasks",
        "DescribeContainerInstances",
        "ListContainerInstances",
        "ListAttributes",
    ),
    "ecs task definition modify": ("RegisterTaskDefinition", "DeregisterTaskDefinition"),
    "ecs task definition read": ("DescribeTaskDefinition", "ListTaskDefinitions", "ListTaskDefinitionFamilies"),
    "ecs task definition delete": ("DeleteTaskDefinitions",),
    "ecs cluster modify": ("CreateCluster", "DeleteCluster", "PutClusterCapacityProviders", "UpdateCluster"),
    "ecs cluster read": ("DescribeClusters", "ListClusters"),
    "ecs capacity provider modify": ("CreateCapacityProvider", "DeleteCapacityProvider", "UpdateCapacityProvider"),
    "ecs capacity provider read": ("DescribeCapacityProviders",),
    "ecs tags modify": ("TagResource", "UntagResource"),
    "ecs tags read": ("ListTagsForResource",),
    "ecs settings read": ("ListAccountSettings",),
}
BUCKET_OF: Mapping[str, str] = {f"ecs:{action}": name for name, actions in _ACTIONS.items() for action in actions}


class Throttle:
    """Decides of each call whether it is one too many.

    Parameters
    ----------
    now : callable
        The time that refills the buckets, in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._levels: dict[str, tuple[float, float]] = {}  # tokens left, when that was so
        self.enabled = False

    def admit(self, call: str) -> bool:
        """Take a token for a call like ``"ecs:RunTask"``. False means that there was none."""
        name = BUCKET_OF.get(call)
        if not self.enabled or name is None:
            return True
        limit, now = LIMITS[name], self._now()
        with self._lock:
            tokens, when = self._levels.get(name, (limit.burst, now))
            tokens = min(limit.burst, tokens + (now - when) * limit.refill)
            admitted = tokens >= 1
            self._levels[name] = (tokens - 1 if admitted else tokens, now)
        return admitted
