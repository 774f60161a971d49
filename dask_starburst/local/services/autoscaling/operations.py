"""The Auto Scaling API: groups and their instances."""

from __future__ import annotations

import uuid
from typing import Any

from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.state import Group, Membership
from dask_starburst.local.http.protocols import Reply, Request, ServiceError
from dask_starburst.local.services.autoscaling.groups import Groups
from dask_starburst.local.services.ec2.instances import Ec2

# Settings of a group that are only stored and described.
KEPT = (
    "DefaultCooldown",
    "HealthCheckType",
    "HealthCheckGracePeriod",
    "TerminationPolicies",
    "NewInstancesProtectedFromScaleIn",
    "CapacityRebalance",
    "DefaultInstanceWarmup",
    "MaxInstanceLifetime",
    "Context",
    "DesiredCapacityType",
    "ServiceLinkedRoleARN",
    "InstanceMaintenancePolicy",
    "AvailabilityZoneDistribution",
    "DeletionProtection",
)
_MOST_TERMINATED = 100
_NOT_HERE = (
    "LaunchConfigurationName",
    "InstanceId",
    "LoadBalancerNames",
    "TargetGroupARNs",
    "TrafficSources",
    "LifecycleHookSpecificationList",
    "PlacementGroup",
)


def invalid(message: str) -> ServiceError:
    """Return Auto Scaling's generic error."""
    return ServiceError("ValidationError", message)


