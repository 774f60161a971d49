"""The ECS API: RunTask and StopTask."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dask_starburst.catalog.markets import Market
from dask_starburst.local.backend.backend import Backend, new_id, tag_dict
from dask_starburst.local.backend.quotas import Quotas
from dask_starburst.local.backend.state import Cluster, Container, ContainerInstance, Interface, Task, TaskDefinition
from dask_starburst.local.faults.events import LatePlacement
from dask_starburst.local.http.protocols import Reply, Request, ServiceError
from dask_starburst.local.services.ecs.common import client_error, find_cluster, find_task, invalid, short
from dask_starburst.local.services.ecs.definitions import DefinitionOperations
from dask_starburst.local.services.ecs.fargate import FARGATE_PROVIDERS, check_fargate_run, fargate_host
from dask_starburst.local.services.ecs.network import Interfaces
from dask_starburst.local.services.ecs.placement import Demand, NoCapacityError, candidates, late_reason, occupy, place
from dask_starburst.local.services.ecs.task_life import TaskLife
from dask_starburst.local.services.ecs.tasks import described

_MOST_TASKS = 10
_LONGEST_OVERRIDES = 8192
# "Tasks in the PROVISIONING state per cluster" (L-B7718569): those that wait for a place under an Auto Scaling group's
# capacity provider. The message is the one that callers report (github.com/DIAGNijmegen/rse-grand-challenge/pull/2013).
_MOST_PROVISIONING = 500
_TOO_MANY_PROVISIONING = "Tasks provisioning capacity limit exceeded."
_TOKEN_LIFE = 24 * 3600.0
_NOT_HERE = ("volumeConfigurations",)
# The message of services ("Amazon ECS service event messages"); unverified for RunTask.
_OVER_QUOTA = "You\u2019ve reached the limit on the number of vCPUs you can run concurrently"
_ARCHITECTURES = {"ARM64": "arm64", "X86_64": "x86_64"}


@dataclass(frozen=True)
class _Plan:
    """The common parameters of the tasks of one call."""

    cluster: Cluster
    definition: TaskDefinition
    containers: list[dict[str, Any]]
    demand: Demand
    provider: str | None
    launch_type: str | None
    request: Request


class RunOperations:
    """Run and stop tasks.

    Parameters
    ----------
    backend : Backend
        The state.
    definitions : DefinitionOperations
        The task definitions.
    interfaces : Interfaces
        The network interfaces of tasks.
    life : TaskLife
        Begins, stops and fails tasks.
    quotas : Quotas
        The vCPU quotas of Fargate.
    """

    def __init__(
        self,
        backend: Backend,
        definitions: DefinitionOperations,
        interfaces: Interfaces,
        life: TaskLife,
        quotas: Quotas,
    ) -> None:
        self._backend = backend
        self._definitions = definitions
        self._interfaces = interfaces
        self._life = life
        self._quotas = quotas

    def run_task(self, request: Request) -> Reply:
        """Place tasks at once, or return why they cannot be placed; see `LatePlacement` for the other answer."""
        cluster = find_cluster(self._backend, request.get("cluster"))
        _check(request)
        return self._once(cluster, request, lambda: self._run(cluster, request))

    def stop_task(self, request: Request) -> Reply:
        """Stop a task. A stopped one is returned unchanged."""
        cluster = find_cluster(self._backend, request.get("cluster"))
        task = find_task(cluster, request["task"])
        if task is None:
            raise invalid("The referenced task was not found.")
        self._life.stop(task, request.get("reason") or "Task stopped by user", "UserInitiated")
        return {"task": described(task)}

    def _once(self, cluster: Cluster, request: Request, run: Callable[[], Reply]) -> Reply:
        """Answer a repeated client token with the tasks of its first request."""
        token = request.get("clientToken")
        if token is None:
            return run()
        parameters = json.dumps({**request, "cluster": cluster.name}, sort_keys=True)
        seen = cluster.tokens.get(token)
        if seen is not None and self._backend.now() - seen[1] < _TOKEN_LIFE:
            if seen[0] != parameters:
                message = "The clientToken has been used with other parameters."
                raise ServiceError("ConflictException", message)
            tasks = [cluster.tasks[identity] for identity in seen[2]["ids"] if identity in cluster.tasks]
            return {"tasks": [described(task) for task in tasks], "failures": seen[2]["failures"]}
        reply = run()
        now = self._backend.now()
        cluster.tokens = {token: seen for token, seen in cluster.tokens.items() if now - seen[1] < _TOKEN_LIFE}
        # A call that placed no task does not use up its token.
        if reply["tasks"]:
            ids = [short(task["taskArn"]) for task in reply["tasks"]]
            kept = {"ids": ids, "failures": reply["failures"]}
            cluster.tokens[token] = (parameters, now, kept)
        return reply

    def _run(self, cluster: Cluster, request: Request) -> Reply:
        definition = self._find_definition(request["taskDefinition"])
        overrides = request.get("overrides") or {}
        containers = _merge_overrides(definition, overrides)
        provider, launch_type = self._launch(cluster, request)
        fargate = launch_type == "FARGATE"
        check_fargate_run(definition.document, request, fargate)
        network = self._interfaces.requested(definition.document, request, fargate)
        group = request.get("group") or f"family:{definition.family}"
        demand = _demand(definition, overrides, containers, group, request)
        plan = _Plan(cluster, definition, containers, demand, provider, launch_type, request)
        if fargate:
            assert network is not None  # else it was refused above
            return self._place_on_fargate(plan, network)
        return self._place(plan, network)

    def _place(self, plan: _Plan, network: dict[str, Any] | None) -> Reply:
        if network is not None:
            plan = replace(plan, demand=replace(plan.demand, zones=self._interfaces.zones(network)))
        count = plan.request.get("count", 1)
        late = self._late(plan, count)
        tasks: list[Task] = []
        failures: list[dict[str, str]] = []
        if len(late) < count:
            tasks, failures = self._place_now(plan, network, [self._create(plan) for _ in range(count - len(late))])
        tasks += [self._place_later(plan, network, fault) for fault in late]
        return {"tasks": [described(task) for task in tasks], "failures": failures}

    def _place_now(
        self, plan: _Plan, network: dict[str, Any] | None, tasks: list[Task]
    ) -> tuple[list[Task], list[dict[str, str]]]:
        """Place equal tasks; return the placed ones, and the failures."""
        cluster, provider = plan.cluster, plan.provider
        try:
            instances = candidates(cluster, provider)
        except NoCapacityError as nothing:
            arn = self._backend.providers[provider].arn if provider else cluster.arn
            return [], [{"arn": arn, "reason": nothing.reason}]
        if not instances:
            raise invalid("No Container Instances were found in your cluster.")
        unplaced = iter(tasks)

        def start(instance: ContainerInstance) -> Task:
            interface = self._interfaces.create(network, instance.ec2_instance.zone) if network else None
            return self._start(next(unplaced), instance, interface)

        strategy = plan.request.get("placementStrategy", [])
        return place(instances, plan.demand, len(tasks), strategy, start)

    def _late(self, plan: _Plan, count: int) -> list[LatePlacement]:
        """Return how those of the tasks are placed that are not placed at once."""
        if plan.provider is None:
            return []
        take = self._backend.pending_faults.late_placement
        late = [fault for _ in range(count) if (fault := take(plan.definition.family)) is not None]
        waiting = sum(task.status == "PROVISIONING" and task.placed_on is None for task in plan.cluster.tasks.values())
        if late and waiting + len(late) > _MOST_PROVISIONING:
            raise client_error(_TOO_MANY_PROVISIONING)
        return late

    def _place_later(self, plan: _Plan, network: dict[str, Any] | None, fault: LatePlacement) -> Task:
        task = self._create(plan)
        self._register(task)

        def place_or_fail() -> None:
            if task.desired == "STOPPED":
                return
            failures = [{"reason": fault.fails}] if fault.fails else self._place_now(plan, network, [task])[1]
            if failures:
                self._life.fail(task, fault.fails or late_reason(failures))

        self._backend.at(self._backend.now() + fault.seconds, place_or_fail)
        return task

    def _find_definition(self, name: str) -> TaskDefinition:
        try:
            definition = self._definitions.find(name)
        except ServiceError as error:
            raise client_error("TaskDefinition not found.") from error
        if not definition.active:
            raise client_error("TaskDefinition is inactive")
        return definition

    def _launch(self, cluster: Cluster, request: Request) -> tuple[str | None, str | None]:
        strategy, launch_type = request.get("capacityProviderStrategy"), request.get("launchType")
        if strategy and launch_type:
            raise invalid("Specify only one of launch type and capacity provider strategy.")
        if not launch_type and not strategy:
            strategy = cluster.default_strategy
        if not strategy:
            if launch_type not in (None, "EC2", "FARGATE"):
                raise client_error(f"The launch type {launch_type} is not implemented by the embedded AWS.")
            return None, launch_type or "EC2"
        names = {short(item["capacityProvider"]) for item in strategy}
        if len(names - set(FARGATE_PROVIDERS)) not in (0, len(names)):
            raise invalid(
                "A capacity provider strategy cannot contain a mix of capacity providers using Auto Scaling groups and "
                "Fargate providers. Specify one or the other and try again."
            )
        name = short(_first_choice(strategy)["capacityProvider"])
        if name not in cluster.providers:
            raise invalid(
                "The specified capacity provider strategy cannot contain a capacity provider that is not associated "
                "with the cluster. Associate the capacity provider with the cluster and try again."
            )
        return name, "FARGATE" if name in FARGATE_PROVIDERS else None

    def _place_on_fargate(self, plan: _Plan, network: dict[str, Any]) -> Reply:
        market = Market.SPOT if plan.provider == "FARGATE_SPOT" else Market.ON_DEMAND
        requested: int = plan.request.get("count", 1)
        tasks: list[Task] = []
        while len(tasks) < requested and self._quotas.allows_task(
            market, plan.demand.cpu, self._backend.tasks.values()
        ):
            tasks.append(self._start_on_fargate(plan, network))
        failure = {"arn": plan.cluster.arn, "reason": _OVER_QUOTA}
        return {"tasks": [described(one) for one in tasks], "failures": [failure] * (requested - len(tasks))}

    def _start_on_fargate(self, plan: _Plan, network: dict[str, Any]) -> Task:
        interface, demand = self._interfaces.create(network), plan.demand
        spot = plan.provider == "FARGATE_SPOT"
        host = fargate_host(
            self._backend, plan.cluster.name, interface, demand.cpu, demand.memory, demand.architecture, spot
        )
        return self._start(self._create(plan), host, interface)

    def _create(self, plan: _Plan) -> Task:
        """Create a task that is not placed and not registered yet."""
        cluster, definition, demand, request = plan.cluster, plan.definition, plan.demand, plan.request
        identity = new_id()
        arn = self._backend.arn("ecs", f"task/{cluster.name}/{identity}")
        inherited = definition.tags if request.get("propagateTags") == "TASK_DEFINITION" else {}
        container_arn = self._backend.arn("ecs", f"container/{cluster.name}/{identity}")
        return Task(
            id=identity,
            arn=arn,
            cluster=cluster.name,
            definition=definition,
            placed_on=None,
            containers=[Container(one["name"], f"{container_arn}/{new_id()}", one) for one in plan.containers],
            cpu=demand.cpu,
            memory=demand.memory,
            shown_cpu=str(demand.cpu),
            shown_memory=str(demand.memory),
            ports=list(demand.ports),
            created_at=self._backend.now(),
            group=demand.group,
            started_by=request.get("startedBy"),
            provider=plan.provider,
            launch_type=plan.launch_type,
            overrides=request.get("overrides") or {},
            tags={**inherited, **tag_dict(request.get("tags"))},
            status="PROVISIONING" if plan.provider else "PENDING",
        )

    def _start(self, task: Task, instance: ContainerInstance, interface: Interface | None) -> Task:
        """Place a task on an instance."""
        task.placed_on, task.interface = instance, interface
        if interface is not None:
            task.status = "PROVISIONING"
        occupy(task)
        self._register(task)
        self._life.begin(task)
        return task

    def _register(self, task: Task) -> None:
        self._backend.clusters[task.cluster].tasks[task.id] = self._backend.tasks[task.id] = task


def _check(request: Request) -> None:
    count = request.get("count", 1)
    if not 1 <= count <= _MOST_TASKS:
        raise invalid(f"Count must be between 1 and {_MOST_TASKS}, not {count}.")
    for key in _NOT_HERE:
        if request.get(key):
            raise invalid(f"{key} is not implemented by the embedded AWS.")
    if request.get("enableExecuteCommand"):
        raise invalid("enableExecuteCommand is not implemented by the embedded AWS.")
    if len(json.dumps(request.get("overrides") or {}, separators=(",", ":"))) > _LONGEST_OVERRIDES:
        raise invalid(f"Container Overrides length must be at most {_LONGEST_OVERRIDES}")
    if len(request.get("startedBy") or "") > 128:
        raise invalid("startedBy must be at most 128 characters long.")
    if len(request.get("clientToken") or "") > 64:
        raise invalid("clientToken must be at most 64 characters long.")


def _first_choice(strategy: list[dict[str, Any]]) -> dict[str, Any]:
    """Choose one provider: one with a base, else by weight. A call is not split between providers here."""
    return max(strategy, key=lambda item: (item.get("base", 0), item.get("weight", 0)))


def _merge_overrides(definition: TaskDefinition, overrides: dict[str, Any]) -> list[dict[str, Any]]:
    by_name: dict[str, dict[str, Any]] = {one.get("name", ""): one for one in overrides.get("containerOverrides", [])}
    containers = [dict(one) for one in definition.document["containerDefinitions"]]
    unknown = set(by_name) - {one["name"] for one in containers}
    if unknown:
        raise invalid(
            f"Override for container named {', '.join(sorted(unknown))} is not a container in the TaskDefinition."
        )
    for container in containers:
        override = by_name.get(container["name"], {})
        for key in ("command", "cpu", "memory", "memoryReservation"):
            if key in override:
                container[key] = override[key]
        if "environment" in override:
            merged = {item["name"]: item for item in (*container["environment"], *override["environment"])}
            container["environment"] = list(merged.values())
    return containers


def _demand(
    definition: TaskDefinition,
    overrides: dict[str, Any],
    containers: list[dict[str, Any]],
    group: str,
    request: Request,
) -> Demand:
    document = definition.document
    cpu = overrides.get("cpu") or document.get("cpu") or sum(one.get("cpu", 0) for one in containers)
    # Placement uses the soft limit if there is one.
    per_container = (one.get("memoryReservation") or one.get("memory") or 0 for one in containers)
    memory = overrides.get("memory") or document.get("memory") or sum(per_container)
    for text in (cpu, memory):
        if not str(text).isdigit():
            raise client_error(f"Invalid size of a task: {text}. The embedded AWS takes whole numbers.")
    constraints = [*document.get("placementConstraints", []), *request.get("placementConstraints", [])]
    architecture = (document.get("runtimePlatform") or {}).get("cpuArchitecture")
    return Demand(
        cpu=int(cpu),
        memory=int(memory),
        ports=tuple(_host_ports(containers, document["networkMode"])),
        architecture=_ARCHITECTURES.get(architecture or ""),
        group=group,
        distinct=any(one["type"] == "distinctInstance" for one in constraints),
        expressions=tuple(one["expression"] for one in constraints if one["type"] == "memberOf"),
    )


def _host_ports(containers: list[dict[str, Any]], network: str) -> list[int]:
    mappings = [mapping for one in containers for mapping in one["portMappings"]]
    if network == "host":
        return [mapping["containerPort"] for mapping in mappings if "containerPort" in mapping]
    return [mapping["hostPort"] for mapping in mappings if mapping.get("hostPort")]
