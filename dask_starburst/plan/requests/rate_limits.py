"""AWS's request limits as token buckets, so that calls wait instead of being throttled.

All actions of a bucket share it, per account and region, with every other client of the account: so only a
part of it is used. The numbers of ECS are those of "Request throttling for the Amazon ECS API" (aws-facts
§1.1), of EC2 those of its API's page (§1.3), of SSM and CloudWatch Logs their published rates (§1.5, the
smallest of any region), of Service Quotas those of "Service quotas for Service Quotas" (its user guide, read
2026-11: 5 a second for each action, and 5 more in a burst; here they share two buckets). Auto Scaling publishes
only that its whole API shares one bucket (§1.4): its size here is an estimate well below the likely limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: The share of a published bucket that is used: calls may arrive closer together than they were sent.
SHARE = 0.9


@dataclass(frozen=True, slots=True)
class Limit:
    """Capacity of a bucket in calls, and calls added per second."""

    burst: float
    refill: float


@dataclass(frozen=True, slots=True)
class Level:
    """Tokens of a bucket (calls; negative: reserved in advance) at a time (seconds)."""

    tokens: float
    at: float


LIMITS: Mapping[str, Limit] = {
    "ecs cluster resource modify": Limit(100, 40),
    "ecs cluster resource read": Limit(100, 20),
    "ecs task definition modify": Limit(20, 1),
    "ecs task definition read": Limit(50, 20),
    "ecs cluster modify": Limit(20, 1),
    "ecs cluster read": Limit(50, 20),
    "ecs capacity provider modify": Limit(10, 1),
    "ecs capacity provider read": Limit(50, 20),
    "ec2 read": Limit(50, 10),
    "ec2 modify": Limit(50, 5),
    "autoscaling": Limit(50, 10),  # an estimate
    "ssm read": Limit(40, 40),
    "ssm modify": Limit(3, 3),
    "logs": Limit(10, 10),
    "service-quotas get": Limit(10, 5),
    "service-quotas list": Limit(10, 5),
}

_READ = ("Describe", "List", "Get")
_ECS = {
    "RunTask": "ecs cluster resource modify",
    "StopTask": "ecs cluster resource modify",
    "DeregisterContainerInstance": "ecs cluster resource modify",
    "DescribeTasks": "ecs cluster resource read",
    "ListTasks": "ecs cluster resource read",
    "DescribeContainerInstances": "ecs cluster resource read",
    "ListContainerInstances": "ecs cluster resource read",
    "RegisterTaskDefinition": "ecs task definition modify",
    "DeregisterTaskDefinition": "ecs task definition modify",
    "DescribeTaskDefinition": "ecs task definition read",
    "ListTaskDefinitions": "ecs task definition read",
    "ListTaskDefinitionFamilies": "ecs task definition read",
    "CreateCluster": "ecs cluster modify",
    "DeleteCluster": "ecs cluster modify",
    "PutClusterCapacityProviders": "ecs cluster modify",
    "DescribeClusters": "ecs cluster read",
    "ListClusters": "ecs cluster read",
    "CreateCapacityProvider": "ecs capacity provider modify",
    "DeleteCapacityProvider": "ecs capacity provider modify",
    "DescribeCapacityProviders": "ecs capacity provider read",
}


def bucket_of(service: str, operation: str) -> str | None:
    """Return the bucket of an action; None if AWS publishes no relevant limit."""
    if service == "ecs":
        return _ECS.get(operation)
    if service in ("ec2", "ssm"):
        return f"{service} {'read' if operation.startswith(_READ) else 'modify'}"
    if service == "service-quotas":
        return f"{service} {'list' if operation.startswith('List') else 'get'}"
    return service if service in LIMITS else None


def take(limit: Limit, level: Level | None, now: float) -> tuple[Level, float]:
    """Take a token from a bucket, or reserve a future one.

    Parameters
    ----------
    limit : Limit
        The published size.
    level : Level, optional
        Its last level; None if full.
    now : float
        Seconds of a monotonic clock.

    Returns
    -------
    tuple of Level and float
        The new level, and the seconds to wait before the call.
    """
    burst, refill = max(1.0, limit.burst * SHARE), limit.refill * SHARE
    tokens = burst if level is None else min(burst, level.tokens + (now - level.at) * refill)
    left = tokens - 1
    return Level(left, now), max(0.0, -left / refill)
