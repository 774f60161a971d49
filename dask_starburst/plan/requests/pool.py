"""The resources of a pool, as the requests that create them.

A pool's name contains a hash of the inputs of all its resources. So a resource of that name always
has the same content: creating it again is harmless, and two different pools never share one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dask_starburst.catalog.markets import Market
from dask_starburst.plan.groups import DEFAULT, HEAD, Placement
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE, PARAMETER_ROOT
from dask_starburst.plan.requests.reuse import SPEC_TAG

#: Incremented when the resources below change, so that old pools are not reused.
LAYOUT = 4
LEASE_ACTION = f"{NAMESPACE}-lease"
#: Seconds without a task after which an instance terminates itself, and the margin above any timeout of the client.
HOST_IDLE_LIMIT = 300
_HOST_IDLE_MARGIN = 120
#: Short, because AWS limits the length of names, and only a few pools have to be told apart.
_HASH_LENGTH = 8


@dataclass(frozen=True, slots=True)
class PlacementSpec:
    """The inputs of the resources of one placement: its machine image, and the instance types that it may launch."""

    placement: Placement
    image_id: str
    types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """All inputs of the resources of a pool.

    `host_idle_limit` is in seconds. `public`: whether instances have public addresses. `own_groups`: the user's
    security groups, in place of `security_group` and the scheduler's.
    """

    region: str
    subnet: str
    vpc: str
    parts: tuple[PlacementSpec, ...]
    volume_gib: int
    security_group: str
    instance_profile: str
    boot_script: str
    tags: Mapping[str, str]
    host_idle_limit: int = HOST_IDLE_LIMIT
    container_insights: str = "disabled"
    public: bool = True
    own_groups: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """A short hash of all inputs."""
        content = json.dumps({"layout": LAYOUT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:_HASH_LENGTH]

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Its placements, the scheduler's first."""
        return tuple(part.placement for part in self.parts)

    def part(self, placement: Placement) -> PlacementSpec:
        """Return the part of one placement."""
        return next(part for part in self.parts if part.placement == placement)

    def pool_name(self, slot: int) -> str:
        """Return the name of the pool in `slot`: a cluster claims the first free one."""
        return f"{NAMESPACE}-{self.digest}-{slot}"


@dataclass(frozen=True, slots=True)
class PoolNames:
    """The names of a pool's resources, derived from the name of the pool."""

    pool: str

    @property
    def claim(self) -> str:
        """The path of the SSM parameters that say who has claimed the pool, see `claims`."""
        return f"{PARAMETER_ROOT}claims/{self.pool}"

    @property
    def secret(self) -> str:
        """The SSM SecureString with the certificates of the cluster that has claimed the pool."""
        return f"{PARAMETER_ROOT}tls/{self.pool}"

    def group(self, placement: Placement) -> str:
        """The name of the launch template, Auto Scaling group and capacity provider of a placement."""
        return f"{self.pool}-{placement}"

    def family(self, role: str, group: str = DEFAULT) -> str:
        """The task definition family of ``scheduler``, or of the ``worker`` of a group."""
        return f"{self.pool}-{role}" if group in (HEAD, DEFAULT) else f"{self.pool}-{role}-{group}"


