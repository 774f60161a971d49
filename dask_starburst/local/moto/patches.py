"""Every change that we make to moto, in one place.

Each has a test in ``tests/local/moto/test_contract_moto.py``, or in ``tests/local/faults/test_faults.py`` where only a
fault shows it. Because of this file moto is pinned to a patch series.
"""

from __future__ import annotations

import functools
import os
from typing import Any, Protocol

from moto import settings
from moto.core import responses as core_responses
from moto.ec2.exceptions import (
    DependencyViolationError,
    EC2ClientError,
    InvalidInstanceIdError,
    InvalidInstanceTypeError,
    InvalidLaunchTemplateIdNotFound,
    InvalidLaunchTemplateNameNotFoundError,
)
from moto.ec2.models import EC2Backend
from moto.ec2.models import vpcs as vpc_models
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState
from moto.ec2.models.launch_templates import LaunchTemplateBackend
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.ec2.responses import instances as instance_responses
from moto.iam import models as iam_models
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend
from moto.iam.responses import IamResponse

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48}


class Hooks(Protocol):
    """What the patches tell the world."""

    def launched(self, instance: Any) -> None:
        """Hear of a new instance, which is pending."""

    def terminating(self, instance_id: str) -> None:
        """Hear that somebody terminates an instance."""

    def made(self, what: str, name: str) -> None:
        """Hear of a new launch template or instance profile."""

    def hides(self, what: str, name: str) -> bool:
        """Whether it cannot be seen yet."""

    def profile_is_usable(self, name: str) -> bool:
        """Whether EC2 knows an instance profile already."""


def install(hooks: Hooks, cidr: str) -> None:
    """Patch moto, once in a process.

    Parameters
    ----------
    hooks : Hooks
        Who hears of launches and terminations.
    cidr : str
        The network of the default VPC of every region: a /16 of loopback addresses.
    """
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    settings.EC2_ENABLE_INSTANCE_TYPE_VALIDATION = True
    settings.ENABLE_AMI_VALIDATION = True
    _let_instances_live(hooks)
    _move_the_default_vpc(cidr)
    _refuse_as_aws_does(hooks)
    _be_eventually_consistent(hooks)
    _find_by_id_at_once()
    _tell_vcpus()
    _know_the_policies_of_one_partition()
    # AWSServiceRoleForECS and AWSServiceRoleForEC2Spot, not moto's "ecs" and "spot".
    iam_models.SERVICE_NAME_CONVERSION.update(ecs="ECS", spot="EC2Spot")
    # It inspects the whole response class for every single object of a DescribeInstances reply.
    cached = functools.lru_cache(maxsize=None)(core_responses.method_names_from_class)
    core_responses.method_names_from_class = cached


def _know_the_policies_of_one_partition() -> None:
    """Moto asks six partitions for the access key of a call, and each reads 1,500 policies first: a second in all."""
    read = IAMBackend._init_aws_policies

    @functools.wraps(read)
    def init_aws_policies(self: Any) -> list[Any]:
        return read(self) if self.region_name == "aws" else []

    IAMBackend._init_aws_policies = init_aws_policies


def set_state(instance: Any, name: str) -> None:
    """Set the state of one of moto's instances without any of moto's own consequences."""
    instance._state = InstanceState(name, STATES[name])


def set_transition(instance: Any, text: str | None) -> None:
    """Set what DescribeInstances says of the last change of state: moto's own is not of the virtual clock."""
    instance._reason = text


def forget(backend: Any, instance_id: str) -> None:
    """Remove what moto and these patches keep of an instance that is not shown any more."""
    backend.tags.pop(instance_id, None)
    backend.__dict__.get("reservation_of", {}).pop(instance_id, None)


def finish_termination(instance: Any) -> None:
    """Do what moto does when an instance is terminated, and what it forgets: the interfaces go too."""
    for interface in instance.nics.values():
        interface.delete_on_termination = True
    _moto_terminate(instance)


_moto_terminate = Instance.terminate


