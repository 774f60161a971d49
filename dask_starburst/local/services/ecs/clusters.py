"""The ECS API: clusters and account settings."""

from __future__ import annotations

from typing import Any

from dask_starburst.local.backend.backend import Backend, tag_dict, tag_list
from dask_starburst.local.backend.state import Cluster
from dask_starburst.local.http.protocols import Reply, Request, ServiceError
from dask_starburst.local.services.ecs.common import (
    assume_own_role,
    client_error,
    find_cluster,
    invalid,
    listing,
    missing,
    short,
    with_token,
)
from dask_starburst.local.services.ecs.fargate import FARGATE_PROVIDERS
from dask_starburst.local.services.ecs.providers import describe_provider

_INSIGHTS = "containerInsights"
# The account settings that can be changed here, and their values (ECS API reference, PutAccountSetting).
_CHANGEABLE = {_INSIGHTS: ("disabled", "enabled", "enhanced")}
# The default account settings.
_ACCOUNT_SETTINGS = {
    "serviceLongArnFormat": "enabled",
    "taskLongArnFormat": "enabled",
    "containerInstanceLongArnFormat": "enabled",
    "awsvpcTrunking": "disabled",
    _INSIGHTS: "disabled",
    "dualStackIPv6": "enabled",
    "fargateTaskRetirementWaitPeriod": "7",
    "tagResourceAuthorization": "on",
    "guardDutyActivate": "off",
    "defaultLogDriverMode": "non-blocking",
}


