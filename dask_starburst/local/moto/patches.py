"""All patches of moto, except those of ECR, `logs` and `visibility`.

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
)
from moto.ec2.models import EC2Backend
from moto.ec2.models import vpcs as vpc_models
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.elastic_network_interfaces import NetworkInterface
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import Instance, InstanceBackend, InstanceState
from moto.ec2.models.security_groups import SecurityGroupBackend
from moto.ec2.responses import instances as instance_responses
from moto.iam import models as iam_models
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend

from dask_starburst.local.backend.account import partition
from dask_starburst.local.moto import visibility
from dask_starburst.local.moto.logs import page_by_time

STATES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48}


class Hooks(visibility.Hooks, Protocol):
    """Calls from the patches to the backend."""

    def launched(self, instance: Any) -> None:
        """Handle a new instance in the state pending."""

    def terminating(self, instance_id: str) -> None:
        """Handle the termination of an instance."""

    def profile_is_usable(self, name: str) -> bool:
        """Return whether EC2 accepts an instance profile."""


def install(hooks: Hooks, cidr: str) -> None:
    """Patch moto, once in a process.

    Parameters
    ----------
    hooks : Hooks
        Receives launches and terminations.
    cidr : str
        The network of the default VPC of every region: a /16 of loopback addresses.
    """
    os.environ["MOTO_IAM_LOAD_MANAGED_POLICIES"] = "true"
    settings.EC2_ENABLE_INSTANCE_TYPE_VALIDATION = True
    settings.ENABLE_AMI_VALIDATION = True
    _control_instance_states(hooks)
    _move_the_default_vpc(cidr)
    _refuse_as_aws_does(hooks)
    visibility.install(hooks)
    _find_by_id_at_once()
    _add_vcpus()
    _load_policies_of_one_partition()
    page_by_time()
    # AWSServiceRoleForECS and AWSServiceRoleForEC2Spot, not moto's "ecs" and "spot".
    iam_models.SERVICE_NAME_CONVERSION.update(ecs="ECS", spot="EC2Spot")
    # moto inspects the whole response class for every object of a DescribeInstances reply.
    cached = functools.lru_cache(maxsize=None)(core_responses.method_names_from_class)
    core_responses.method_names_from_class = cached


def _load_policies_of_one_partition() -> None:
    """Load the policies of one partition: moto loads 1,500 policies for each of six, which takes a second."""
    read = IAMBackend._init_aws_policies

    @functools.wraps(read)
    def init_aws_policies(self: Any) -> list[Any]:
        return read(self) if self.region_name == partition() else []

    IAMBackend._init_aws_policies = init_aws_policies


def set_state(instance: Any, name: str) -> None:
    """Set the state of a moto instance without moto's side effects."""
    instance._state = InstanceState(name, STATES[name])


def set_transition(instance: Any, text: str | None) -> None:
    """Set the state transition reason of DescribeInstances: moto's does not use the virtual clock."""
    instance._reason = text


def forget(backend: Any, instance_id: str) -> None:
    """Remove the records of moto and these patches about an instance that is no longer described."""
    backend.tags.pop(instance_id, None)
    backend.__dict__.get("reservation_of", {}).pop(instance_id, None)


def finish_termination(instance: Any) -> None:
    """Do moto's termination, and also delete the network interfaces, which moto does not."""
    for interface in instance.nics.values():
        interface.delete_on_termination = True
    _moto_terminate(instance)


_moto_terminate = Instance.terminate


def _control_instance_states(hooks: Hooks) -> None:
    """Let the instance lifecycle set the states: moto's instances start and end at once."""
    run = InstanceBackend.run_instances

    @functools.wraps(run)
    def run_instances(self: Any, *args: Any, **kwargs: Any) -> Any:
        # moto ignores the client token; its API layer passes "ABCDE" when there is none.
        reservations = self.__dict__.setdefault("reservation_by_token", {})
        token = kwargs.get("client_token")
        if token in reservations:
            return reservations[token]
        try:
            reservation = run(self, *args, **kwargs)
        except InvalidInstanceTypeError as error:
            requested = kwargs.get("instance_type")
            raise EC2ClientError("InvalidParameterValue", f"Invalid value '{requested}' for InstanceType.") from error
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
    # The public address is set with "running", and equals the private one, which is reachable here.
    NetworkInterface.check_auto_public_ip = lambda self: None


def _move_the_default_vpc(cidr: str) -> None:
    """Use bindable addresses for the default VPC, and create its internet gateway as AWS does."""

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
        # moto passes IAM's "NoSuchEntity" with HTTP 404 through, in IAM's format.
        try:
            profile = find_profile(*args, **kwargs)
        except NotFoundException as error:
            raise _no_such_profile(kwargs) from error
        if profile is None or not hooks.profile_is_usable(profile.name):
            raise _no_such_profile(kwargs)
        return profile

    SecurityGroupBackend.delete_security_group = delete_security_group
    instance_responses.filter_iam_instance_profiles = filter_iam_instance_profiles


def _find_by_id_at_once() -> None:
    """Look up images and instances by id: moto scans 1,300 images and copies every reservation at each launch."""
    describe = AmiBackend.describe_images
    find = InstanceBackend.get_instance_by_id

    @functools.wraps(describe)
    def describe_images(self: Any, ami_ids: Any = None, filters: Any = None, *args: Any, **kwargs: Any) -> Any:
        requested = (filters or {}).get("image-id")
        if ami_ids or requested is None or len(filters) > 1 or args or kwargs:
            return describe(self, ami_ids, filters, *args, **kwargs)
        names = [requested] if isinstance(requested, str) else requested
        if any("*" in name or "?" in name for name in names):
            return describe(self, ami_ids, filters)
        return [self.amis[name] for name in names if name in self.amis]

    @functools.wraps(find)
    def get_instance_by_id(self: Any, instance_id: str) -> Any:
        places = self.__dict__.setdefault("reservation_of", {})
        if places.get(instance_id) not in self.reservations:
            # Newest first: an instance that is looked up for the first time has just been launched.
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


def _add_vcpus() -> None:
    """Add the number of vCPUs to DescribeInstances, which moto omits."""

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


def _no_such_profile(requested: dict[str, Any]) -> EC2ClientError:
    by_name = requested.get("iam_instance_profile_name")
    field, value = ("name", by_name) if by_name else ("arn", requested.get("iam_instance_profile_arn"))
    return EC2ClientError(
        "InvalidParameterValue",
        f"Value ({value}) for parameter iamInstanceProfile.{field} is invalid. Invalid IAM Instance Profile {field}",
    )
