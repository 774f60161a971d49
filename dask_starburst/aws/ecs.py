"""ECS: cluster, capacity providers, task definitions, tasks, container instances."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tlz import partition_all

from dask_starburst.aws.faults import MISSING, code_of, meaning, placement_passes
from dask_starburst.aws.patience import unseen
from dask_starburst.aws.session import AWS
from dask_starburst.aws.tolerant import create, delete
from dask_starburst.errors import AWSError, StarburstError
from dask_starburst.plan.loop.state import Task
from dask_starburst.plan.requests.tasks import definition_digest, place_of

#: The most names of DescribeTasks and DescribeContainerInstances (aws-facts §1.2).
BATCH = 100
_DIGEST_TAG = "starburst:definition"


@dataclass(frozen=True, slots=True)
class Placements:
    """RunTask's answer: the tasks, and the failure of each container instance (``RESOURCE:MEMORY``, ``AGENT``, …).

    ``unknown`` holds the ARNs of tasks of a batch that ECS has not placed, so that their workers are not known.
    """

    tasks: tuple[Task, ...]
    refusals: Mapping[str, str]
    unknown: tuple[str, ...] = ()

    @property
    def immediate(self) -> bool:
        """Whether ECS has placed all tasks that it returned."""
        return not self.unknown and all(t.placed for t in self.tasks)

    def passes(self, refusal: str) -> bool:
        """Whether a refusal is temporary: another call may succeed."""
        return bool(self.unknown) or placement_passes(refusal)

    def refusal(self, container_instance: str) -> str:
        """Return why no task was started on a container instance; ECS may name the whole provider instead."""
        if self.unknown:
            return "it was not placed within the call, so that its worker is unknown"
        if container_instance in self.refusals:
            return self.refusals[container_instance]
        return ", ".join(sorted({*self.refusals.values()})) or "ECS returned neither a task nor a reason"


async def ensure_cluster(aws: AWS, name: str, tags: dict[str, str], insights: str) -> None:
    """Create the ECS cluster if it does not exist or was deleted.

    `insights` is always given: without it the account's own default applies, and CloudWatch charges for Container
    Insights by the metric (https://aws.amazon.com/cloudwatch/pricing/).
    """
    answer = await aws.call("ecs", "DescribeClusters", clusters=[name])
    if not any(c["status"] == "ACTIVE" for c in answer["clusters"]):
        settings = [{"name": "containerInsights", "value": insights}]
        await aws.call("ecs", "CreateCluster", clusterName=name, tags=_tags(tags), settings=settings)


async def ensure_providers(aws: AWS, cluster: str, requests: list[dict[str, Any]], tags: dict[str, str]) -> None:
    """Create the capacity providers, and set them as the cluster's only ones.

    A provider whose Auto Scaling group was deleted, and created again under the same name, is recreated too: it names
    its group by ARN, which cannot be changed.
    """
    names = [r["name"] for r in requests]
    found = await _providers(aws, names)
    stale = [r["name"] for r in requests if found.get(r["name"], _group_of(r)) != _group_of(r)]
    if stale:
        await _remove_stale(aws, cluster, stale)
        found = {name: group for name, group in found.items() if name not in stale}
    for request in requests:
        if request["name"] not in found:
            await create(aws, "ecs", "CreateCapacityProvider", **request, tags=_tags(tags))
    answer = await aws.call("ecs", "DescribeClusters", clusters=[cluster])
    if not answer["clusters"]:
        raise unseen(f"the cluster {cluster}", "ecs:DescribeClusters")
    if set(answer["clusters"][0].get("capacityProviders", [])) != set(names):
        await _set_providers(aws, cluster, names)


async def _providers(aws: AWS, names: list[str]) -> dict[str, str]:
    """Return the ARN of the Auto Scaling group of each provider that exists."""
    answer = await aws.call("ecs", "DescribeCapacityProviders", capacityProviders=names)
    return {p["name"]: _group_of(p) for p in answer["capacityProviders"] if p["status"] == "ACTIVE"}


def _group_of(provider: dict[str, Any]) -> str:
    return str(provider.get("autoScalingGroupProvider", {}).get("autoScalingGroupArn", ""))


async def _remove_stale(aws: AWS, cluster: str, stale: list[str]) -> None:
    """Detach and delete capacity providers of groups that do not exist any more."""
    attached = await cluster_providers(aws, cluster) or []
    if set(attached) & set(stale):
        await _set_providers(aws, cluster, [name for name in attached if name not in stale])
    await remove_providers(aws, stale)


async def _set_providers(aws: AWS, cluster: str, names: list[str]) -> None:
    await aws.call(
        "ecs",
        "PutClusterCapacityProviders",
        cluster=cluster,
        capacityProviders=names,
        defaultCapacityProviderStrategy=[],
    )


async def ensure_definition(aws: AWS, request: dict[str, Any], tags: dict[str, str]) -> str:
    """Return the ARN of a task definition with this content; register it if there is none.

    Registering is limited to one a second (aws-facts §1.1), so an equal one is reused.
    """
    digest = definition_digest(request)
    try:
        answer = await aws.call("ecs", "DescribeTaskDefinition", taskDefinition=request["family"], include=["TAGS"])
        if {"key": _DIGEST_TAG, "value": digest} in answer.get("tags", []):
            return str(answer["taskDefinition"]["taskDefinitionArn"])
    except StarburstError as error:
        if code_of(error) not in MISSING | {"ClientException"}:
            raise
    made = await aws.call("ecs", "RegisterTaskDefinition", **request, tags=_tags({**tags, _DIGEST_TAG: digest}))
    return str(made["taskDefinition"]["taskDefinitionArn"])


async def run_tasks(aws: AWS, request: dict[str, Any]) -> Placements:
    """Run the tasks of one request. ECS may place some and refuse the others."""
    answer = await aws.call("ecs", "RunTask", **request)
    refusals = {f.get("arn", ""): f.get("reason", "no reason given") for f in answer.get("failures", [])}
    tasks = tuple(map(_task, answer["tasks"]))
    known = tuple(t for t in tasks if t.worker != "")
    return Placements(known, refusals, tuple(t.arn for t in tasks if t.worker == ""))


async def stop_task(aws: AWS, cluster: str, task: str, reason: str) -> None:
    """Stop a task (SIGTERM, then SIGKILL). No-op if ECS does not know it any more."""
    try:
        # ECS accepts at most 255 characters.
        await aws.call("ecs", "StopTask", cluster=cluster, task=task, reason=reason[:255])
    except StarburstError as error:
        if code_of(error) not in MISSING | {"InvalidParameterException"}:
            raise


async def running(aws: AWS, cluster: str, started_by: str | None = None) -> list[str]:
    """Return the ARNs of the tasks that are not stopped."""
    request = {"cluster": cluster} | ({"startedBy": started_by} if started_by else {})
    return await aws.pages("ecs", "ListTasks", "taskArns", **request)


async def tasks(aws: AWS, cluster: str, arns: Iterable[str]) -> dict[str, Task]:
    """Return the tasks that ECS still describes, stopped ones included."""
    calls = (aws.call("ecs", "DescribeTasks", cluster=cluster, tasks=part) for part in _batches(sorted(arns)))
    seen = (_task(t) for answer in await asyncio.gather(*calls) for t in answer["tasks"])
    return {t.arn: t for t in seen if t.worker != ""}  # a worker's name may be 0


async def connected_instances(aws: AWS, cluster: str) -> list[str]:
    """Return the ARNs of the container instances that accept tasks: active, with a connected agent."""
    return await aws.pages(
        "ecs",
        "ListContainerInstances",
        "containerInstanceArns",
        cluster=cluster,
        status="ACTIVE",
        filter="agentConnected == true",
    )


async def draining_instances(aws: AWS, cluster: str) -> list[str]:
    """Return the ARNs of the draining container instances: because of a Spot notice, or on request."""
    return await aws.pages("ecs", "ListContainerInstances", "containerInstanceArns", cluster=cluster, status="DRAINING")


async def instance_ids(aws: AWS, cluster: str, arns: Iterable[str]) -> dict[str, str]:
    """Return the EC2 ids of container instances by ARN."""
    calls = (
        aws.call("ecs", "DescribeContainerInstances", cluster=cluster, containerInstances=part)
        for part in _batches(sorted(arns))
    )
    found = (c for answer in await asyncio.gather(*calls) for c in answer["containerInstances"])
    return {c["containerInstanceArn"]: c["ec2InstanceId"] for c in found}


@dataclass(frozen=True, slots=True)
class Host:
    """A container instance: its EC2 id, whether its agent accepts tasks, and whether it is free.

    Free means that all its CPU is: ECS's task count omits stopping tasks, which still use CPU.
    """

    instance: str
    ready: bool
    empty: bool


async def hosts(aws: AWS, cluster: str) -> list[Host]:
    """Return the container instances of a cluster."""
    arns = await aws.pages("ecs", "ListContainerInstances", "containerInstanceArns", cluster=cluster)
    calls = (
        aws.call("ecs", "DescribeContainerInstances", cluster=cluster, containerInstances=part)
        for part in _batches(arns)
    )
    found = (c for answer in await asyncio.gather(*calls) for c in answer["containerInstances"])
    return [
        Host(
            c["ec2InstanceId"],
            c["status"] == "ACTIVE" and c["agentConnected"],
            _cpu(c["remainingResources"]) == _cpu(c["registeredResources"]),
        )
        for c in found
    ]


def _cpu(resources: list[dict[str, Any]]) -> int:
    return sum(r["integerValue"] for r in resources if r["name"] == "CPU")


async def cluster_providers(aws: AWS, name: str) -> list[str] | None:
    """Return the names of a cluster's capacity providers; None if the cluster does not exist."""
    answer = await aws.call("ecs", "DescribeClusters", clusters=[name])
    active = [c for c in answer["clusters"] if c["status"] == "ACTIVE"]
    return list(active[0].get("capacityProviders", [])) if active else None


async def detach_providers(aws: AWS, cluster: str) -> None:
    """Remove all capacity providers from a cluster."""
    await delete(
        aws,
        "ecs",
        "PutClusterCapacityProviders",
        cluster=cluster,
        capacityProviders=[],
        defaultCapacityProviderStrategy=[],
    )


async def remove_providers(aws: AWS, names: list[str]) -> None:
    """Delete the existing ones of these capacity providers. No cluster may use them any more."""
    for name in await _providers(aws, names) if names else ():
        try:
            await aws.call("ecs", "DeleteCapacityProvider", capacityProvider=name)
        except StarburstError as error:
            if code_of(error) != "ClientException":
                raise
            # ECS's error while the cluster is still detaching the provider.
            raise AWSError(str(error), code="UpdateInProgressException", operation=error.operation) from error


async def remove_cluster(aws: AWS, name: str) -> None:
    """Deregister the remaining container instances of a cluster, and delete it."""
    if await cluster_providers(aws, name) is None:
        return
    for arn in await aws.pages("ecs", "ListContainerInstances", "containerInstanceArns", cluster=name):
        await aws.call("ecs", "DeregisterContainerInstance", cluster=name, containerInstance=arn, force=True)
    await delete(aws, "ecs", "DeleteCluster", cluster=name)


async def deregister_definitions(aws: AWS, prefix: str) -> None:
    """Deregister all task definitions of families with a prefix."""
    families = await aws.pages("ecs", "ListTaskDefinitionFamilies", "families", familyPrefix=prefix, status="ACTIVE")
    for family in families:
        for arn in await aws.pages("ecs", "ListTaskDefinitions", "taskDefinitionArns", familyPrefix=family):
            await deregister_definition(aws, arn)


async def deregister_definition(aws: AWS, arn: str) -> None:
    """Deregister a task definition, which AWS then keeps as INACTIVE. No-op if it is not active."""
    try:
        await aws.call("ecs", "DeregisterTaskDefinition", taskDefinition=arn)
    except StarburstError as error:
        if code_of(error) not in MISSING | {"ClientException", "InvalidParameterException"}:
            raise


def _batches(items: list[str]) -> list[list[str]]:
    return [list(part) for part in partition_all(BATCH, items)]


def _task(answer: dict[str, Any]) -> Task:
    instance = answer.get("containerInstanceArn")
    place = place_of(answer.get("overrides", {}), instance)
    unplaced = instance is None and place is not None
    containers = answer.get("containers", [])
    reasons = [answer.get("stoppedReason", ""), *(c.get("reason", "") for c in containers)]
    codes = [c["exitCode"] for c in containers if "exitCode" in c]
    reason = "; ".join(dict.fromkeys(filter(None, reasons)))
    found = meaning(reason)
    return Task(
        arn=answer["taskArn"],
        worker=place.worker if place else "",
        launch=place.launch if place else 0,
        status=answer["lastStatus"],
        instance=_target(answer["taskArn"], place.container_instance) if unplaced and place else instance,
        reason=reason,
        exit_code=codes[0] if codes else None,
        passing=placement_passes(reason) if unplaced else found is not None and found.kind == "passing",
        aws_failed=unplaced or (found is not None and found.kind in ("passing", "network")),
        placed=not unplaced,
    )


def _target(task: str, container_instance: str) -> str:
    """Return the ARN of the container instance of a task's cluster with this id."""
    return f"{task.rpartition('/')[0].replace(':task/', ':container-instance/')}/{container_instance}"


def _tags(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": k, "value": v} for k, v in tags.items()]