class GroupOperations:
    """Create, change and delete Auto Scaling groups.

    Parameters
    ----------
    backend : Backend
        The state.
    ec2 : Ec2
        Launch templates and subnets.
    groups : Groups
        Brings them to their desired capacity.
    """

    def __init__(self, backend: Backend, ec2: Ec2, groups: Groups) -> None:
        self._backend = backend
        self._ec2 = ec2
        self._groups = groups

    def create_auto_scaling_group(self, request: Request) -> Reply:
        """Create a group and start its instances."""
        name = request["AutoScalingGroupName"]
        if name in self._backend.groups:
            message = f"AutoScalingGroup by this name already exists - A group with the name {name} already exists"
            raise ServiceError("AlreadyExists", message)
        _refuse_what_is_not_here(request)
        if bool(request.get("LaunchTemplate")) == bool(request.get("MixedInstancesPolicy")):
            raise invalid(
                "Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or "
                "MixedInstancesPolicy parameter."
            )
        low, high, desired = request["MinSize"], request["MaxSize"], request.get("DesiredCapacity")
        group = Group(
            name=name,
            arn=self._backend.arn("autoscaling", f"autoScalingGroup:{uuid.uuid4()}:autoScalingGroupName/{name}"),
            created_at=self._backend.now(),
            min_size=low,
            max_size=high,
            desired=low if desired is None else desired,
            subnets=self._subnets(request.get("VPCZoneIdentifier")),
            template=request.get("LaunchTemplate"),
            mixed=request.get("MixedInstancesPolicy"),
            settings={"DefaultCooldown": 300, "HealthCheckType": "EC2", "HealthCheckGracePeriod": 0},
        )
        _check_sizes(group)
        self._check_purchases(group)
        group.settings.update({key: request[key] for key in KEPT if key in request})
        for tag in request.get("Tags", []):
            group.tags[tag["Key"]] = _tag(name, tag)
        self._backend.groups[name] = group
        self._groups.resize(
            group,
            f"a user request created an AutoScalingGroup changing the desired capacity from 0 to {group.desired}.",
        )
        return {}

    def update_auto_scaling_group(self, request: Request) -> Reply:
        """Change only the given settings."""
        group = self.find(request["AutoScalingGroupName"])
        _refuse_what_is_not_here(request)
        if request.get("LaunchTemplate") and request.get("MixedInstancesPolicy"):
            raise invalid("You can only specify one of LaunchTemplate and MixedInstancesPolicy.")
        before = Group(**vars(group))
        self._change(group, request)
        try:
            _check_sizes(group)
            self._check_purchases(group)
        except ServiceError:
            vars(group).update(vars(before))
            raise
        # New purchase options are tried at once, without the backoff of earlier failures.
        if before.mixed != group.mixed or before.template != group.template or before.subnets != group.subnets:
            group.failures, group.retry_at = 0, 0.0
        group.settings.update({key: request[key] for key in KEPT if key in request})
        self._groups.resize(group, _request_text(before, group))
        return {}

    def set_desired_capacity(self, request: Request) -> Reply:
        """Set the desired capacity, within the group's limits."""
        group, desired = self.find(request["AutoScalingGroupName"]), request["DesiredCapacity"]
        if desired > group.max_size:
            raise invalid(
                f"New SetDesiredCapacity value {desired} is above max value {group.max_size} for the AutoScalingGroup."
            )
        if desired < group.min_size:
            raise invalid(
                f"New SetDesiredCapacity value {desired} is below min value {group.min_size} for the AutoScalingGroup."
            )
        why = (
            "a user request explicitly set group desired capacity changing the desired capacity "
            f"from {group.desired} to {desired}."
        )
        group.desired = desired
        self._groups.resize(group, why)
        return {}

    def delete_auto_scaling_group(self, request: Request) -> Reply:
        """Delete an empty group, or with ForceDelete any group with its instances."""
        group = self.find(request["AutoScalingGroupName"])
        if group.members and not request.get("ForceDelete"):
            raise ServiceError(
                "ResourceInUse",
                "You cannot delete an AutoScalingGroup while there are instances or pending Spot instance request(s) "
                "still in the group.",
            )
        self._groups.delete(group)
        return {}

    def terminate_instance_in_auto_scaling_group(self, request: Request) -> Reply:
        """Terminate instances by id, with or without replacement."""
        single, several = request.get("InstanceId"), request.get("InstanceIds") or []
        if bool(single) == bool(several):
            raise invalid("Exactly one of InstanceId and InstanceIds must be given.")
        if several and not request.get("AutoScalingGroupName"):
            raise invalid("AutoScalingGroupName is required with InstanceIds.")
        if len(several) > _MOST_TERMINATED:
            raise invalid(f"InstanceIds can have {_MOST_TERMINATED} elements at most.")
        decrement = request["ShouldDecrementDesiredCapacity"]
        # Find all of them before any is terminated.
        found = [self.member(instance_id) for instance_id in ([single] if single else several)]
        if any(group.name != request.get("AutoScalingGroupName", group.name) for group, _ in found):
            raise invalid(f"An instance is not part of Auto Scaling group {request['AutoScalingGroupName']}.")
        if decrement:
            for group in {id(group): group for group, _ in found}.values():
                leaving = sum(other is group and not member.leaving for other, member in found)
                if group.desired - leaving < group.min_size:
                    raise invalid(
                        "Currently, desiredSize equals minSize "
                        f"({group.min_size}). Terminating instance without replacement will violate group's min size "
                        "constraint. Either set shouldDecrementDesiredCapacity flag to false or lower group's min size."
                    )
        activities = [self._terminate(group, member, decrement) for group, member in found]
        return {"Activity": activities[0]} if single else {"Activities": activities}

    def set_instance_health(self, request: Request) -> Reply:
        """Set the health of an instance; an unhealthy one is replaced."""
        group, member = self.member(request["InstanceId"])
        status = request["HealthStatus"]
        if status not in ("Healthy", "Unhealthy"):
            raise invalid(f"Valid instance health states are: [Healthy, Unhealthy]. Got {status}.")
        member.healthy = status == "Healthy"
        if not member.healthy and not member.leaving:
            self._groups.terminate(
                group, member, "An instance was taken out of service in response to a user health-check"
            )
            self._groups.resize(group, "an instance was replaced.")
        return {}

    def set_instance_protection(self, request: Request) -> Reply:
        """Protect instances from scale-in."""
        for instance_id in request["InstanceIds"]:
            _, member = self.member(instance_id)
            member.protected = request["ProtectedFromScaleIn"]
        return {}

    def suspend_processes(self, request: Request) -> Reply:
        """Suspend processes. Launch, Terminate and ScheduledActions are honoured."""
        group = self.find(request["AutoScalingGroupName"])
        for process in request.get("ScalingProcesses") or PROCESSES:
            _check_process(process)
            group.suspended[process] = "User suspended"
        return {}

    def resume_processes(self, request: Request) -> Reply:
        """Resume processes and reconcile the group."""
        group = self.find(request["AutoScalingGroupName"])
        for process in request.get("ScalingProcesses") or PROCESSES:
            _check_process(process)
            group.suspended.pop(process, None)
        self._groups.resize(group, "a process was resumed.")
        return {}

    def find(self, name: str) -> Group:
        """Find a group that is not being deleted."""
        group = self._backend.groups.get(name)
        hidden = group is not None and self._backend.consistency.hides("groups", group.created_at)
        if group is None or group.deleting or hidden:
            raise invalid(f"AutoScalingGroup name not found - AutoScalingGroup '{name}' not found")
        return group

    def member(self, instance_id: str) -> tuple[Group, Membership]:
        """Find an instance and its group."""
        ec2_instance = self._backend.ec2_instances.get(instance_id)
        group = self._backend.groups.get(ec2_instance.group or "") if ec2_instance else None
        if group is None or instance_id not in group.members:
            raise invalid(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")
        return group, group.members[instance_id]

    def _terminate(self, group: Group, member: Membership, decrement: bool) -> dict[str, Any]:
        why = "At the user's request an instance was taken out of service"
        if decrement and not member.leaving:
            group.desired -= 1
        activity = self._groups.terminate(group, member, why)
        if not decrement:
            self._groups.resize(
                group, "an instance was terminated by a user request without a change of the desired capacity."
            )
        return activity

    def _change(self, group: Group, request: Request) -> None:
        group.min_size = request.get("MinSize", group.min_size)
        group.max_size = request.get("MaxSize", group.max_size)
        if "DesiredCapacity" in request:
            group.desired = request["DesiredCapacity"]
        else:
            # New limits change the desired capacity if the request does not give it.
            group.desired = max(group.min_size, min(group.desired, group.max_size))
        if request.get("VPCZoneIdentifier"):
            group.subnets = self._subnets(request["VPCZoneIdentifier"])
        if request.get("LaunchTemplate"):
            group.template, group.mixed = request["LaunchTemplate"], None
        if request.get("MixedInstancesPolicy"):
            group.template = None
            # The template and the distribution are each replaced as a whole or kept.
            group.mixed = {**(group.mixed or {}), **request["MixedInstancesPolicy"]}

    def _subnets(self, text: str | None) -> list[str]:
        subnets = [subnet.strip() for subnet in (text or "").split(",") if subnet.strip()]
        if not subnets:
            raise invalid("At least one Availability Zone or VPC Subnet is required.")
        for subnet in subnets:
            if self._ec2.zone_of(subnet) is None:
                raise invalid(f"The subnet ID '{subnet}' does not exist")
        return subnets

    def _check_purchases(self, group: Group) -> None:
        if group.mixed is None:
            self._check_template(group.template or {}, None)
            return
        template = group.mixed.get("LaunchTemplate") or {}
        specification = template.get("LaunchTemplateSpecification")
        if not specification:
            raise invalid("You must specify a LaunchTemplateSpecification in a MixedInstancesPolicy.")
        for override in template.get("Overrides") or [{}]:
            if "InstanceRequirements" in override or "WeightedCapacity" in override:
                raise invalid("InstanceRequirements and WeightedCapacity are not implemented by the embedded AWS.")
            self._check_template(
                override.get("LaunchTemplateSpecification") or specification, override.get("InstanceType")
            )

    def _check_template(self, specification: dict[str, Any], instance_type: str | None) -> None:
        try:
            self._ec2.check(specification, instance_type)
        except ServiceError as error:
            raise invalid(f"You must use a valid fully-formed launch template. {error.message}") from error


PROCESSES = (
    "Launch",
    "Terminate",
    "AddToLoadBalancer",
    "AlarmNotification",
    "AZRebalance",
    "HealthCheck",
    "InstanceRefresh",
    "ReplaceUnhealthy",
    "ScheduledActions",
)


def _check_process(process: str) -> None:
    if process not in PROCESSES:
        raise invalid(f"{process} is not a valid process type.")


def _check_sizes(group: Group) -> None:
    low, high, desired = group.min_size, group.max_size, group.desired
    if low < 0:
        raise invalid(f"Min bound, {low}, must be greater than or equal to 0")
    if low > high:
        raise invalid(f"Max bound, {high}, must be greater than or equal to min bound, {low}")
    if desired < low:
        raise invalid(f"Desired capacity:{desired} must be between the specified min size:{low} and max size:{high}")
    if desired > high:
        raise invalid(f"Desired capacity:{desired} must be between the specified min size:{low} and max size:{high}")


def _refuse_what_is_not_here(request: Request) -> None:
    for key in _NOT_HERE:
        if request.get(key):
            raise invalid(f"{key} is not implemented by the embedded AWS.")


def _request_text(before: Group, after: Group) -> str:
    return (
        f"a user request update of AutoScalingGroup constraints to min: {after.min_size}, max: {after.max_size}, "
        f"desired: {after.desired} changing the desired capacity from {before.desired} to {after.desired}."
    )


def _tag(group: str, tag: dict[str, Any]) -> dict[str, Any]:
    return {
        "ResourceId": group,
        "ResourceType": "auto-scaling-group",
        "Key": tag["Key"],
        "Value": tag.get("Value", ""),
        "PropagateAtLaunch": bool(tag.get("PropagateAtLaunch", False)),
    }