def tags_of(pool: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of every resource of a pool."""
    return {**tags, MANAGED_TAG: pool}


def host_idle_limit(*waits: float) -> int:
    """Return the seconds without a task after which an instance terminates itself.

    It is longer than each of `waits`: times for which an instance intentionally has no running task, such
    as while its first task pulls the image. Instances kept for reuse have the tag `reuse.WARM_TAG` on their
    group instead, because that time changes.
    """
    return max([HOST_IDLE_LIMIT, *(math.ceil(wait) + _HOST_IDLE_MARGIN for wait in waits)])


def user_data(spec: PoolSpec, pool: str, placement: Placement) -> str:
    """Return the boot script of the instances of one placement of a pool."""
    values = {
        "@CLUSTER@": pool,
        "@GROUP@": PoolNames(pool).group(placement),
        "@IDLE_LIMIT@": str(spec.host_idle_limit),
    }
    script = spec.boot_script
    for name, value in values.items():
        script = script.replace(name, value)
    return script


def launch_template_data(
    spec: PoolSpec, pool: str, placement: Placement, security_groups: list[str], user_data: str
) -> dict[str, Any]:
    """Return the launch template of one placement.

    IMDSv2 is required; hop limit 2, because a container in bridge mode is one hop away
    (aws-facts §4.1). The volume is encrypted with the account's default key. A shutdown from within
    terminates: the reaper on the instance (runtime/host/reaper.py) relies on it.
    """
    # A Name tag of the user takes precedence; EC2 rejects a key that is given twice.
    part = spec.part(placement)
    names = {"Name": PoolNames(pool).group(placement), **tags_of(pool, spec.tags)}
    tags = [{"Key": k, "Value": v} for k, v in names.items()]
    return {
        "ImageId": part.image_id,
        "InstanceType": part.types[0],
        "IamInstanceProfile": {"Name": spec.instance_profile},
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpEndpoint": "enabled",
            "HttpPutResponseHopLimit": 2,
        },
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {
                    "VolumeSize": spec.volume_gib,
                    "VolumeType": "gp3",
                    "Encrypted": True,
                    "DeleteOnTermination": True,
                },
            }
        ],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "AssociatePublicIpAddress": spec.public,
                "Groups": security_groups,
                "DeleteOnTermination": True,
            }
        ],
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": tags},
            {"ResourceType": "volume", "Tags": tags},
            {"ResourceType": "network-interface", "Tags": tags},  # its public address is billed
        ],
        "UserData": user_data,
    }


def group_request(spec: PoolSpec, pool: str, placement: Placement) -> dict[str, Any]:
    """Return the CreateAutoScalingGroup request of one placement, initially without capacity.

    One subnet: no traffic between zones, and no rebalancing that terminates instances.
    Scale-in protection stays off, because it would disable the lease.
    """
    name = PoolNames(pool).group(placement)
    return {
        "AutoScalingGroupName": name,
        "MinSize": 0,
        "MaxSize": 0,
        "DesiredCapacity": 0,
        "VPCZoneIdentifier": spec.subnet,
        "NewInstancesProtectedFromScaleIn": False,
        "MixedInstancesPolicy": purchases(name, spec.part(placement).types, placement.market),
        "Tags": [
            *({"Key": k, "Value": v, "PropagateAtLaunch": True} for k, v in tags_of(pool, spec.tags).items()),
            {"Key": SPEC_TAG, "Value": spec.digest, "PropagateAtLaunch": False},
        ],
    }


def purchases(template: str, types: tuple[str, ...], market: Market) -> dict[str, Any]:
    """Return the MixedInstancesPolicy for these types, with the launch template of this name.

    AWS recommends ``price-capacity-optimized`` for Spot (aws-facts §4.3); on demand, AWS launches the first
    type with capacity.
    """
    return {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateName": template, "Version": "1"},
            "Overrides": [{"InstanceType": name} for name in types],
        },
        "InstancesDistribution": {
            "OnDemandAllocationStrategy": "prioritized",
            "OnDemandBaseCapacity": 0,
            "OnDemandPercentageAboveBaseCapacity": 0 if market is Market.SPOT else 100,
            "SpotAllocationStrategy": "price-capacity-optimized",
        },
    }


def provider_request(pool: str, placement: Placement, group_arn: str) -> dict[str, Any]:
    """Return the CreateCapacityProvider request: for placement only, without managed scaling (finding 1, 2)."""
    return {
        "name": PoolNames(pool).group(placement),
        "autoScalingGroupProvider": {
            "autoScalingGroupArn": group_arn,
            "managedScaling": {"status": "DISABLED"},
            "managedTerminationProtection": "DISABLED",
            "managedDraining": "DISABLED",
        },
    }