def _let_instances_live(hooks: Hooks) -> None:
    """Instances of moto run at once and end at once; ours do both when the engine says so."""
    run = InstanceBackend.run_instances

    @functools.wraps(run)
    def run_instances(self: Any, *args: Any, **kwargs: Any) -> Any:
        # moto ignores the client token; "ABCDE" is what its API layer gives when there is none.
        reservations = self.__dict__.setdefault("reservation_by_token", {})
        token = kwargs.get("client_token")
        if token in reservations:
            return reservations[token]
        try:
            reservation = run(self, *args, **kwargs)
        except InvalidInstanceTypeError as error:
            wanted = kwargs.get("instance_type")
            raise EC2ClientError("InvalidParameterValue", f"Invalid value '{wanted}' for InstanceType.") from error
        if token and token != "ABCDE":
            reservations[token] = reservation
        for instance in reservation.instances:
            set_state(instance, "pending")
            hooks.launched(instance)
        return reservation

    def terminate(self: Any) -> InstanceState:
        previous = InstanceState(self._state.name, self._state.code)
        hooks.terminating(self.id)
        return previous

    InstanceBackend.run_instances = run_instances
    Instance.terminate = terminate
    # A public address comes only with "running", and then it is the private one, which can be reached here.
    NetworkInterface.check_auto_public_ip = lambda self: None


def _move_the_default_vpc(cidr: str) -> None:
    """Give the default VPC addresses that processes here can bind, and the gateway that AWS gives it."""

    def create_default_vpc(self: Any) -> Any:
        vpc = self.create_vpc(cidr_block=cidr, is_default=True)
        for zone in self.describe_availability_zones():
            self.create_default_subnet(zone.name)
        gateway = self.create_internet_gateway()
        self.attach_internet_gateway(gateway.id, vpc.id)
        (main,) = self.describe_route_tables(filters={"vpc-id": vpc.id, "association.main": "true"})
        self.create_route(main.id, "0.0.0.0/0", gateway_id=gateway.id)
        return vpc

    vpc_models.VPCBackend.create_default_vpc = create_default_vpc
    EC2Backend.create_default_vpc = create_default_vpc


def _refuse_as_aws_does(hooks: Hooks) -> None:
    delete = SecurityGroupBackend.delete_security_group
    find_profile = instance_responses.filter_iam_instance_profiles

    @functools.wraps(delete)
    def delete_security_group(self: Any, name: str | None = None, group_id: str | None = None) -> None:
        group = self.get_security_group_by_name_or_id(group_id or name)
        if group is not None and _is_in_use(self, group.id):
            raise DependencyViolationError(f"resource {group.id} has a dependent object")
        delete(self, name, group_id)

    @functools.wraps(find_profile)
    def filter_iam_instance_profiles(*args: Any, **kwargs: Any) -> Any:
        # moto lets IAM's own "NoSuchEntity" with HTTP 404 through, in IAM's format.
        try:
            profile = find_profile(*args, **kwargs)
        except NotFoundException as error:
            raise _no_such_profile(kwargs) from error
        if profile is None or not hooks.profile_is_usable(profile.name):
            raise _no_such_profile(kwargs)
        return profile

    SecurityGroupBackend.delete_security_group = delete_security_group
    instance_responses.filter_iam_instance_profiles = filter_iam_instance_profiles


