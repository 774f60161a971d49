"""Auto Scaling's own work: bring each group to its desired capacity, and record its activities."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.state import Ec2Instance, Group, Membership
from dask_starburst.local.http.protocols import ServiceError
from dask_starburst.local.services.ec2.capacity import Ec2Capacity, Offer, offers
from dask_starburst.local.services.ec2.instance_lifecycle import InstanceLifecycle
from dask_starburst.local.services.ec2.instances import GROUP_TAG, Ec2

# AWS keeps six weeks of activities; clients read only the latest, and a test of days would fill the memory.
_ACTIVITIES_KEPT = 500
_FIRST_RETRY = 15.0
_LONGEST_RETRY = 300.0
# The number of launches in one step, so that other timers are not delayed.
_PORTION = 25


class Groups:
    """Reconciles every Auto Scaling group.

    Parameters
    ----------
    backend : Backend
        The groups.
    ec2 : Ec2
        Launches instances.
    lifecycle : InstanceLifecycle
        Terminates instances, and reports instances terminated otherwise.
    capacity : Ec2Capacity
        The available capacity.
    """

    def __init__(self, backend: Backend, ec2: Ec2, lifecycle: InstanceLifecycle, capacity: Ec2Capacity) -> None:
        self._backend = backend
        self._ec2 = ec2
        self._lifecycle = lifecycle
        self._capacity = capacity
        self._open: dict[str, dict[str, Any]] = {}  # activities in progress, by instance
        lifecycle.on_running.append(self._instance_runs)
        lifecycle.on_terminating.append(self._instance_leaves)
        lifecycle.on_terminated.append(self._instance_is_gone)

    def resize(self, group: Group, why: str) -> None:
        """Schedule a reconciliation of a group with its desired capacity."""
        cause = f"At {self._stamp()} {why}"
        self._backend.after("reconcile", lambda: self._reconcile(group, cause))

    def terminate(self, group: Group, member: Membership, why: str) -> dict[str, Any]:
        """Terminate one member, and return the activity."""
        if member.leaving:
            return self._open[member.ec2_instance.id]
        left = len(group.staying())
        member.state = "Terminating"
        cause = f"{why}, shrinking the capacity from {left} to {left - 1}."
        activity = self._begin(group, f"Terminating EC2 instance: {member.ec2_instance.id}", cause, member.ec2_instance)
        self._lifecycle.terminating(member.ec2_instance.id)
        return activity

    def delete(self, group: Group) -> None:
        """Terminate all members of a group, and remove it when they are terminated."""
        group.deleting = True
        group.desired = group.min_size = 0
        for member in group.staying():
            self.terminate(group, member, f"At {self._stamp()} the group was deleted, an instance was taken out")
        self._forget_if_empty(group)

    def _reconcile(self, group: Group, cause: str) -> None:
        if self._backend.groups.get(group.name) is not group or group.deleting:
            return
        staying = group.staying()
        if len(staying) > group.desired:
            self._shrink(group, len(staying) - group.desired, cause)
        elif len(staying) < group.desired and "Launch" not in group.suspended:
            self._grow(group, group.desired - len(staying), cause)

    def _shrink(self, group: Group, count: int, cause: str) -> None:
        if "Terminate" in group.suspended:
            return
        for _ in range(count):
            candidates = [member for member in group.staying() if not member.protected]
            if not candidates:
                return
            why = (
                f"{cause}  At {self._stamp()} an instance was taken out of service in response to a difference "
                "between desired and actual capacity"
            )
            self.terminate(group, _default_policy(candidates), why)

    def _grow(self, group: Group, count: int, cause: str) -> None:
        if self._backend.now() < group.retry_at:
            return
        if count > _PORTION:
            self._backend.at(self._backend.now(), lambda: self._reconcile(group, cause))
        for _ in range(min(count, _PORTION)):
            have = len(group.staying())
            grown = (
                f"{cause}  At {self._stamp()} an instance was started in response to a difference between desired "
                f"and actual capacity, increasing the capacity from {have} to {have + 1}."
            )
            if not self._launch(group, grown):
                return

    def _launch(self, group: Group, cause: str) -> bool:
        tags = {key: tag["Value"] for key, tag in group.tags.items() if tag["PropagateAtLaunch"]}
        tags[GROUP_TAG] = group.name
        try:
            offer, subnet = self._choose(group)
            spot = offer.pool.market == "spot"
            identity = self._ec2.launch(offer.template, offer.override, subnet, spot, tags)
        except ServiceError as error:
            self._refused(group, cause, error)
            return False
        ec2_instance = self._backend.ec2_instances[identity]
        group.failures = 0
        group.members[identity] = Membership(ec2_instance, self._shown_template(offer.template))
        group.members[identity].protected = bool(group.settings.get("NewInstancesProtectedFromScaleIn"))
        self._begin(group, f"Launching a new EC2 instance: {identity}", cause, ec2_instance)
        return True

    def _refused(self, group: Group, cause: str, error: ServiceError) -> None:
        message = f"{error.message.rstrip('.')}. Launching EC2 instance failed."
        activity = self._record(group, f"Launching a new EC2 instance.  Status Reason: {message}", cause)
        activity.update(StatusCode="Failed", StatusMessage=message, EndTime=self._backend.now(), Progress=100)
        pause = min(_FIRST_RETRY * 2**group.failures, _LONGEST_RETRY)
        group.failures += 1
        group.retry_at = self._backend.now() + pause
        self._backend.at(group.retry_at, lambda: self._reconcile(group, cause))

    def _choose(self, group: Group) -> tuple[Offer, str]:
        """Choose a pool and the subnet in its zone; prefer zones with the fewest of the group's instances."""
        have = Counter(member.ec2_instance.zone for member in group.staying())
        subnets: dict[str, str] = {}
        for subnet in group.subnets:
            subnets.setdefault(self._ec2.zone_of(subnet) or "", subnet)
        zones = sorted(subnets, key=lambda zone: have[zone])
        offer = self._capacity.choose(group, offers(group, zones, self._ec2.type_of))
        return offer, subnets[offer.pool.zone]

    def _shown_template(self, specification: dict[str, Any]) -> dict[str, Any]:
        version = self._ec2.template(specification)
        return {
            "LaunchTemplateId": version.template.id,
            "LaunchTemplateName": version.template.name,
            "Version": str(version.number),
        }

    def _instance_runs(self, ec2_instance: Ec2Instance) -> None:
        member = self._member(ec2_instance)
        if member is not None and member.state == "Pending":
            member.state = "InService"
            self._finish(ec2_instance)

    def _instance_leaves(self, ec2_instance: Ec2Instance) -> None:
        member = self._member(ec2_instance)
        if member is not None and not member.leaving:
            self._backend.after("health", lambda: self._replace(ec2_instance, member))

    def _replace(self, ec2_instance: Ec2Instance, member: Membership) -> None:
        group = self._backend.groups.get(ec2_instance.group or "")
        if group is None:
            return
        if not member.leaving:
            self._cancel_launch(member)
            member.healthy = False
            why = (
                f"At {self._stamp()} an instance was taken out of service in response to an EC2 health check "
                "indicating it has been terminated or stopped"
            )
            self.terminate(group, member, why)
        if ec2_instance.state == "terminated":
            self._instance_is_gone(ec2_instance)
        self._reconcile(group, "")

    def _cancel_launch(self, member: Membership) -> None:
        """Book the launch of an instance that never was in service as cancelled, with EC2's reason."""
        activity = self._open.pop(member.ec2_instance.id, None)
        if activity is not None:
            message = (
                "Instance became unhealthy while waiting for instance to be in InService state. Termination Reason: "
                f"{member.ec2_instance.end_reason}"
            )
            activity.update(StatusCode="Cancelled", StatusMessage=message, EndTime=self._backend.now(), Progress=100)

    def _instance_is_gone(self, ec2_instance: Ec2Instance) -> None:
        group, member = self._backend.groups.get(ec2_instance.group or ""), self._member(ec2_instance)
        # Until the health check the group still lists the instance.
        if group is None or member is None or not member.leaving:
            return
        self._finish(ec2_instance)
        del group.members[ec2_instance.id]
        self._forget_if_empty(group)
        # A launch may have waited for this, and the desired capacity may have changed meanwhile.
        self._reconcile(group, "")

    def _member(self, ec2_instance: Ec2Instance) -> Membership | None:
        group = self._backend.groups.get(ec2_instance.group or "")
        return group.members.get(ec2_instance.id) if group is not None else None

    def _forget_if_empty(self, group: Group) -> None:
        if group.deleting and not group.members:
            self._backend.groups.pop(group.name, None)

    def _begin(self, group: Group, description: str, cause: str, ec2_instance: Ec2Instance) -> dict[str, Any]:
        activity = self._record(group, description, cause)
        self._open[ec2_instance.id] = activity
        return activity

    def _finish(self, ec2_instance: Ec2Instance) -> None:
        activity = self._open.pop(ec2_instance.id, None)
        if activity is not None:
            activity.update(StatusCode="Successful", EndTime=self._backend.now(), Progress=100)

    def _record(self, group: Group, description: str, cause: str) -> dict[str, Any]:
        subnet = group.subnets[0]
        activity = {
            "ActivityId": str(uuid.uuid4()),
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": group.arn,
            "Description": description,
            "Cause": cause.strip(),
            "StartTime": self._backend.now(),
            "StatusCode": "InProgress",
            "Progress": 50,
            "Details": json.dumps({"Subnet ID": subnet, "Availability Zone": self._ec2.zone_of(subnet)}),
        }
        group.activities.insert(0, activity)
        del group.activities[_ACTIVITIES_KEPT:]
        return activity

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._backend.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _default_policy(candidates: list[Membership]) -> Membership:
    """Choose the instance to terminate: the oldest one in the zone with the most instances."""
    zones = Counter(member.ec2_instance.zone for member in candidates)
    return min(candidates, key=lambda member: (-zones[member.ec2_instance.zone], member.ec2_instance.launched_at))
