"""The adapter to moto's EC2: launches from templates, states, addresses, metadata."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from moto.core.exceptions import ServiceException
from moto.ec2.models import ec2_backends
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ssm.models import ssm_backends

from dask_starburst.local.backend.account import iam_backend
from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.backend.consistency import Consistency
from dask_starburst.local.backend.state import Ec2Instance
from dask_starburst.local.http.protocols import ServiceError
from dask_starburst.local.moto import patches
from dask_starburst.local.services.ec2.routes import has_way_out

GROUP_TAG = "aws:autoscaling:groupName"
_SHARED_ADDRESS = "127.0.0.1"


class Ec2:
    """The EC2 of one region.

    Parameters
    ----------
    region : str
        The region.
    aliases : bool
        Whether each instance has its own address. If not, all use 127.0.0.1.
    consistency : Consistency
        Decides which instance profiles EC2 does not accept yet.
    """

    def __init__(self, region: str, aliases: bool, consistency: Consistency) -> None:
        self._moto: Any = ec2_backends[ACCOUNT][region]
        self._region = region
        self._aliases = aliases
        self._consistency = consistency

    def template(self, specification: dict[str, Any]) -> Any:
        """Return the launch template version of a specification.

        Raises
        ------
        ServiceError
            It does not exist. The message is EC2's.
        """
        name, identity = specification.get("LaunchTemplateName"), specification.get("LaunchTemplateId")
        try:
            template = (
                self._moto.get_launch_template(identity) if identity else self._moto.get_launch_template_by_name(name)
            )
            return template.get_version(specification.get("Version") or "$Default")
        except ServiceException as error:
            raise ServiceError(error.code, error.message) from error
        except ValueError as error:
            raise ServiceError("InvalidLaunchTemplateVersion", "Invalid launch template version.") from error

    def zone_of(self, subnet_id: str) -> str | None:
        """Return the availability zone of a subnet; None if it does not exist."""
        subnets = {subnet.id: subnet for subnet in self._moto.describe_subnets()}
        return subnets[subnet_id].availability_zone if subnet_id in subnets else None

    def zones(self) -> list[str]:
        """Return the names of all availability zones."""
        return [zone.name for zone in self._moto.describe_availability_zones()]

    def zone_ids(self) -> dict[str, str]:
        """Return the ids of all availability zones by name."""
        return {zone.name: zone.zone_id for zone in self._moto.describe_availability_zones()}

    def type_of(self, specification: dict[str, Any]) -> str:
        """Return the instance type of a launch template."""
        return str(self.template(specification).data.get("InstanceType"))

    def check(self, specification: dict[str, Any], instance_type: str | None) -> None:
        """Validate a launch without launching.

        Raises
        ------
        ServiceError
            RunInstances would refuse it. The message is EC2's.
        """
        data = self.template(specification).data
        if not (instance_type or data.get("InstanceType")):
            raise ServiceError("MissingParameter", "The request must contain the parameter InstanceType")
        if (instance_type or data["InstanceType"]) not in INSTANCE_TYPES:
            raise ServiceError("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
        image = self._image(data.get("ImageId"))
        if not self._moto.describe_images(filters={"image-id": [image]}):
            raise ServiceError("InvalidAMIID.NotFound", f"The image id '[{image}]' does not exist")
        for group_id in _security_groups(data):
            hidden = self._consistency.hides_named("security-groups", group_id)
            if hidden or self._moto.get_security_group_from_id(group_id) is None:
                message = f"The security group '{group_id}' does not exist"
                raise ServiceError("InvalidGroup.NotFound", message)
        self._check_profile(data.get("IamInstanceProfile") or {})

    def launch(
        self, specification: dict[str, Any], instance_type: str | None, subnet_id: str, spot: bool, tags: dict[str, str]
    ) -> str:
        """Launch one instance for an Auto Scaling group and return its id.

        Raises
        ------
        ServiceError
            EC2 refuses it. The message is EC2's.
        """
        self.check(specification, instance_type)
        if spot:
            _check_spot_role()
        version = self.template(specification)
        data = version.data
        interface = (data.get("NetworkInterfaces") or [{}])[0]
        try:
            reservation = self._moto.run_instances(
                self._image(data["ImageId"]),
                1,
                data.get("UserData"),
                [],
                instance_type=instance_type or data["InstanceType"],
                is_instance_type_default=False,
                region_name=self._region,
                subnet_id=subnet_id,
                key_name=data.get("KeyName"),
                security_group_ids=_security_groups(data),
                associate_public_ip=interface.get("AssociatePublicIpAddress"),
                tags={"instance": {**version.instance_tags, **tags}},
                ebs_optimized=data.get("EbsOptimized") or False,
                instance_market_options="spot" if spot else {},
                launch_template={"LaunchTemplateId": version.template.id, "Version": version.number},
                metadata_options=data.get("MetadataOptions") or {},
                monitoring_state="enabled" if (data.get("Monitoring") or {}).get("Enabled") else "disabled",
            )
        except ServiceException as error:
            raise ServiceError(error.code, error.message) from error
        instance = reservation.instances[0]
        profile = data.get("IamInstanceProfile") or {}
        if profile:
            self._moto.associate_iam_instance_profile(
                instance.id,
                iam_instance_profile_name=profile.get("Name"),
                iam_instance_profile_arn=profile.get("Arn"),
            )
        return str(instance.id)

    def describe(self, instance: Any, now: float) -> Ec2Instance:
        """Return the backend's record of a new moto instance."""
        if not self._aliases:
            _share_one_address(instance)
        # moto's time is not virtual; it needs a datetime without a time zone.
        instance.launch_time = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
        kind = INSTANCE_TYPES[instance.instance_type]
        architectures = kind["ProcessorInfo"]["SupportedArchitectures"]
        agent = _agent_configuration(instance.user_data)
        tags = self._moto.tags.get(instance.id, {})  # get_tags() scans the tags of all resources
        return Ec2Instance(
            id=instance.id,
            instance_type=instance.instance_type,
            zone=instance.availability_zone,
            private_ip=instance.private_ip,
            lifecycle=instance.lifecycle or "on-demand",
            launched_at=now,
            vcpus=kind["VCpuInfo"]["DefaultVCpus"],
            memory=kind["MemoryInfo"]["SizeInMiB"],
            architecture="arm64" if "arm64" in architectures else "x86_64",
            group=tags.get(GROUP_TAG),
            cluster=agent.get("ECS_CLUSTER"),
            drains=agent.get("ECS_ENABLE_SPOT_INSTANCE_DRAINING") == "true",
            host_attributes=_host_attributes(agent.get("ECS_INSTANCE_ATTRIBUTES")),
            prefers_cached=agent.get("ECS_IMAGE_PULL_BEHAVIOR") in ("prefer-cached", "once"),
            interfaces=kind["NetworkInfo"]["MaximumNetworkInterfaces"],
        )

    def set_running(self, ec2_instance: Ec2Instance) -> None:
        """Set an instance to running, with its public address."""
        instance = self.instance(ec2_instance.id)
        patches.set_state(instance, "running")
        for interface in instance.nics.values():
            if interface.public_ip_auto_assign:
                interface.public_ip = interface.private_ip_address

    def reaches_ecs(self, ec2_instance: Ec2Instance) -> bool:
        """Return whether an instance has a way to ECS: a public address, NAT, or endpoints in its VPC."""
        instance = self.instance(ec2_instance.id)
        if any(interface.public_ip for interface in instance.nics.values()):
            return True
        return has_way_out(self._moto, instance.subnet_id, instance.vpc_id)

    def set_shutting_down(self, ec2_instance: Ec2Instance, now: float, reason: Any = None) -> None:
        """Set an instance to shutting-down at `now`, with a reason if the user did not request it."""
        instance = self.instance(ec2_instance.id)
        patches.set_state(instance, "shutting-down")
        if reason is not None:
            instance.state_reason = reason
        when = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
        patches.set_transition(instance, f"User initiated ({when})" if reason is None else reason.code)

    def set_terminated(self, ec2_instance: Ec2Instance) -> None:
        """Set an instance to terminated, and release its address and security groups."""
        instance = self.instance(ec2_instance.id)
        reason, transition = instance.state_reason, instance.state_transition_reason
        patches.finish_termination(instance)
        patches.set_transition(instance, transition)
        # moto treats every termination as the user's.
        if reason.code.startswith("Server."):
            instance.state_reason = reason

    def forget(self, ec2_instance: Ec2Instance) -> None:
        """Remove a terminated instance from DescribeInstances, with its tags."""
        patches.forget(self._moto, ec2_instance.id)
        reservations = self._moto.reservations
        for identity, reservation in list(reservations.items()):
            if any(instance.id == ec2_instance.id for instance in reservation.instances):
                reservation.instances = [one for one in reservation.instances if one.id != ec2_instance.id]
                if not reservation.instances:
                    del reservations[identity]

    def instance(self, instance_id: str) -> Any:
        """Return moto's record of an instance; None if there is none."""
        return self._moto.get_instance_by_id(instance_id)

    def user_data(self, instance_id: str) -> str:
        """Return the decoded user data of an instance; empty if it has none."""
        return _text(self.instance(instance_id).user_data)

    def role_of(self, instance_id: str) -> str | None:
        """Return the name of the role in an instance's profile."""
        association = self._moto.iam_instance_profile_associations.get(instance_id)
        if association is None or not association.iam_instance_profile.roles:
            return None
        return str(association.iam_instance_profile.roles[0].name)

    def _image(self, image: str | None) -> str | None:
        if not image or not image.startswith("resolve:ssm:"):
            return image
        parameter = ssm_backends[ACCOUNT][self._region].get_parameter(image.removeprefix("resolve:ssm:"))
        return str(parameter.value) if parameter else image

    def _check_profile(self, profile: dict[str, str]) -> None:
        profiles = iam_backend().get_instance_profiles()
        known = [one for one in profiles if self._consistency.profile_is_usable(one.name)]
        name, arn = profile.get("Name"), profile.get("Arn")
        if (name or arn) and not any(name == one.name or arn == one.arn for one in known):
            what = "name" if name else "arn"
            message = (
                f"Value ({name or arn}) for parameter iamInstanceProfile.{what} is invalid. "
                f"Invalid IAM Instance Profile {what}"
            )
            raise ServiceError("InvalidParameterValue", message)