def _be_eventually_consistent(hooks: Hooks) -> None:
    """Launch templates and instance profiles that the weather hides are not there for those who ask."""
    make_template, find_templates = (
        LaunchTemplateBackend.create_launch_template,
        LaunchTemplateBackend.describe_launch_templates,
    )
    get_template = LaunchTemplateBackend.get_launch_template
    make_profile, show_profile = iam_models.IAMBackend.create_instance_profile, IamResponse.get_instance_profile

    @functools.wraps(make_template)
    def create_launch_template(self: Any, *args: Any, **kwargs: Any) -> Any:
        template = make_template(self, *args, **kwargs)
        hooks.made("launch-templates", template.id)
        return template

    @functools.wraps(find_templates)
    def describe_launch_templates(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = find_templates(self, *args, **kwargs)
        shown = [one for one in found if not hooks.hides("launch-templates", one.id)]
        if len(shown) < len(found) and (kwargs.get("template_names") or kwargs.get("template_ids")):
            raise InvalidLaunchTemplateNameNotFoundError
        return shown

    @functools.wraps(get_template)
    def get_launch_template(self: Any, template_id: str) -> Any:
        if hooks.hides("launch-templates", template_id):
            raise InvalidLaunchTemplateIdNotFound(template_id)
        return get_template(self, template_id)

    @functools.wraps(make_profile)
    def create_instance_profile(self: Any, *args: Any, **kwargs: Any) -> Any:
        profile = make_profile(self, *args, **kwargs)
        hooks.made("instance-profiles", profile.name)
        return profile

    @functools.wraps(show_profile)
    def get_instance_profile(self: Any) -> Any:
        name = self._get_param("InstanceProfileName")
        if hooks.hides("instance-profiles", name):
            raise NotFoundException(f"Instance Profile {name} cannot be found.")
        return show_profile(self)

    def list_instance_profiles(self: Any) -> Any:
        profiles = self.backend.get_instance_profiles()
        shown = [one for one in profiles if not hooks.hides("instance-profiles", one.name)]
        return core_responses.ActionResult({"InstanceProfiles": shown})

    LaunchTemplateBackend.create_launch_template = create_launch_template
    LaunchTemplateBackend.describe_launch_templates = describe_launch_templates
    LaunchTemplateBackend.get_launch_template = get_launch_template
    iam_models.IAMBackend.create_instance_profile = create_instance_profile
    IamResponse.get_instance_profile = get_instance_profile
    IamResponse.list_instance_profiles = list_instance_profiles


def _find_by_id_at_once() -> None:
    """Moto looks through 1,300 images and copies every reservation to find one of a known id, at each launch."""
    describe = AmiBackend.describe_images
    find = InstanceBackend.get_instance_by_id

    @functools.wraps(describe)
    def describe_images(self: Any, ami_ids: Any = None, filters: Any = None, *args: Any, **kwargs: Any) -> Any:
        wanted = (filters or {}).get("image-id")
        if ami_ids or wanted is None or len(filters) > 1 or args or kwargs:
            return describe(self, ami_ids, filters, *args, **kwargs)
        names = [wanted] if isinstance(wanted, str) else wanted
        if any("*" in name or "?" in name for name in names):
            return describe(self, ami_ids, filters)
        return [self.amis[name] for name in names if name in self.amis]

    @functools.wraps(find)
    def get_instance_by_id(self: Any, instance_id: str) -> Any:
        places = self.__dict__.setdefault("reservation_of", {})
        if places.get(instance_id) not in self.reservations:
            # The newest first: one that is asked for the first time has just been launched.
            held = ((r.id, one.id) for r in reversed(self.reservations.values()) for one in r.instances)
            place = next((name for name, one in held if one == instance_id), None)
            if place is None:
                return None
            places[instance_id] = place
        reservation = self.reservations.get(places[instance_id])
        instances = reservation.instances if reservation is not None else ()
        return next((one for one in instances if one.id == instance_id), None)

    @functools.wraps(InstanceBackend.get_instance)
    def get_instance(self: Any, instance_id: str) -> Any:
        found = get_instance_by_id(self, instance_id)
        if found is None:
            raise InvalidInstanceIdError(instance_id)
        return found

    AmiBackend.describe_images = describe_images
    InstanceBackend.get_instance_by_id = get_instance_by_id
    InstanceBackend.get_instance = get_instance


def _tell_vcpus() -> None:
    """Let DescribeInstances say how many vCPUs an instance has; moto leaves it out."""

    def cpu_options(self: Any) -> dict[str, int]:
        kind = INSTANCE_TYPES[self.instance_type]["VCpuInfo"]
        threads = kind.get("DefaultThreadsPerCore", 1)
        return {"CoreCount": kind["DefaultVCpus"] // threads, "ThreadsPerCore": threads}

    Instance.cpu_options = property(cpu_options)


def _is_in_use(backend: Any, group_id: str) -> bool:
    interfaces = list(backend.enis.values())
    if any(group.id == group_id for interface in interfaces for group in interface.group_set):
        return True
    groups = [group for groups in backend.groups.values() for group in groups.values() if group.id != group_id]
    rules = [rule for group in groups for rule in (*group.ingress_rules, *group.egress_rules)]
    return any(rule.source_group.get("GroupId") == group_id for rule in rules if rule.source_group)


def _no_such_profile(wanted: dict[str, Any]) -> EC2ClientError:
    by_name = wanted.get("iam_instance_profile_name")
    field, value = ("name", by_name) if by_name else ("arn", wanted.get("iam_instance_profile_arn"))
    return EC2ClientError(
        "InvalidParameterValue",
        f"Value ({value}) for parameter iamInstanceProfile.{field} is invalid. Invalid IAM Instance Profile {field}",
    )