class ClusterOperations:
    """Create, describe and delete clusters."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._changed: dict[str, str] = {}

    def create_cluster(self, request: Request) -> Reply:
        """Create a cluster. An existing one is returned unchanged."""
        name = request.get("clusterName", "default")
        existing = self._backend.clusters.get(name)
        if existing is not None and existing.status == "ACTIVE":
            # An existing cluster is returned if the request matches it.
            requested = request.get("settings")
            if requested is not None and requested != existing.settings:
                raise invalid(
                    "Arguments on this idempotent request are inconsistent with arguments used in previous request(s)."
                )
            return {"cluster": self.describe(existing)}
        assume_own_role(self._backend)
        providers = request.get("capacityProviders", [])
        cluster = Cluster(
            name=name,
            arn=self._backend.arn("ecs", f"cluster/{name}"),
            settings=request.get("settings", [{"name": _INSIGHTS, "value": self._account_settings[_INSIGHTS]}]),
            tags=tag_dict(request.get("tags")),
            configuration=request.get("configuration"),
        )
        for provider in providers:
            if short(provider) not in self._backend.providers:
                raise invalid(
                    "The specified capacity provider was not found. Specify a valid name or ARN and try again."
                )
            cluster.providers.append(short(provider))
        cluster.default_strategy = request.get("defaultCapacityProviderStrategy", [])
        self._backend.clusters[name] = cluster
        return {"cluster": self.describe(cluster)}

    def describe_clusters(self, request: Request) -> Reply:
        """Describe clusters by name, by default the default cluster."""
        clusters, failures = [], []
        for name in request.get("clusters") or ["default"]:
            cluster = self._backend.clusters.get(short(name))
            if cluster is None:
                failures.append(missing(self._backend.arn("ecs", f"cluster/{short(name)}")))
            else:
                clusters.append(self.describe(cluster))
        return {"clusters": clusters, "failures": failures}

    def list_clusters(self, request: Request) -> Reply:
        """List the ARNs of active clusters."""
        arns = sorted(cluster.arn for cluster in self._backend.clusters.values() if cluster.status == "ACTIVE")
        chosen, token = listing(arns, request)
        return with_token({"clusterArns": chosen}, token)

    def delete_cluster(self, request: Request) -> Reply:
        """Delete a cluster without instances and tasks."""
        cluster = find_cluster(self._backend, request["cluster"])
        if cluster.instances:
            raise ServiceError(
                "ClusterContainsContainerInstancesException",
                "The Cluster cannot be deleted while Container Instances are active or draining.",
            )
        if any(task.status != "STOPPED" for task in cluster.tasks.values()):
            raise ServiceError("ClusterContainsTasksException", "The Cluster cannot be deleted while Tasks are active.")
        cluster.status = "INACTIVE"
        cluster.providers = []
        return {"cluster": self.describe(cluster)}

    def update_cluster_settings(self, request: Request) -> Reply:
        """Change the settings of a cluster."""
        cluster = find_cluster(self._backend, request["cluster"])
        cluster.settings = request["settings"]
        return {"cluster": self.describe(cluster)}

    def list_account_settings(self, request: Request) -> Reply:
        """List account settings."""
        name = request.get("name")
        # Without effectiveSettings AWS lists only changed settings.
        shown = self._account_settings if request.get("effectiveSettings") else self._changed
        return {"settings": [self._setting(key) for key in shown if name in (None, key)]}

    def put_account_setting(self, request: Request) -> Reply:
        """Change a setting of the root user, and so of all users without their own."""
        name, value = request["name"], request["value"]
        if name not in _CHANGEABLE or value not in _CHANGEABLE[name]:
            raise invalid(f"Invalid value {value} for the account setting {name}.")
        self._changed[name] = value
        return {"setting": self._setting(name)}

    def put_account_setting_default(self, request: Request) -> Reply:
        """Change a setting of all users; here, everyone is the root user."""
        return self.put_account_setting(request)

    @property
    def _account_settings(self) -> dict[str, str]:
        return {**_ACCOUNT_SETTINGS, **self._changed}

    def _setting(self, name: str) -> dict[str, str]:
        root = self._backend.arn("iam", "root").replace(f":{self._backend.region}:", "::")
        return {"name": name, "value": self._account_settings[name], "principalArn": root, "type": "user"}

    def describe(self, cluster: Cluster) -> dict[str, Any]:
        """Format a cluster as in DescribeClusters."""
        statuses = [task.status for task in cluster.tasks.values()]
        running = sum(status == "RUNNING" for status in statuses)
        pending = sum(status in ("PROVISIONING", "PENDING", "ACTIVATING") for status in statuses)
        described = {
            "clusterArn": cluster.arn,
            "clusterName": cluster.name,
            "status": cluster.status,
            "registeredContainerInstancesCount": len(cluster.instances),
            "runningTasksCount": running,
            "pendingTasksCount": pending,
            "activeServicesCount": 0,
            "statistics": [],
            "tags": tag_list(cluster.tags),
            "settings": cluster.settings,
            "capacityProviders": list(cluster.providers),
            "defaultCapacityProviderStrategy": cluster.default_strategy,
        }
        if cluster.configuration:
            described["configuration"] = cluster.configuration
        return described


class ProviderAssociations:
    """The capacity providers of clusters."""

    def __init__(self, backend: Backend, clusters: ClusterOperations) -> None:
        self._backend = backend
        self._clusters = clusters

    def put_cluster_capacity_providers(self, request: Request) -> Reply:
        """Replace the list of a cluster's capacity providers."""
        cluster = find_cluster(self._backend, request["cluster"])
        assume_own_role(self._backend)
        providers = [short(name) for name in request["capacityProviders"]]
        strategy = request["defaultCapacityProviderStrategy"]
        for name in providers:
            if name not in self._backend.providers:
                raise invalid(
                    "The specified capacity provider was not found. Specify a valid name or ARN and try again."
                )
        for item in strategy:
            if short(item["capacityProvider"]) not in providers:
                raise invalid(
                    "The default capacity provider strategy names a capacity provider that is not in the list."
                )
        for name in set(cluster.providers) - set(providers):
            if any(task.provider == name and task.status != "STOPPED" for task in cluster.tasks.values()):
                raise ServiceError(
                    "ResourceInUseException", "The specified capacity provider is in use and cannot be removed."
                )
        cluster.providers = providers
        cluster.default_strategy = strategy
        for instance in cluster.instances.values():
            instance.provider = self._backend.provider_of(instance.ec2_instance, cluster.name)
        return {"cluster": self._clusters.describe(cluster)}

    def delete_capacity_provider(self, request: Request) -> Reply:
        """Delete a capacity provider that no cluster uses."""
        provider = self._backend.providers.get(short(request["capacityProvider"]))
        if provider is None:
            raise client_error(
                "The specified capacity provider does not exist. Specify a valid name or ARN and try again."
            )
        if provider.name in FARGATE_PROVIDERS:
            raise client_error("The FARGATE and FARGATE_SPOT capacity providers are reserved and cannot be deleted.")
        users = [cluster.name for cluster in self._backend.clusters.values() if provider.name in cluster.providers]
        if users:
            raise client_error(
                "The capacity provider cannot be deleted because it is associated with cluster: "
                f"{', '.join(users)}. Remove the capacity provider from the cluster and try again."
            )
        del self._backend.providers[provider.name]
        provider.status = "INACTIVE"
        return {"capacityProvider": describe_provider(provider, "DELETE_COMPLETE")}
