"""The ECS API: describe and list tasks."""

from __future__ import annotations

from typing import Any

from dask_starburst.local.backend.backend import Backend, tag_list
from dask_starburst.local.backend.state import Cluster, Container, ContainerInstance, Interface, Task
from dask_starburst.local.http.protocols import Reply, Request
from dask_starburst.local.services.ecs.common import (
    check_batch,
    find_cluster,
    find_instance,
    find_task,
    invalid,
    listing,
    missing,
    short,
    with_token,
)


class TaskViews:
    """Describe and list tasks."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def describe_tasks(self, request: Request) -> Reply:
        """Describe tasks, at most 100 at a time."""
        cluster = find_cluster(self._backend, request.get("cluster"))
        check_batch(request["tasks"], "Tasks")
        with_tags = "TAGS" in request.get("include", [])
        tasks, failures = [], []
        for name in request["tasks"]:
            task = find_task(cluster, name)
            if task is None or self._backend.consistency.hides("tasks", task.created_at):
                prefix = cluster.arn.replace(":cluster/", ":task/")
                failures.append(missing(name if name.startswith("arn:") else f"{prefix}/{name}"))
            else:
                tasks.append(described(task, with_tags))
        return {"tasks": tasks, "failures": failures}

    def list_tasks(self, request: Request) -> Reply:
        """List the ARNs of tasks, by default with the desired status RUNNING."""
        cluster = find_cluster(self._backend, request.get("cluster"))
        others = [key for key in ("family", "serviceName", "containerInstance", "launchType") if request.get(key)]
        if request.get("startedBy") and others:
            raise invalid("startedBy must be the only filter.")
        arns = sorted(task.arn for task in self._chosen(cluster, request))
        chosen, token = listing(arns, request)
        return with_token({"taskArns": chosen}, token)

    def _chosen(self, cluster: Cluster, request: Request) -> list[Task]:
        desired = request.get("desiredStatus", "RUNNING")
        started_by, family = request.get("startedBy"), request.get("family")
        launch_type, on = request.get("launchType"), request.get("containerInstance")
        if request.get("serviceName"):
            return []
        if on is not None:
            instance = find_instance(cluster, on)
            if instance is None:
                raise invalid("Referenced container instance not found.")
            on = instance.arn
        return [
            task
            for task in cluster.tasks.values()
            if task.desired == desired
            and not self._backend.consistency.hides("tasks", task.created_at)
            and started_by in (None, task.started_by)
            and family in (None, task.definition.family)
            and launch_type in (None, task.launch_type)
            and on in (None, task.placed_on and task.placed_on.arn)
        ]


def described(task: Task, with_tags: bool = True) -> dict[str, Any]:
    """Format a task as in DescribeTasks."""
    shown: dict[str, Any] = {
        "taskArn": task.arn,
        "clusterArn": task.arn.split(":task/")[0] + f":cluster/{task.cluster}",
        "taskDefinitionArn": task.definition.arn,
        "lastStatus": task.status,
        "desiredStatus": task.desired,
        "cpu": task.shown_cpu,
        "memory": task.shown_memory,
        "group": task.group,
        "version": task.version,
        "createdAt": task.created_at,
        "containers": [_container(task, one) for one in task.containers] if task.placed_on else [],
        "overrides": {"containerOverrides": [], "inferenceAcceleratorOverrides": [], **task.overrides},
        "attachments": [_attachment(task.interface)] if task.interface else [],
        "attributes": [],
        "enableExecuteCommand": False,
        "healthStatus": "UNKNOWN",
        "inferenceAccelerators": [],
        "tags": tag_list(task.tags) if with_tags else [],
        **task.times,
    }
    optional = {
        "startedBy": task.started_by,
        "capacityProviderName": task.provider,
        "launchType": task.launch_type or "EC2",
        "stopCode": task.stop_code,
        "stoppedReason": task.stopped_reason,
    }
    shown.update((key, value) for key, value in optional.items() if value is not None)
    shown.update(_place(task.placed_on) if task.placed_on else {})
    if task.fargate:
        shown.update(platformVersion="1.4.0", platformFamily="Linux", ephemeralStorage={"sizeInGiB": 20})
    return shown


def _place(instance: ContainerInstance) -> dict[str, Any]:
    """Format what a task shows of its instance, once it is placed."""
    machine = instance.ec2_instance
    shown = {
        "availabilityZone": machine.zone,
        "attributes": [{"name": "ecs.cpu-architecture", "value": machine.architecture}],
    }
    return {**shown, "containerInstanceArn": instance.arn} if instance.arn else shown


def _attachment(interface: Interface) -> dict[str, Any]:
    """Format the attachment of an interface; its details appear once it is attached."""
    details = [{"name": "subnetId", "value": interface.subnet}]
    if interface.status != "PRECREATED":
        fields = {
            "networkInterfaceId": interface.id,
            "macAddress": interface.mac,
            "privateIPv4Address": interface.private_ip,
        }
        details += [{"name": name, "value": value} for name, value in fields.items()]
    return {
        "id": interface.attachment,
        "type": "ElasticNetworkInterface",
        "status": interface.status,
        "details": details,
    }


def _container(task: Task, container: Container) -> dict[str, Any]:
    definition = container.definition
    shown: dict[str, Any] = {
        "containerArn": container.arn,
        "taskArn": task.arn,
        "name": container.name,
        "image": definition["image"],
        "lastStatus": container.status,
        "networkBindings": [],
        "networkInterfaces": [],
        "healthStatus": "UNKNOWN",
        "cpu": str(definition.get("cpu", 0)),
    }
    if task.interface is not None and task.interface.status != "PRECREATED":
        shown["networkInterfaces"] = [
            {"attachmentId": task.interface.attachment, "privateIpv4Address": task.interface.private_ip}
        ]
    if container.started:
        shown["runtimeId"] = short(container.arn)
    for key in ("memory", "memoryReservation"):
        if definition.get(key) is not None:
            shown[key] = str(definition[key])
    if container.exit_code is not None:
        shown["exitCode"] = container.exit_code
    if container.reason is not None:
        shown["reason"] = container.reason
    return shown
