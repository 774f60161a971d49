"""The task definitions of the scheduler and the workers, and the requests that run them."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dask_starburst.plan.groups import DEFAULT, Placement, WorkerGroup
from dask_starburst.plan.loop.state import Name
from dask_starburst.plan.requests.policies import NAMESPACE
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.plan.scheduler.shutdown_rules import Lifetimes

#: The environment variable in which ECS passes the certificates to a container.
TLS_VARIABLE = "STARBURST_TLS"
LOG_GROUP = f"/{NAMESPACE}"
#: The environment variable that maps the instances of a batch to workers.
WORKERS_VARIABLE = "STARBURST_WORKERS"
#: Maximum number of tasks of a RunTask call, and maximum length of its ``overrides`` (aws-facts §1.2).
MOST_TASKS = 10
MOST_OVERRIDES = 8192
#: Seconds between SIGTERM and SIGKILL, the maximum of ECS. After SIGTERM a worker transfers its data to other workers
#: (`runtime.worker.notices`), within the time of a Spot notice; a worker without data exits immediately.
STOP_TIMEOUT = 120

_CPU_ARCHITECTURE = {"arm64": "ARM64", "x86_64": "X86_64"}


@dataclass(frozen=True, slots=True)
class Container:
    """The common part of the task definitions of a cluster. ``environment``: variables of every container."""

    pool: str
    image: str
    region: str
    secret_arn: str
    execution_role: str
    tags: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Process:
    """One of the programs: its role and group, its command, the CPU and memory that it reserves, its own variables."""

    role: str
    task_role: str
    command: tuple[str, ...]
    cpu: int
    memory: int
    arch: str
    group: str = DEFAULT
    environment: Mapping[str, str] = field(default_factory=dict)


def scheduler_process(
    task_role: str,
    head: WorkerGroup,
    ports: tuple[int, int],
    lease_keeper: tuple[str, ...],
    *,
    dashboard: bool = True,
) -> Process:
    """Return the scheduler process.

    `ports`: its port and the dashboard's. `lease_keeper`: the arguments of its lease keeper.
    """
    port, second = map(str, ports)
    without = () if dashboard else ("--no-dashboard",)
    command = ("scheduler", "--port", port, "--dashboard-port", second, *without, "--", *lease_keeper)
    size = head.size
    return Process("scheduler", task_role, command, size.task_cpu, size.task_memory, head.arch, head.name)


def lease_keeper_arguments(
    region: str, groups: Sequence[str], lifetimes: Lifetimes, offers: Mapping[str, int]
) -> tuple[str, ...]:
    """Return the arguments with which the scheduler keeps the lease of its pool; none is secret.

    Parameters
    ----------
    region : str
        Region of the groups; boto3 does not read the variable in which ECS passes it.
    groups : sequence of str
        The Auto Scaling groups in the order in which to scale them to zero, the scheduler's own last.
    lifetimes : Lifetimes
        When to shut down.
    offers : mapping of str to int
        The resources that its workers offer, and how much of each; empty in a cluster with one worker group.
    """
    command = ["--region", region, "--lease", f"{lifetimes.lease:g}"]
    for group in groups:
        command += ["--group", group]
    options = {
        "--end-when-idle": lifetimes.idle,
        "--end-when-alone": lifetimes.no_client,
        "--end-at-cost": lifetimes.usd,
        "--hourly-cost": lifetimes.rate if lifetimes.usd is not None else None,
    }
    for option, value in options.items():
        if value is not None:
            command += [option, f"{value:g}"]
    for name, amount in offers.items():
        command += ["--offer", name, str(amount)]
    return tuple(command)


def worker_process(
    task_role: str, group: WorkerGroup, notices: bool = True, environment: Mapping[str, str] | None = None
) -> Process:
    """Return the worker process of a group. Its memory depends on its instance and is set at launch.

    `notices`: whether it watches for Spot notices. `environment`: variables of this group only.
    """
    size = group.size
    offers = ("--resources", f"{group.resource}={size.nthreads}") if group.resource else ()
    watch = () if notices else ("--no-notices",)
    command = ("worker", "--nthreads", str(size.nthreads), *offers, *watch)
    own = dict(environment or {})
    return Process("worker", task_role, command, size.task_cpu, size.task_memory, group.arch, group.name, own)


def task_definition(container: Container, process: Process) -> dict[str, Any]:
    """Return the RegisterTaskDefinition request.

    Host network mode: the container uses the instance's addresses, so it needs no ENI, NAT or port mapping
    (aws-facts §5). The certificates are an ECS secret, never a plain value.
    """
    family = PoolNames(container.pool).family(process.role, process.group)
    environment = {**container.environment, **process.environment}
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
        "command": ["python", "-m", "dask_starburst.runtime", *process.command],
        "environment": [{"name": name, "value": value} for name, value in sorted(environment.items())],
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
            "cpuArchitecture": _CPU_ARCHITECTURE[process.arch],
            "operatingSystemFamily": "LINUX",
        },
        "containerDefinitions": [main],
    }


def definition_digest(request: Mapping[str, Any]) -> str:
    """Return the hash that identifies an equal task definition."""
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class Place:
    """One worker of a batch: its instance, its launch number, and its memory (bytes).

    ``container_instance`` is the last part of the ARN of the container instance.
    """

    instance: str
    container_instance: str
    worker: Name
    launch: int
    memory_limit: int


@dataclass(frozen=True, slots=True)
class Launch:
    """One RunTask call: workers, task definition and instances, all of one type.

    ``cpu`` (units) and ``memory`` (MiB) are reserved by each task.
    """

    pool: str
    session: str
    placement: Placement
    role: str
    definition: str
    places: tuple[Place, ...]
    cpu: int
    memory: int
    environment: Mapping[str, str]
    tags: Mapping[str, str]


def run_request(launch: Launch) -> dict[str, Any]:
    """Return the RunTask request of a batch.

    ECS passes the same environment to every task of a call. So the environment maps the instances of the
    call to workers, and each container looks up its own instance. The client token is derived from
    this mapping: a request that is sent twice, because its response was lost, starts each task once.

    Raises
    ------
    ValueError
        Too many tasks, or too long overrides, for one RunTask call (aws-facts §1.2).
    """
    places = [asdict(place) for place in launch.places]
    variables = {**launch.environment, WORKERS_VARIABLE: json.dumps(places, separators=(",", ":"))}
    environment = [{"name": k, "value": v} for k, v in variables.items()]
    overrides = {
        "cpu": str(launch.cpu),
        "memory": str(launch.memory),
        "containerOverrides": [{"name": launch.role, "environment": environment}],
    }
    if len(places) > MOST_TASKS or len(json.dumps(overrides)) > MOST_OVERRIDES:
        raise ValueError(f"{len(places)} workers are too many for one RunTask")
    provider = PoolNames(launch.pool).group(launch.placement)
    instances = ", ".join(f"'{place.instance}'" for place in launch.places)
    return {
        "cluster": launch.pool,
        "taskDefinition": launch.definition,
        "count": len(places),
        "capacityProviderStrategy": [{"capacityProvider": provider, "weight": 1}],
        "placementConstraints": [
            {"type": "distinctInstance"},
            {"type": "memberOf", "expression": f"ec2InstanceId in [{instances}]"},
        ],
        "group": provider,
        "startedBy": launch.session,
        "clientToken": client_token(launch.session, launch.places),
        "overrides": overrides,
        "tags": [{"key": k, "value": v} for k, v in launch.tags.items()],
    }


def client_token(session: str, places: Sequence[Place]) -> str:
    """Return RunTask's client token (at most 64 characters, aws-facts §1.2)."""
    batch = "/".join(f"{p.worker}:{p.launch}@{p.instance}" for p in places)
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{session}/{batch}"))


def places_of(text: str) -> list[Place]:
    """Parse the batch from a container's environment."""
    return [Place(**place) for place in json.loads(text)]


def place_of(overrides: Mapping[str, Any], container_instance: str | None) -> Place | None:
    """Return the worker of a task, from the overrides of DescribeTasks.

    None if it is not a worker of a pool, or one of a batch that ECS has not placed yet. A task that was started alone
    is known without its instance.
    """
    own = (container_instance or "").rpartition("/")[2]
    for container in overrides.get("containerOverrides", []):
        for variable in container.get("environment", []):
            if variable["name"] == WORKERS_VARIABLE:
                places = places_of(variable["value"])
                if len(places) == 1:
                    return places[0]
                return next((p for p in places if p.container_instance == own), None)
    return None
