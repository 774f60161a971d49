"""The introspection endpoint of the ECS agent of each instance.

On AWS it answers at http://localhost:51678 of each instance. All instances are on this computer, so the instance
is in the path, with a secret that the router checks (`keys.Keys.path`)::

    /agent/<instance id>/v1/metadata
    /agent/<instance id>/v1/tasks

Shapes: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-introspection.html and the agent's
own ``ecs-agent/introspection/v1/response.go``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.state import Container, ContainerInstance, Task
from dask_starburst.local.services.ecs.instances import AGENT

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

Reply = tuple[HTTPStatus, dict[str, Any]]


class AgentApp:
    """The WSGI application that answers for the agents of all instances."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        with self._backend.lock:
            status, document = self._route(environ.get("PATH_INFO", "").strip("/").split("/")[1:])
        body = json.dumps(document).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _route(self, path: list[str]) -> Reply:
        instance = self._backend.registered.get(path[0]) if path else None
        if instance is None or instance.ec2_instance.state != "running":
            # On AWS the endpoint is closed until the agent has registered.
            return HTTPStatus.SERVICE_UNAVAILABLE, {}
        match path[1:]:
            case ["v1", "metadata"]:
                return HTTPStatus.OK, {
                    "Cluster": instance.cluster,
                    "ContainerInstanceArn": instance.arn,
                    "Version": f"Amazon ECS Agent - v{AGENT['agentVersion']} ({AGENT['agentHash']})",
                }
            case ["v1", "tasks"]:
                return self._tasks(instance)
        return HTTPStatus.NOT_FOUND, {}

    def _tasks(self, instance: ContainerInstance) -> Reply:
        tasks = [task for task in self._backend.clusters[instance.cluster].tasks.values() if task.placed_on is instance]
        known = [task for task in tasks if "pullStartedAt" in task.times]  # those that the agent has received
        if not all(any(container.started for container in task.containers) for task in known):
            # A task whose image pull is in progress or has failed has no containers, and then the agent returns
            # no tasks (GetTasksMetadata in agent/handlers/v1/agent_state.go).
            return HTTPStatus.NOT_FOUND, {"Tasks": None}
        return HTTPStatus.OK, {"Tasks": [_task(task) for task in known]}


def _task(task: Task) -> dict[str, Any]:
    known = "RUNNING" if task.status == "STOPPING" else task.status
    return {
        "Arn": task.arn,
        "DesiredStatus": task.desired,
        "KnownStatus": known,
        "Family": task.definition.family,
        "Version": str(task.definition.revision),
        "Containers": [_container(task, container) for container in task.containers if container.started],
    }


def _container(task: Task, container: Container) -> dict[str, Any]:
    docker_id = hashlib.sha256(container.arn.encode()).hexdigest()
    image = container.definition["image"]
    times = {"CreatedAt": task.times.get("pullStoppedAt"), "StartedAt": task.times.get("startedAt")}
    return {
        "DockerId": docker_id,
        "DockerName": f"ecs-{task.definition.family}-{task.definition.revision}-{container.name}-{docker_id[:20]}",
        "Name": container.name,
        "Image": image,
        "ImageID": f"sha256:{hashlib.sha256(image.encode()).hexdigest()}",
        **{name: _iso(when) for name, when in times.items() if when is not None},
    }


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
