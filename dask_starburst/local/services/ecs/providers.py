"""The ECS API: capacity providers."""

from __future__ import annotations

from typing import Any

from dask_starburst.local.backend.state import CapacityProvider
from dask_starburst.local.backend.world import World, tag_dict, tag_list
from dask_starburst.local.http.protocols import Reply, Request
from dask_starburst.local.services.ecs.common import client_error, invalid, listing, missing, short, with_token
from dask_starburst.local.services.ecs.fargate import FARGATE_PROVIDERS

# Draining is on where nothing is said, which is the opposite of what workers without a service want.
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

    def __init__(self, world: World) -> None:
        self._world = world

    def create_capacity_provider(self, request: Request) -> Reply:
        """Make a capacity provider over an Auto Scaling group that exists."""
        name = request["name"]
        if name.lower().startswith(("aws", "ecs", "fargate")):
            raise client_error(
                "The specified capacity provider name is invalid. Names cannot be prefixed with aws, ecs or fargate."
            )
        if name in self._world.providers:
            raise client_error(
                "The specified capacity provider already exists. To change the configuration of an existing "
                "capacity provider, update the capacity provider."
            )
        wanted = request.get("autoScalingGroupProvider")
        if wanted is None:
            raise invalid("The embedded AWS has capacity providers over Auto Scaling groups only.")
        provider = CapacityProvider(
            name=name,
            arn=self._world.arn("ecs", f"capacity-provider/{name}"),
            group=self._group(wanted["autoScalingGroupArn"]),
            settings=_merged(_DEFAULTS, wanted),
            tags=tag_dict(request.get("tags")),
        )
        _check_protection(provider)
        self._world.providers[name] = provider
        return {"capacityProvider": describe_provider(provider)}

    def update_capacity_provider(self, request: Request) -> Reply:
        """Change the settings of a capacity provider."""
        provider = self._world.providers.get(short(request["name"]))
        if provider is None:
            raise client_error(
                "The specified capacity provider does not exist. Specify a valid name or ARN and try again."
            )
        provider.settings = _merged(provider.settings, request.get("autoScalingGroupProvider") or {})
        return {"capacityProvider": describe_provider(provider, "UPDATE_COMPLETE")}

    def describe_capacity_providers(self, request: Request) -> Reply:
        """Describe capacity providers, all of them if none is named."""
        wanted = [short(name) for name in request.get("capacityProviders", [])]
        known = self._world.providers
        failures = [
            missing(self._world.arn("ecs", f"capacity-provider/{name}")) for name in wanted if name not in known
        ]
        chosen, token = listing([name for name in (wanted or sorted(known)) if name in known], request)
        described = [describe_provider(known[name]) for name in chosen]
        return with_token({"capacityProviders": described, "failures": failures}, token)

    def _group(self, arn: str) -> str:
        name = arn.rsplit("autoScalingGroupName/", 1)[-1]
        group = self._world.groups.get(name)
        if group is None or group.deleting:
            raise client_error(
                "The specified Auto Scaling group does not exist. Specify a valid name or ARN and try again."
            )
        return name


def _merged(before: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    scaling = {**before["managedScaling"], **wanted.get("managedScaling", {})}
    return {**before, **wanted, "managedScaling": scaling}


def _check_protection(provider: CapacityProvider) -> None:
    protected = provider.settings["managedTerminationProtection"] == "ENABLED"
    if protected and provider.settings["managedScaling"]["status"] != "ENABLED":
        raise invalid(
            "The managed termination protection setting for the capacity provider is invalid. To enable managed "
            "termination protection for a capacity provider, enable managed scaling."
        )


def describe_provider(provider: CapacityProvider, update: str | None = None) -> dict[str, Any]:
    """Write a capacity provider as DescribeCapacityProviders does."""
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
