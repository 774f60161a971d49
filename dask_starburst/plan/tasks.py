"""The task definitions of scheduler and worker, and the requests that run them."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dask_starburst.plan.ending import Lifetimes
from dask_starburst.plan.policies import NAMESPACE
from dask_starburst.plan.pool import PoolNames
from dask_starburst.plan.sizing import memory_limit

#: The environment variable through which ECS hands a container its certificates.
TLS_VARIABLE = "STARBURST_TLS"
LOG_GROUP = f"/{NAMESPACE}"
WORKER_TAG = "starburst:worker"
LAUNCH_TAG = "starburst:launch"
#: Seconds between SIGTERM and SIGKILL; ECS allows up to 120.
STOP_TIMEOUT = 30

_CPU_ARCHITECTURE = {"arm64": "ARM64", "x86_64": "X86_64"}


@dataclass(frozen=True, slots=True)
class Container:
    """What the task definitions of a cluster have in common."""

    pool: str
    arch: str
    image: str
    region: str
    secret_arn: str
    execution_role: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Process:
    """One of the two programs: its role and command, and what it reserves."""

    role: str
    task_role: str
    command: tuple[str, ...]
    cpu: int
    memory: int


def scheduler_process(
    task_role: str, cpu: int, memory: int, ports: tuple[int, int], guardian: tuple[str, ...]
) -> Process:
    """Return the scheduler: its own port and the dashboard's, and what its guardian is told."""
    port, dashboard = map(str, ports)
    command = ("scheduler", "--port", port, "--dashboard-port", dashboard, "--", *guardian)
    return Process("scheduler", task_role, command, cpu, memory)


def guardian_arguments(region: str, groups: Sequence[str], lifetimes: Lifetimes) -> tuple[str, ...]:
    """Return what the scheduler has to know to guard its pool; nothing of it is secret.

    Parameters
    ----------
    region : str
        Where the groups are; boto3 does not read the variable in which ECS tells it.
    groups : sequence of str
        The Auto Scaling groups in the order in which to empty them, the scheduler's own last.
    lifetimes : Lifetimes
        How long to go on.
    """
    command = ["--region", region, "--lease", f"{lifetimes.lease:g}"]
    for group in groups:
        command += ["--group", group]
    for option, seconds in (("--end-when-idle", lifetimes.idle), ("--end-when-alone", lifetimes.no_client)):
        if seconds is not None:
            command += [option, f"{seconds:g}"]
    return tuple(command)


def worker_process(task_role: str, cpu: int, memory: int, nthreads: int, limit: int) -> Process:
    """Return the worker: threads, and bytes, never more than its container has."""
    limit = min(limit, memory_limit(memory))
    command = ("worker", "--nthreads", str(nthreads), "--memory-limit", str(limit))
    return Process("worker", task_role, command, cpu, memory)


def task_definition(container: Container, process: Process) -> dict[str, Any]:
    """Return the RegisterTaskDefinition request.

    Host mode: the container has the instance's addresses, so no ENI, no NAT and no port mapping
    (aws-facts §5). The certificates come as an ECS secret, never as a plain value.
    """
    family = PoolNames(container.pool).family(process.role)
    logs = {
        "awslogs-group": LOG_GROUP,
        "awslogs-region": container.region,
        "awslogs-stream-prefix": container.pool,
        "mode": "non-blocking",
    }
    main = {
        "name": process.role,
        "image": container.image,
        "essential": True,
        "command": ["python", "-m", "dask_starburst.remote", *process.command],
        "environment": [],
        "secrets": [{"name": TLS_VARIABLE, "valueFrom": container.secret_arn}],
        "stopTimeout": STOP_TIMEOUT,
        "logConfiguration": {"logDriver": "awslogs", "options": logs},
        "ulimits": [{"name": "nofile", "softLimit": 65536, "hardLimit": 65536}],
    }
    return {
        "family": family,
        "networkMode": "host",
        "requiresCompatibilities": ["EC2"],
        "cpu": str(process.cpu),
        "memory": str(process.memory),
        "executionRoleArn": container.execution_role,
        "taskRoleArn": process.task_role,
        "runtimePlatform": {
            "cpuArchitecture": _CPU_ARCHITECTURE[container.arch],
            "operatingSystemFamily": "LINUX",
        },
        "containerDefinitions": [main],
    }


def definition_digest(request: Mapping[str, Any]) -> str:
    """Return the hash by which an equal task definition is found again."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Launch:
    """One RunTask: who runs what, where, for the how-manieth time."""

    pool: str
    session: str
    group: str
    role: str
    definition: str
    worker: str
    number: int
    environment: Mapping[str, str]
    tags: Mapping[str, str]


def run_request(launch: Launch) -> dict[str, Any]:
    """Return the RunTask request of one process.

    The client token is derived from the launch: a request that is sent twice, because its answer
    was lost, starts one task.
    """
    environment = [{"name": k, "value": v} for k, v in launch.environment.items()]
    tags = {**launch.tags, WORKER_TAG: launch.worker, LAUNCH_TAG: str(launch.number)}
    provider = PoolNames(launch.pool).group(launch.group)
    return {
        "cluster": launch.pool,
        "taskDefinition": launch.definition,
        "count": 1,
        "capacityProviderStrategy": [{"capacityProvider": provider, "weight": 1}],
        "placementConstraints": [{"type": "distinctInstance"}],
        "group": provider,
        "startedBy": launch.session,
        "clientToken": client_token(launch.session, launch.worker, launch.number),
        "overrides": {"containerOverrides": [{"name": launch.role, "environment": environment}]},
        "tags": [{"key": k, "value": v} for k, v in tags.items()],
    }


def client_token(session: str, worker: str, number: int) -> str:
    """Return RunTask's client token (at most 64 characters, aws-facts §1.2)."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{session}/{worker}/{number}"))
