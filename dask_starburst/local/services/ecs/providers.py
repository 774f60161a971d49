"""The ECS API: capacity providers."""

from __future__ import annotations

from typing import Any

from dask_starburst.local.backend.backend import Backend, tag_dict, tag_list
from dask_starburst.local.backend.state import CapacityProvider, Group
from dask_starburst.local.http.protocols import Reply, Request
from dask_starburst.local.services.ecs.common import client_error, invalid, listing, missing, short, with_token
from dask_starburst.local.services.ecs.fargate import FARGATE_PROVIDERS

# Managed draining is on by default, although standalone tasks do not need it.
_DEFAULTS: dict[str, Any] = {
    "managedScaling": {
        "status": "DISABLED",
        "targetCapacity": 100,
        "minimumScalingStepSize": 1,
        "maximumScalingStepSize": 10000,
        "instanceWarmupPeriod": 300,
    },
    "managedTerminationProtection": "DISABLED",
    "managedDraining": "ENABLED",
}


class ProviderOperations:
    """Create, describe and update capacity providers over Auto Scaling groups."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def create_capacity_provider(self, request: Request) -> Reply:
        """Create a capacity provider over an existing Auto Scaling group."""
        name = request["name"]
        if name.lower().startswith(("aws", "ecs", "fargate")):
            raise client_error(
                "The specified capacity provider name is invalid. Names cannot be prefixed with aws, ecs or fargate."
            )
        if name in self._backend.providers:
            raise client_error(
                "The specified capacity provider already exists. To change the configuration of an existing "
                "capacity provider, update the capacity provider."
            )
        requested = request.get("autoScalingGroupProvider")
        if requested is None:
            raise invalid("The embedded AWS has capacity providers over Auto Scaling groups only.")
        group = self._group(requested["autoScalingGroupArn"])
        provider = CapacityProvider(
            name=name,
            arn=self._backend.arn("ecs", f"capacity-provider/{name}"),
            group=group.name,
            settings=_merged(_DEFAULTS, {**requested, "autoScalingGroupArn": group.arn}),
            tags=tag_dict(request.get("tags")),
        )
        _check_protection(provider)
        self._backend.providers[name] = provider
        return {"capacityProvider": describe_provider(provider)}

    def update_capacity_provider(self, request: Request) -> Reply:
        """Change the settings of a capacity provider."""
        provider = self._backend.providers.get(short(request["name"]))
        if provider is None:
            raise client_error(
                "The specified capacity provider does not exist. Specify a valid name or ARN and try again."
            )
        provider.settings = _merged(provider.settings, request.get("autoScalingGroupProvider") or {})
        return {"capacityProvider": describe_provider(provider, "UPDATE_COMPLETE")}

    def describe_capacity_providers(self, request: Request) -> Reply:
        """Describe capacity providers, by default all."""
        requested = [short(name) for name in request.get("capacityProviders", [])]
        known = self._backend.providers
        failures = [
            missing(self._backend.arn("ecs", f"capacity-provider/{name}")) for name in requested if name not in known
        ]
        chosen, token = listing([name for name in (requested or sorted(known)) if name in known], request)
        described = [describe_provider(known[name]) for name in chosen]
        return with_token({"capacityProviders": described, "failures": failures}, token)

    def _group(self, arn: str) -> Group:
        name = arn.rsplit("autoScalingGroupName/", 1)[-1]
        group = self._backend.groups.get(name)
        if group is None or group.deleting:
            raise client_error(
                "The specified Auto Scaling group does not exist. Specify a valid name or ARN and try again."
            )
        return group


def _merged(before: dict[str, Any], requested: dict[str, Any]) -> dict[str, Any]:
    scaling = {**before["managedScaling"], **requested.get("managedScaling", {})}
    return {**before, **requested, "managedScaling": scaling}


def _check_protection(provider: CapacityProvider) -> None:
    protected = provider.settings["managedTerminationProtection"] == "ENABLED"
    if protected and provider.settings["managedScaling"]["status"] != "ENABLED":
        raise invalid(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed "
            "termination protection for a capacity provider, enable managed scaling."
        )


def describe_provider(provider: CapacityProvider, update: str | None = None) -> dict[str, Any]:
    """Format a capacity provider as in DescribeCapacityProviders."""
    described: dict[str, Any] = {
        "capacityProviderArn": provider.arn,
        "name": provider.name,
        "status": provider.status,
        "tags": tag_list(provider.tags),
    }
    if provider.name in FARGATE_PROVIDERS:
        described["type"] = provider.name
    else:
        described.update(type="EC2_AUTOSCALING", autoScalingGroupProvider=provider.settings)
    return described if update is None else {**described, "updateStatus": update}
