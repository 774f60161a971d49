"""ECS's calls, and what its agent calls on an instance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from dask_starburst.local.http.protocols import Request
from dask_starburst.local.iam.calls.inventory import Inventory, Rule, pass_role, request_tags, resource_tags
from dask_starburst.local.iam.model import Check, Context

_TASKS = "ecs-tasks.amazonaws.com"


def _short(name: str | None) -> str:
    return (name or "default").rpartition("/")[2]


def _cluster_arn(inventory: Inventory, name: str | None) -> str:
    return inventory.arn("ecs", f"cluster/{_short(name)}")


def _cluster_tags(inventory: Inventory, name: str | None) -> Context:
    found = inventory.backend.clusters.get(_short(name))
    return resource_tags("ecs", found.tags) if found else {}


def _on_cluster(action: str, key: str = "cluster") -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        name = request.get(key)
        yield Check(f"ecs:{action}", _cluster_arn(inventory, name), _cluster_tags(inventory, name))

    return rule


def _tagged(inventory: Inventory, request: Request, arn: str, action: str) -> list[Check]:
    """Return the check of TagResource, which tags on creation need."""
    tags = request_tags(request.get("tags"))
    return [Check("ecs:TagResource", arn, {**tags, "ecs:createaction": (action,)})] if tags else []


def _create_cluster(inventory: Inventory, request: Request) -> Iterator[Check]:
    """Without the right to create ECS's service-linked role, the role is not created, and the call succeeds."""
    arn = _cluster_arn(inventory, request.get("clusterName"))
    yield Check("ecs:CreateCluster", arn, request_tags(request.get("tags")))
    yield from _tagged(inventory, request, arn, "CreateCluster")


def _describe_clusters(inventory: Inventory, request: Request) -> Iterator[Check]:
    for name in request.get("clusters") or ["default"]:
        yield Check("ecs:DescribeClusters", _cluster_arn(inventory, name), _cluster_tags(inventory, name))


def _provider_arn(inventory: Inventory, name: str) -> str:
    return inventory.arn("ecs", f"capacity-provider/{_short(name)}")


def _provider_tags(inventory: Inventory, name: str) -> Context:
    found = inventory.backend.providers.get(_short(name))
    return resource_tags("ecs", found.tags) if found else {}


def _create_provider(inventory: Inventory, request: Request) -> Iterator[Check]:
    """ECS tags the group with ``AmazonECSManaged``, with the caller's rights."""
    arn = _provider_arn(inventory, request["name"])
    yield Check("ecs:CreateCapacityProvider", arn, request_tags(request.get("tags")))
    yield from _tagged(inventory, request, arn, "CreateCapacityProvider")
    yield from _mark_group(inventory, request)


def _mark_group(inventory: Inventory, request: Request) -> Iterator[Check]:
    arn = (request.get("autoScalingGroupProvider") or {}).get("autoScalingGroupArn")
    for group in inventory.backend.groups.values():
        if arn in (group.arn, group.name):
            tags = {key: str(tag.get("Value", "")) for key, tag in group.tags.items()}
            context = {
                **resource_tags("autoscaling", tags),
                **request_tags([{"key": "AmazonECSManaged", "value": ""}]),
            }
            yield Check("autoscaling:CreateOrUpdateTags", group.arn, context)


