"""Fargate: validation of tasks, and their hidden hosts.

The sizes are those of "Task CPU and memory" for Linux, read 2026-11:
https://docs.aws.amazon.com/AmazonECS/latest/developerguide/fargate-tasks-services.html. Not
simulated: interruptions of Fargate Spot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.state import CapacityProvider, ContainerInstance, Ec2Instance, Interface
from dask_starburst.local.http.protocols import Request
from dask_starburst.local.services.ecs.common import client_error, invalid

FARGATE_PROVIDERS = ("FARGATE", "FARGATE_SPOT")
_PLATFORM_VERSIONS = ("LATEST", "1.4.0", "1.3.0")
_GIB = 1024
# CPU units -> memory in MiB.
_SIZES: Mapping[int, tuple[int, ...]] = {
    256: (512, 1 * _GIB, 2 * _GIB),
    512: tuple(range(1 * _GIB, 4 * _GIB + 1, _GIB)),
    1024: tuple(range(2 * _GIB, 8 * _GIB + 1, _GIB)),
    2048: tuple(range(4 * _GIB, 16 * _GIB + 1, _GIB)),
    4096: tuple(range(8 * _GIB, 30 * _GIB + 1, _GIB)),
    8192: tuple(range(16 * _GIB, 60 * _GIB + 1, 4 * _GIB)),
    16384: tuple(range(32 * _GIB, 120 * _GIB + 1, 8 * _GIB)),
}


def fargate_providers(backend: Backend) -> dict[str, CapacityProvider]:
    """Return the Fargate capacity providers, which every account has."""
    found = {}
    for name in FARGATE_PROVIDERS:
        found[name] = CapacityProvider(
            name, backend.arn("ecs", f"capacity-provider/{name}"), group="", settings={}, tags={}
        )
    return found


def fargate_refusal(request: Request) -> str | None:
    """Return why a task definition is not valid for Fargate; None if it is."""
    if request.get("networkMode") != "awsvpc":
        return "Fargate only supports network mode ‘awsvpc’."
    for key in ("cpu", "memory"):
        if request.get(key) is None:
            return f"Fargate requires that '{key}' be defined at the task level."
    cpu, memory = str(request["cpu"]), str(request["memory"])
    if not (cpu.isdigit() and memory.isdigit() and int(memory) in _SIZES.get(int(cpu), ())):
        return "No Fargate configuration exists for given values."
    if request.get("placementConstraints"):
        return "Placement constraints are not supported by Fargate."
    containers = request["containerDefinitions"]
    if any(one.get("privileged") for one in containers):
        return "Privileged containers are not supported by Fargate."
    if any(one.get("logConfiguration") for one in containers) and not request.get("executionRoleArn"):
        return "Fargate requires task definition to have execution role ARN to support log driver awslogs."
    return None


def check_fargate_run(document: Mapping[str, Any], request: Request, fargate: bool) -> None:
    """Refuse a RunTask request that does not match its launch type.

    Raises
    ------
    ServiceError
        The message is ECS's.
    """
    version = request.get("platformVersion")
    if not fargate:
        if version is not None:
            raise invalid("The platform version must be null when specifying an EC2 launch type.")
        return
    if "FARGATE" not in document["compatibilities"]:
        raise invalid("Task definition does not support launch_type FARGATE.")
    for key in ("placementConstraints", "placementStrategy"):
        if request.get(key):
            raise invalid(f"{key} is not supported with the FARGATE launch type.")
    if version is not None and version not in _PLATFORM_VERSIONS:
        raise invalid(f"The platform version {version} does not exist.")
    overrides = request.get("overrides") or {}
    cpu, memory = overrides.get("cpu", document["cpu"]), overrides.get("memory", document["memory"])
    if fargate_refusal({**document, "cpu": cpu, "memory": memory}) is not None:
        raise client_error("No Fargate configuration exists for given values.")


def fargate_host(
    backend: Backend, cluster: str, interface: Interface, cpu: int, memory: int, architecture: str | None, spot: bool
) -> ContainerInstance:
    """Return the hidden host of one task, which ends with the task."""
    now = backend.now()
    ec2_instance = Ec2Instance(
        id=f"fargate-{interface.attachment}",
        instance_type="fargate",
        zone=interface.zone,
        private_ip=interface.private_ip,
        lifecycle="spot" if spot else "on-demand",
        launched_at=now,
        vcpus=max(1, cpu // 1024),
        memory=memory,
        architecture=architecture or "x86_64",
        group=None,
        cluster=None,
        state="running",
    )
    return ContainerInstance(
        arn="",
        cluster=cluster,
        ec2_instance=ec2_instance,
        provider=None,
        registered_at=now,
        cpu=cpu,
        memory=memory,
        attributes={},
        free_cpu=cpu,
        free_memory=memory,
        connected=True,
        connected_at=now,
    )