def _check_spot_role() -> None:
    """Refuse Spot if the account lacks the service-linked role, which only the console creates by itself."""
    roles = iam_backend().roles.values()
    if not any(role.name == "AWSServiceRoleForEC2Spot" for role in roles):
        raise ServiceError(
            "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
            "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances.",
        )


def _security_groups(data: dict[str, Any]) -> list[str]:
    interface = (data.get("NetworkInterfaces") or [{}])[0]
    groups = interface.get("Groups") or data.get("SecurityGroupIds") or []
    return list(groups)


def _share_one_address(instance: Any) -> None:
    for interface in instance.nics.values():
        # moto tracks free addresses by this list, so its entry keeps the original address.
        interface.private_ip_address = _SHARED_ADDRESS


def _agent_configuration(user_data: Any) -> dict[str, str]:
    """Parse the settings of the ECS agent in user data, in any form of writing the file."""
    pattern = r"\b(ECS_[A-Z_]+)=(?:'([^'\n]*)'|\"([^\"\n]*)\"|(\{.*?\}|[^\s'\"]+))"
    found = re.findall(pattern, _text(user_data))
    return {name: single or double or bare for name, single, double, bare in found}


def _text(user_data: Any) -> str:
    if not user_data:
        return ""
    text = user_data.decode() if hasattr(user_data, "decode") else str(user_data)
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _host_attributes(text: str | None) -> dict[str, str]:
    try:
        attributes = json.loads(text or "{}")
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in attributes.items()}
