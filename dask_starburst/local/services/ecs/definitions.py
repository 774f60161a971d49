"""The ECS API: task definitions."""

from __future__ import annotations

import copy
from typing import Any

from dask_starburst.local.backend.account import partition
from dask_starburst.local.backend.backend import ACCOUNT, Backend, tag_dict, tag_list
from dask_starburst.local.backend.state import TaskDefinition
from dask_starburst.local.http.protocols import Reply, Request
from dask_starburst.local.services.ecs.common import client_error, invalid, listing, with_token
from dask_starburst.local.services.ecs.fargate import fargate_refusal

_CPU_ARCHITECTURES = ("X86_64", "ARM64")
_LEAST_MEMORY = 6  # MiB, Docker's minimum since 20.10
_MOST_CONTAINERS = 10
_STILL_ACTIVE = "The specified task definition is still in ACTIVE status. Please deregister the target and try again."
_NOT_HERE = ("proxyConfiguration", "inferenceAccelerators")
_NOT_HERE_IN_CONTAINERS = ("dependsOn", "firelensConfiguration", "environmentFiles", "links", "volumesFrom")


class DefinitionOperations:
    """Register, describe, list, deregister and delete task definitions."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def register_task_definition(self, request: Request) -> Reply:
        """Register a new revision of a family."""
        _check(request)
        family = request["family"]
        revisions = self._backend.definitions.setdefault(family, [])
        revision = revisions[-1].revision + 1 if revisions else 1
        arn = self._backend.arn("ecs", f"task-definition/{family}:{revision}")
        kept = {key: value for key, value in request.items() if key not in ("tags",)}
        document = {
            **copy.deepcopy(kept),
            "taskDefinitionArn": arn,
            "revision": revision,
            "status": "ACTIVE",
            "volumes": kept.get("volumes", []),
            "placementConstraints": kept.get("placementConstraints", []),
            "requiresAttributes": _required_attributes(kept),
            "compatibilities": _compatibilities(kept),
            "networkMode": kept.get("networkMode", "bridge"),
            "registeredAt": self._backend.now(),
            "registeredBy": f"arn:{partition()}:iam::{ACCOUNT}:root",
        }
        for container in document["containerDefinitions"]:
            for key, value in _container_defaults().items():
                container.setdefault(key, value)
        definition = TaskDefinition(family, revision, arn, document, tag_dict(request.get("tags")))
        revisions.append(definition)
        return _reply(definition)

    def describe_task_definition(self, request: Request) -> Reply:
        """Describe a revision, or the latest active revision of a family."""
        definition = self.find(request["taskDefinition"])
        reply: Reply = {"taskDefinition": definition.document}
        if "TAGS" in request.get("include", []):
            reply["tags"] = tag_list(definition.tags)
        return {"tags": [], **reply}

    def deregister_task_definition(self, request: Request) -> Reply:
        """Set a revision to INACTIVE: no new tasks can use it."""
        if ":" not in request["taskDefinition"].rsplit("/", 1)[-1]:
            raise invalid("Unable to deregister without a revision: give family:revision or the ARN.")
        definition = self.find(request["taskDefinition"])
        if not definition.active:
            raise client_error("Unable to describe task definition.")
        definition.document = {**definition.document, "status": "INACTIVE", "deregisteredAt": self._backend.now()}
        return {"taskDefinition": definition.document}

    def delete_task_definitions(self, request: Request) -> Reply:
        """Start deleting INACTIVE revisions."""
        if len(request["taskDefinitions"]) > 10:
            raise invalid("taskDefinitions cannot have more than 10 elements")
        deleted, failures = [], []
        for name in request["taskDefinitions"]:
            definition = self.find(name)
            if definition.active:
                failures.append({"arn": definition.arn, "reason": _STILL_ACTIVE})
                continue
            document = {**definition.document, "status": "DELETE_IN_PROGRESS", "deleteRequestedAt": self._backend.now()}
            definition.document = document
            deleted.append(document)
        return {"taskDefinitions": deleted, "failures": failures}

    def list_task_definitions(self, request: Request) -> Reply:
        """List the ARNs of revisions."""
        prefix, status = request.get("familyPrefix"), request.get("status", "ACTIVE")
        arns = [
            definition.arn
            for family in sorted(self._backend.definitions)
            if prefix in (None, family)
            for definition in self._backend.definitions[family]
            if definition.document["status"] == status
        ]
        if request.get("sort") == "DESC":
            arns.reverse()
        chosen, token = listing(arns, request)
        return with_token({"taskDefinitionArns": chosen}, token)

    def list_task_definition_families(self, request: Request) -> Reply:
        """List families."""
        prefix, status = request.get("familyPrefix", ""), request.get("status", "ACTIVE")
        families = []
        for family, revisions in sorted(self._backend.definitions.items()):
            active = any(definition.active for definition in revisions)
            if family.startswith(prefix) and status in ("ALL", "ACTIVE" if active else "INACTIVE"):
                families.append(family)
        chosen, token = listing(families, request)
        return with_token({"families": chosen}, token)

    def find(self, name: str) -> TaskDefinition:
        """Find a task definition by ARN, by family and revision, or the latest active one of a family."""
        family, _, revision = name.rsplit("/", 1)[-1].partition(":")
        revisions = self._backend.definitions.get(family, [])
        if revision:
            found = [one for one in revisions if str(one.revision) == revision]
        else:
            found = [one for one in revisions if one.active][-1:]
        if not found:
            raise client_error("Unable to describe task definition.")
        return found[0]


def _reply(definition: TaskDefinition) -> Reply:
    return {"taskDefinition": definition.document, "tags": tag_list(definition.tags)}


def _container_defaults() -> dict[str, Any]:
    # ECS adds these defaults; cpu 0 means the remaining CPU.
    return {"cpu": 0, "essential": True, "environment": [], "mountPoints": [], "volumesFrom": [], "portMappings": []}


def _check(request: Request) -> None:
    containers = request["containerDefinitions"]
    if not containers:
        raise client_error("Container definitions should not be null or empty.")
    if len(containers) > _MOST_CONTAINERS:
        raise client_error("Too many container definitions: at most 10 are allowed.")
    for key in _NOT_HERE:
        if request.get(key):
            raise client_error(f"{key} is not implemented by the embedded AWS.")
    _check_platform(request)
    _check_sizes(request)
    names = [container.get("name") for container in containers]
    if len(set(names)) < len(names):
        raise client_error("Container names must be unique.")
    if not any(container.get("essential", True) for container in containers):
        raise client_error("Invalid 'essential' setting. At least one container should be essential.")
    for container in containers:
        _check_container(container, request)


def _check_platform(request: Request) -> None:
    platform = request.get("runtimePlatform") or {}
    architecture = platform.get("cpuArchitecture")
    if architecture is not None and architecture not in _CPU_ARCHITECTURES:
        raise client_error(
            f"Invalid cpuArchitecture: {architecture}. Valid values are {', '.join(_CPU_ARCHITECTURES)}."
        )
    if "FARGATE" in request.get("requiresCompatibilities", []):
        refusal = fargate_refusal(request)
        if refusal is not None:
            raise client_error(refusal)


def _check_sizes(request: Request) -> None:
    for key in ("cpu", "memory"):
        text = request.get(key)
        if text is not None and not str(text).isdigit():
            raise client_error(f"Invalid '{key}' setting for task: {text}. The embedded AWS takes whole numbers.")


def _check_container(container: dict[str, Any], request: Request) -> None:
    name = container.get("name")
    if not name or not container.get("image"):
        raise client_error("Container.name and Container.image should not be null or empty.")
    hard, soft, task = container.get("memory"), container.get("memoryReservation"), request.get("memory")
    if hard is None and soft is None and task is None:
        raise client_error(
            f"Invalid setting for container '{name}'. "
            "At least one of 'memory' or 'memoryReservation' must be specified."
        )
    if hard is not None and hard < _LEAST_MEMORY:
        raise client_error(f"Invalid 'memory' setting for container '{name}': it must be at least {_LEAST_MEMORY}.")
    if hard is not None and soft is not None and soft > hard:
        raise client_error(f"Invalid setting for container '{name}'. 'memoryReservation' must be less than 'memory'.")
    if hard is not None and task is not None and hard > int(task):
        raise client_error(f"Invalid setting for container '{name}'. 'memory' is more than the task's {task}.")
    if container.get("secrets") and not request.get("executionRoleArn"):
        raise client_error(
            "When you are specifying container secrets, you must also specify a value for 'executionRoleArn'."
        )
    for key in _NOT_HERE_IN_CONTAINERS:
        if container.get(key):
            raise client_error(f"{key} is not implemented by the embedded AWS.")
    _check_logging(name, container.get("logConfiguration"))
    mode = request.get("networkMode")
    if mode in ("host", "awsvpc"):
        for mapping in container.get("portMappings", []):
            if mapping.get("hostPort", mapping.get("containerPort")) != mapping.get("containerPort"):
                raise client_error(
                    f"When networkMode={mode}, the host ports and container ports in port mappings must match."
                )


def _check_logging(name: str, logging: dict[str, Any] | None) -> None:
    if logging is None:
        return
    if logging["logDriver"] != "awslogs":
        raise client_error(f"The log driver {logging['logDriver']} is not implemented by the embedded AWS.")
    options = logging.get("options") or {}
    for key in ("awslogs-group", "awslogs-region"):
        if not options.get(key):
            raise client_error(f"Log driver awslogs requires options: {key}")


def _compatibilities(request: Request) -> list[str]:
    """Return the compatible launch types, whether or not they were requested."""
    if request.get("networkMode") != "awsvpc":
        return ["EXTERNAL", "EC2"]
    return ["EC2", "FARGATE"] if fargate_refusal(request) is None else ["EC2"]


def _required_attributes(request: Request) -> list[dict[str, str]]:
    architecture = (request.get("runtimePlatform") or {}).get("cpuArchitecture")
    attributes = [{"name": "com.amazonaws.ecs.capability.docker-remote-api.1.18"}]
    if architecture == "ARM64":
        attributes.append({"name": "ecs.cpu-architecture", "value": "arm64"})
    return attributes