def _on_provider(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        name = request["capacityProvider"]
        yield Check(f"ecs:{action}", _provider_arn(inventory, name), _provider_tags(inventory, name))

    return rule


def _describe_providers(inventory: Inventory, request: Request) -> Iterator[Check]:
    for name in request.get("capacityProviders") or ["*"]:
        yield Check("ecs:DescribeCapacityProviders", _provider_arn(inventory, name), _provider_tags(inventory, name))


def _put_providers(inventory: Inventory, request: Request) -> Iterator[Check]:
    name = request["cluster"]
    providers = tuple(_provider_arn(inventory, each) for each in request.get("capacityProviders", []))
    context = {"ecs:capacity-provider": providers} if providers else {}
    arn = _cluster_arn(inventory, name)
    yield Check("ecs:PutClusterCapacityProviders", arn, {**context, **_cluster_tags(inventory, name)})


def _register(inventory: Inventory, request: Request) -> Iterator[Check]:
    arn = inventory.arn("ecs", f"task-definition/{request['family']}:*")
    yield Check("ecs:RegisterTaskDefinition", arn, request_tags(request.get("tags")))
    yield from _tagged(inventory, request, arn, "RegisterTaskDefinition")
    yield from _passed(inventory, request)


def _passed(inventory: Inventory, *holders: Mapping[str, Any]) -> Iterator[Check]:
    named = (holder.get(key) for holder in holders for key in ("taskRoleArn", "executionRoleArn"))
    for role in dict.fromkeys(filter(None, named)):
        yield pass_role(inventory.role_arn(role), _TASKS)


def _run(inventory: Inventory, request: Request) -> Iterator[Check]:
    cluster = request.get("cluster")
    family, _, revision = request["taskDefinition"].rpartition("/")[2].partition(":")
    found = [
        each
        for each in inventory.backend.definitions.get(family, [])
        if not revision or each.revision == int(revision if revision.isdigit() else 0)
    ]
    tags, strategy = request_tags(request.get("tags")), request.get("capacityProviderStrategy") or []
    context: dict[str, tuple[str, ...]] = {
        **tags,
        "ecs:cluster": (_cluster_arn(inventory, cluster),),
        "ecs:enable-execute-command": (str(request.get("enableExecuteCommand", False)).lower(),),
    }
    if strategy:
        context["ecs:capacity-provider"] = tuple(_provider_arn(inventory, s["capacityProvider"]) for s in strategy)
    if found:
        context |= resource_tags("ecs", found[-1].tags)
    number = str(found[-1].revision) if found else revision or "*"
    yield Check("ecs:RunTask", inventory.arn("ecs", f"task-definition/{family}:{number}"), context)
    yield from _tagged(inventory, request, inventory.arn("ecs", f"task/{_short(cluster)}/*"), "RunTask")
    document = found[-1].document if found else {}
    yield from _passed(inventory, {**document, **_roles(request.get("overrides") or {})})


def _roles(overrides: Mapping[str, Any]) -> dict[str, Any]:
    return {key: overrides[key] for key in ("taskRoleArn", "executionRoleArn") if overrides.get(key)}


def _in_cluster(inventory: Inventory, request: Request) -> Context:
    return {"ecs:cluster": (_cluster_arn(inventory, request.get("cluster")),)}


def _on_tasks(action: str, names: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        cluster = inventory.backend.clusters.get(_short(request.get("cluster")))
        given = request.get(names) or []
        for name in given if isinstance(given, list) else [given]:
            task = cluster.tasks.get(_short(name)) if cluster else None
            tags = resource_tags("ecs", task.tags) if task else {}
            arn = inventory.arn("ecs", f"task/{_short(request.get('cluster'))}/{_short(name)}")
            yield Check(f"ecs:{action}", arn, {**tags, **_in_cluster(inventory, request)})

    return rule


def _on_instances(action: str, names: str | None) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        found: Iterable[str] = (request.get(names) or []) if names else ["*"]
        for name in found:
            arn = inventory.arn("ecs", f"container-instance/{_short(request.get('cluster'))}/{_short(name)}")
            yield Check(f"ecs:{action}", arn, _in_cluster(inventory, request))

    return rule


def _tag(action: str) -> Rule:
    def rule(inventory: Inventory, request: Request) -> Iterator[Check]:
        yield Check(f"ecs:{action}", request["resourceArn"], request_tags(request.get("tags")))

    return rule


RULES: Mapping[str, Rule] = {
    "ecs:CreateCluster": _create_cluster,
    "ecs:DescribeClusters": _describe_clusters,
    "ecs:CreateCapacityProvider": _create_provider,
    "ecs:DescribeCapacityProviders": _describe_providers,
    "ecs:PutClusterCapacityProviders": _put_providers,
    "ecs:RegisterTaskDefinition": _register,
    "ecs:RunTask": _run,
    "ecs:StopTask": _on_tasks("StopTask", "task"),
    "ecs:DescribeTasks": _on_tasks("DescribeTasks", "tasks"),
    "ecs:ListTasks": _on_instances("ListTasks", None),
    "ecs:DescribeContainerInstances": _on_instances("DescribeContainerInstances", "containerInstances"),
    "ecs:UpdateContainerInstancesState": _on_instances("UpdateContainerInstancesState", "containerInstances"),
    "ecs:TagResource": _tag("TagResource"),
    "ecs:UntagResource": _tag("UntagResource"),
    "ecs:ListTagsForResource": _tag("ListTagsForResource"),
    **{f"ecs:{action}": _on_provider(action) for action in ("DeleteCapacityProvider", "UpdateCapacityProvider")},
    **{
        f"ecs:{action}": _on_cluster(action)
        for action in (
            "DeleteCluster",
            "UpdateCluster",
            "ListContainerInstances",
            "DeregisterContainerInstance",
        )
    },
}
