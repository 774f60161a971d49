"""Helpers of the ECS service: errors, names, lookups."""

from __future__ import annotations

from typing import Any

from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.state import Cluster, ContainerInstance, Task
from dask_starburst.local.http.protocols import ServiceError, page

BATCH = 100  # the most names in a describe call and in a page


def client_error(message: str) -> ServiceError:
    """Return ECS's ClientException."""
    return ServiceError("ClientException", message)


def invalid(message: str) -> ServiceError:
    """Return ECS's InvalidParameterException."""
    return ServiceError("InvalidParameterException", message)


def short(name: str) -> str:
    """Return the last part of an ARN, or the name itself."""
    return name.rsplit("/", 1)[-1]


def find_cluster(backend: Backend, name: str | None) -> Cluster:
    """Find an active cluster by name or ARN; the default name is ``default``."""
    cluster = backend.clusters.get(short(name or "default"))
    if cluster is None or cluster.status != "ACTIVE":
        raise ServiceError("ClusterNotFoundException", "Cluster not found.")
    return cluster


def assume_own_role(backend: Backend) -> None:
    """Refuse a call for which ECS needs its service-linked role, as long as the role is too new to be assumed."""
    if backend.consistency.hides_named("service-linked-roles", "ecs.amazonaws.com"):
        raise invalid(
            "Unable to assume the service linked role. Please verify that the ECS service linked role exists."
        )


def find_instance(cluster: Cluster, name: str) -> ContainerInstance | None:
    """Find a container instance of a cluster by id or ARN."""
    if name in cluster.instances:
        return cluster.instances[name]
    prefix = cluster.arn.replace(":cluster/", ":container-instance/")
    return cluster.instances.get(f"{prefix}/{short(name)}")


def find_task(cluster: Cluster, name: str) -> Task | None:
    """Find a task of a cluster by id or ARN."""
    return cluster.tasks.get(short(name))


def missing(arn: str) -> dict[str, str]:
    """Return ECS's failure for a missing resource."""
    return {"arn": arn, "reason": "MISSING"}


def check_batch(names: list[Any], what: str, most: int = BATCH) -> None:
    """Refuse an empty list of names or more than `most`."""
    if not names:
        raise invalid(f"{what} can not be empty.")
    if len(names) > most:
        raise invalid(f"{what} cannot have more than {most} elements")


def listing(keys: list[str], request: dict[str, Any]) -> tuple[list[str], str | None]:
    """Return the requested page."""
    size = request.get("maxResults", BATCH)
    if not 1 <= size <= BATCH:
        raise invalid(f"maxResults must be between 1 and {BATCH}")
    return page(keys, request.get("nextToken"), size, "InvalidParameterException")


def with_token(reply: dict[str, Any], token: str | None) -> dict[str, Any]:
    """Add the token of the next page, if there is one."""
    return reply if token is None else {**reply, "nextToken": token}
