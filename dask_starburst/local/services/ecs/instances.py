"""The ECS API: container instances."""

from __future__ import annotations

from typing import Any

from dask_starburst.local.backend.backend import Backend, tag_list
from dask_starburst.local.backend.state import ContainerInstance
from dask_starburst.local.http.protocols import Reply, Request
from dask_starburst.local.services.ecs.common import (
    check_batch,
    client_error,
    find_cluster,
    find_instance,
    invalid,
    listing,
    missing,
    with_token,
)
from dask_starburst.local.services.ecs.query import matches

AGENT = {"agentVersion": "1.102.0", "agentHash": "local", "dockerVersion": "DockerVersion: 25.0.14"}
_UPDATE_BATCH = 10


class InstanceOperations:
    """Describe, list, drain and deregister container instances."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def describe_container_instances(self, request: Request) -> Reply:
        """Describe container instances, at most 100 at a time."""
        cluster = find_cluster(self._backend, request.get("cluster"))
        check_batch(request["containerInstances"], "Container instances")
        found, failures = [], []
        for name in request["containerInstances"]:
            instance = find_instance(cluster, name)
            if instance is None or self._backend.consistency.hides("container-instances", instance.registered_at):
                prefix = cluster.arn.replace(":cluster/", ":container-instance/")
                failures.append(missing(name if name.startswith("arn:") else f"{prefix}/{name}"))
            else:
                found.append(_described(instance))
        return {"containerInstances": found, "failures": failures}

    def list_container_instances(self, request: Request) -> Reply:
        """List the ARNs of container instances."""
        cluster = find_cluster(self._backend, request.get("cluster"))
        status, query = request.get("status"), request.get("filter")
        arns = [
            arn
            for arn, instance in sorted(cluster.instances.items())
            if not self._backend.consistency.hides("container-instances", instance.registered_at)
            and status in (None, instance.status)
            and (query is None or matches(instance, query))
        ]
        chosen, token = listing(arns, request)
        return with_token({"containerInstanceArns": chosen}, token)

    def update_container_instances_state(self, request: Request) -> Reply:
        """Set container instances to ACTIVE or DRAINING."""
        cluster = find_cluster(self._backend, request.get("cluster"))
        if request["status"] not in ("ACTIVE", "DRAINING"):
            raise invalid(f"Container instance status should be one of [ACTIVE, DRAINING], not {request['status']}.")
        check_batch(request["containerInstances"], "Container instances", _UPDATE_BATCH)
        found, failures = [], []
        for name in request["containerInstances"]:
            instance = find_instance(cluster, name)
            if instance is None:
                failures.append(missing(name))
                continue
            instance.status = request["status"]
            instance.version += 1
            found.append(_described(instance))
        return {"containerInstances": found, "failures": failures}

    def deregister_container_instance(self, request: Request) -> Reply:
        """Deregister an instance; with tasks only if forced."""
        cluster = find_cluster(self._backend, request.get("cluster"))
        instance = find_instance(cluster, request["containerInstance"])
        if instance is None:
            raise invalid("Referenced container instance not found.")
        if instance.tasks and not request.get("force"):
            raise client_error("Found running tasks on the instance.")
        instance.status = "INACTIVE"
        instance.connected = False
        del cluster.instances[instance.arn]
        self._backend.registered.pop(instance.ec2_instance.id, None)
        return {"containerInstance": _described(instance)}


def _described(instance: ContainerInstance) -> dict[str, Any]:
    statuses = [task.status for task in instance.tasks.values()]
    running = sum(status == "RUNNING" for status in statuses)
    described = {
        "containerInstanceArn": instance.arn,
        "ec2InstanceId": instance.ec2_instance.id,
        "version": instance.version,
        "versionInfo": AGENT,
        "registeredResources": _resources(instance.cpu, instance.memory, []),
        "remainingResources": _resources(instance.free_cpu, instance.free_memory, sorted(instance.ports)),
        "status": instance.status,
        "agentConnected": instance.connected,
        "runningTasksCount": running,
        "pendingTasksCount": sum(status in ("PROVISIONING", "PENDING", "ACTIVATING") for status in statuses),
        "attributes": [{"name": name, "value": value} for name, value in instance.attributes.items()],
        "registeredAt": instance.registered_at,
        "attachments": [],
        "tags": tag_list(instance.tags),
    }
    return described if instance.provider is None else {**described, "capacityProviderName": instance.provider}


def _resources(cpu: int, memory: int, ports: list[int]) -> list[dict[str, Any]]:
    # Reserved by SSH, Docker and the agent.
    taken = ["22", "2375", "2376", "51678", "51679", *map(str, ports)]
    zero = {"doubleValue": 0.0, "longValue": 0}
    return [
        {"name": "CPU", "type": "INTEGER", **zero, "integerValue": cpu},
        {"name": "MEMORY", "type": "INTEGER", **zero, "integerValue": memory},
        {"name": "PORTS", "type": "STRINGSET", **zero, "integerValue": 0, "stringSetValue": taken},
        {"name": "PORTS_UDP", "type": "STRINGSET", **zero, "integerValue": 0, "stringSetValue": []},
    ]
