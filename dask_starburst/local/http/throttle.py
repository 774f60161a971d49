"""AWS's request throttling: token buckets shared by several actions.

The buckets of ECS are those of "Request throttling for the Amazon ECS API", per account and region:
https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html. EC2 has one for each action, by
"Request throttling for the Amazon EC2 API": https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html.
Its lower limits for unfiltered lists, and those by the number of resources, are not simulated. Throttling is off by
default.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Limit:
    """A bucket: its size, and its refill rate in calls a second."""

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


_EC2_READS = ("Describe", "Get", "List", "Search")
_EC2_READ, _EC2_WRITE = Limit(100, 20), Limit(50, 5)
_EC2_OTHERS: Mapping[str, Limit] = {
    "RunInstances": Limit(5, 2),
    "StartInstances": Limit(5, 2),
    "TerminateInstances": Limit(100, 5),
    "CreateTags": Limit(100, 10),
    "CreateLaunchTemplateVersion": Limit(100, 5),
    "CreateNetworkInterface": Limit(100, 5),
}


def bucket_of(call: str) -> tuple[str, Limit] | None:
    """Return the name and limit of the bucket of a call such as ``"ecs:RunTask"``; None if it is not limited."""
    service, _, action = call.partition(":")
    if service == "ec2":
        return call, _EC2_OTHERS.get(action, _EC2_READ if action.startswith(_EC2_READS) else _EC2_WRITE)
    name = BUCKET_OF.get(call)
    return None if name is None else (name, LIMITS[name])


class Throttle:
    """Throttles calls.

    Parameters
    ----------
    now : callable
        The time in seconds, for refilling the buckets.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._levels: dict[str, tuple[float, float]] = {}  # tokens left, at this time
        self.enabled = False

    def admit(self, call: str) -> bool:
        """Take a token for a call such as ``"ecs:RunTask"``; return False if the bucket is empty."""
        bucket = bucket_of(call)
        if not self.enabled or bucket is None:
            return True
        (name, limit), now = bucket, self._now()
        with self._lock:
            tokens, when = self._levels.get(name, (limit.burst, now))
            tokens = min(limit.burst, tokens + (now - when) * limit.refill)
            admitted = tokens >= 1
            self._levels[name] = (tokens - 1 if admitted else tokens, now)
        return admitted
