"""The resources of an account, by kind: the difference of two inventories is what a product leaves behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from dask_starburst.plan.requests.policies import PARAMETER_ROOT

Inventory = Mapping[str, frozenset[str]]

#: Kinds that AWS charges for. Log groups: $0.03 a GB and month of their content.
COSTS = ("instances", "tasks", "volumes", "log groups")
_GONE = ("terminated", "STOPPED", "DELETED")


def take(aws: Any) -> Inventory:
    """List every resource that a cluster manager might leave; `aws` creates clients."""
    clients = {name: aws.client(name) for name in ("ec2", "ecs", "autoscaling", "iam", "logs", "ssm")}
    found: dict[str, frozenset[str]] = {}
    for part in (_ec2(clients["ec2"]), _ecs(clients["ecs"]), _others(clients)):
        found.update({kind: frozenset(names) for kind, names in part})
    return found


def left(before: Inventory, after: Inventory) -> dict[str, dict[str, int]]:
    """Return the number of new resources of each kind, divided into those that cost money and free ones."""
    new = {kind: len(after[kind] - before.get(kind, frozenset())) for kind in after}
    return {
        "costs": {kind: count for kind, count in new.items() if count and kind in COSTS},
        "free": {kind: count for kind, count in new.items() if count and kind not in COSTS},
    }


def is_settled(before: Inventory, after: Inventory) -> bool:
    """Whether no new resource runs any more, so that nothing will change without a call."""
    return not any(after[kind] - before[kind] for kind in ("instances", "tasks", "volumes", "network interfaces"))


def _pages(client: Any, operation: str, key: str, **arguments: Any) -> Iterator[Any]:
    for page in client.get_paginator(operation).paginate(**arguments):
        yield from page[key]


def _ec2(ec2: Any) -> Iterator[tuple[str, list[str]]]:
    instances = [one for r in _pages(ec2, "describe_instances", "Reservations") for one in r["Instances"]]
    yield "instances", [one["InstanceId"] for one in instances if one["State"]["Name"] not in _GONE]
    yield "volumes", [one["VolumeId"] for one in _pages(ec2, "describe_volumes", "Volumes")]
    interfaces = _pages(ec2, "describe_network_interfaces", "NetworkInterfaces")
    yield "network interfaces", [one["NetworkInterfaceId"] for one in interfaces]
    yield "security groups", [one["GroupId"] for one in _pages(ec2, "describe_security_groups", "SecurityGroups")]
    templates = _pages(ec2, "describe_launch_templates", "LaunchTemplates")
    yield "launch templates", [one["LaunchTemplateId"] for one in templates]


def _ecs(ecs: Any) -> Iterator[tuple[str, list[str]]]:
    clusters = list(_pages(ecs, "list_clusters", "clusterArns"))
    yield "clusters", clusters
    yield "tasks", [arn for cluster in clusters for arn in _live_tasks(ecs, cluster)]
    for status in ("ACTIVE", "INACTIVE"):
        arns = _pages(ecs, "list_task_definitions", "taskDefinitionArns", status=status)
        yield f"task definitions, {status.lower()}", list(arns)
    providers = ecs.describe_capacity_providers()["capacityProviders"]
    yield "capacity providers", [one["name"] for one in providers if not one["name"].startswith("FARGATE")]


def _live_tasks(ecs: Any, cluster: str) -> Iterator[str]:
    for desired in ("RUNNING", "STOPPED"):
        arns = list(_pages(ecs, "list_tasks", "taskArns", cluster=cluster, desiredStatus=desired))
        for start in range(0, len(arns), 100):
            tasks = ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + 100])["tasks"]
            yield from (task["taskArn"] for task in tasks if task["lastStatus"] not in _GONE)


def _others(clients: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    groups = _pages(clients["autoscaling"], "describe_auto_scaling_groups", "AutoScalingGroups")
    yield "Auto Scaling groups", [one["AutoScalingGroupName"] for one in groups]
    iam = clients["iam"]
    yield "roles", [one["RoleName"] for one in _pages(iam, "list_roles", "Roles")]
    profiles = _pages(iam, "list_instance_profiles", "InstanceProfiles")
    yield "instance profiles", [one["InstanceProfileName"] for one in profiles]
    yield "log groups", [one["logGroupName"] for one in _pages(clients["logs"], "describe_log_groups", "logGroups")]
    # Only below our path: dask-cloudprovider creates none, and the others are AWS's thousands of public parameters.
    parameters = _pages(clients["ssm"], "get_parameters_by_path", "Parameters", Path=PARAMETER_ROOT, Recursive=True)
    yield "parameters", [one["Name"] for one in parameters]
