"""What a pool is made of, as the requests that make it.

A pool's name holds a hash of all that its objects are made from. So an object of that name always
has the same content: making it again is harmless, and two different pools never share one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dask_starburst.plan.loop.state import HEAD
from dask_starburst.plan.requests.policies import MANAGED_TAG, NAMESPACE, PARAMETER_ROOT
from dask_starburst.plan.requests.reuse import SPEC_TAG

#: Bumped when the shape of the objects below changes, so that old pools are not reused.
LAYOUT = 3
LEASE_ACTION = f"{NAMESPACE}-lease"
#: Seconds without a task after which an instance ends itself, and how much later than any wait of ours that has to be.
HOST_IDLE_LIMIT = 300
_HOST_IDLE_MARGIN = 120
#: The groups that workers may run in by the policy, the preferred one first. A capacity ladder.
FALLBACK_GROUPS: Mapping[str, tuple[str, ...]] = {
    "spot": ("spot",),
    "on-demand": ("on-demand",),
    "spot_with_fallback": ("spot", "on-demand"),
}
#: AWS allows one unit more than it needs; the hash only has to keep a handful of pools apart.
_HASH_LENGTH = 8


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """Everything that the objects of a pool are made from; `host_idle_limit` in seconds."""

    region: str
    arch: str
    image_id: str
    subnet: str
    vpc: str
    worker_types: tuple[str, ...]
    head_type: str
    worker_groups: tuple[str, ...]
    volume_gib: int
    security_group: str
    instance_profile: str
    boot_script: str
    tags: Mapping[str, str]
    host_idle_limit: int = HOST_IDLE_LIMIT

    @property
    def digest(self) -> str:
        """A short hash over all of it."""
        content = json.dumps({"layout": LAYOUT, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:_HASH_LENGTH]

    def pool_name(self, slot: int) -> str:
        """Return the name of the pool in `slot`: a cluster checks out the first free one."""
        return f"{NAMESPACE}-{self.digest}-{slot}"


@dataclass(frozen=True, slots=True)
class PoolNames:
    """The names of a pool's objects, all derived from the pool's own."""

    pool: str

    @property
    def claim(self) -> str:
        """The SSM parameter whose existence means that somebody has checked the pool out."""
        return f"{PARAMETER_ROOT}claims/{self.pool}"

    @property
    def secret(self) -> str:
        """The SSM SecureString with the certificates of the cluster that holds the pool."""
        return f"{PARAMETER_ROOT}tls/{self.pool}"

    def group(self, group: str) -> str:
        """The launch template, Auto Scaling group and capacity provider of a group."""
        return f"{self.pool}-{group}"

    def family(self, role: str) -> str:
        """The task definition family of ``scheduler`` or ``worker``."""
        return f"{self.pool}-{role}"


def tags_of(pool: str, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of everything that belongs to a pool."""
    return {**tags, MANAGED_TAG: pool}


def host_idle_limit(*waits: float) -> int:
    """Return how long an instance may have no task before it ends itself (seconds).

    Longer than each of `waits`, for which we leave an instance without a task that runs on purpose, such
    as while its first task pulls an image. What is kept warm has a tag on its group instead, `warm.WARM_TAG`,
    because its time changes.
    """
    return max([HOST_IDLE_LIMIT, *(math.ceil(wait) + _HOST_IDLE_MARGIN for wait in waits)])


def user_data(spec: PoolSpec, pool: str, group: str) -> str:
    """Return the boot script of the instances of one group of a pool."""
    values = {
        "@CLUSTER@": pool,
        "@GROUP@": PoolNames(pool).group(group),
        "@IDLE_LIMIT@": str(spec.host_idle_limit),
    }
    script = spec.boot_script
    for name, value in values.items():
        script = script.replace(name, value)
    return script


def launch_template_data(
    spec: PoolSpec, pool: str, group: str, security_groups: list[str], user_data: str
) -> dict[str, Any]:
    """Return the launch template of one group.

    IMDSv2 is required; hop limit 2, because a container in bridge mode is one hop away
    (aws-facts §4.1). The volume is encrypted with the account's default key. A shutdown from within
    terminates: the reaper on the instance (runtime/host/reaper.py) counts on it.
    """
    # A name that the user has chosen counts; EC2 refuses a key that is given twice.
    names = {"Name": f"{pool}-{group}", **tags_of(pool, spec.tags)}
    tags = [{"Key": k, "Value": v} for k, v in names.items()]
    return {
        "ImageId": spec.image_id,
        "InstanceType": spec.head_type if group == HEAD else spec.worker_types[0],
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
                "AssociatePublicIpAddress": True,
                "Groups": security_groups,
                "DeleteOnTermination": True,
            }
        ],
        "TagSpecifications": [
            {"ResourceType": "instance", "Tags": tags},
            {"ResourceType": "volume", "Tags": tags},
            {"ResourceType": "network-interface", "Tags": tags},  # which has the public address that is billed
        ],
        "UserData": user_data,
    }


def group_request(spec: PoolSpec, pool: str, group: str) -> dict[str, Any]:
    """Return the CreateAutoScalingGroup request of one group, born with no capacity at all.

    One subnet: no traffic between zones, and no rebalancing that terminates instances of ours.
    Scale-in protection stays off, because it would make the lease powerless.
    """
    name = PoolNames(pool).group(group)
    return {
        "AutoScalingGroupName": name,
        "MinSize": 0,
        "MaxSize": 0,
        "DesiredCapacity": 0,
        "VPCZoneIdentifier": spec.subnet,
        "NewInstancesProtectedFromScaleIn": False,
        "MixedInstancesPolicy": purchases(name, types_of(spec, group), spot=group == "spot"),
        "Tags": [
            *({"Key": k, "Value": v, "PropagateAtLaunch": True} for k, v in tags_of(pool, spec.tags).items()),
            {"Key": SPEC_TAG, "Value": spec.digest, "PropagateAtLaunch": False},
        ],
    }


def types_of(spec: PoolSpec, group: str) -> tuple[str, ...]:
    """Return the instance types that a group is allowed to launch."""
    return (spec.head_type,) if group == HEAD else spec.worker_types


def purchases(template: str, types: tuple[str, ...], *, spot: bool) -> dict[str, Any]:
    """Return the MixedInstancesPolicy that buys these types, from a launch template of this name.

    AWS recommends ``price-capacity-optimized`` for Spot (aws-facts §4.3); on demand, the first type
    that AWS has is taken.
    """
    return {
        "LaunchTemplate": {
            "LaunchTemplateSpecification": {"LaunchTemplateName": template, "Version": "1"},
            "Overrides": [{"InstanceType": name} for name in types],
        },
        "InstancesDistribution": {
            "OnDemandAllocationStrategy": "prioritized",
            "OnDemandBaseCapacity": 0,
            "OnDemandPercentageAboveBaseCapacity": 0 if spot else 100,
            "SpotAllocationStrategy": "price-capacity-optimized",
        },
    }


def provider_request(pool: str, group: str, group_arn: str) -> dict[str, Any]:
    """Return the CreateCapacityProvider request: placement only, AWS manages nothing (finding 1, 2)."""
    return {
        "name": PoolNames(pool).group(group),
        "autoScalingGroupProvider": {
            "autoScalingGroupArn": group_arn,
            "managedScaling": {"status": "DISABLED"},
            "managedTerminationProtection": "DISABLED",
            "managedDraining": "DISABLED",
        },
    }
