"""What Auto Scaling does by itself: bring each group to its desired capacity, and say so in its activities."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from dask_starburst.local.backend.state import Group, Machine, Membership
from dask_starburst.local.backend.world import World
from dask_starburst.local.http.protocols import ServiceError
from dask_starburst.local.services.ec2.capacity import Market, Offer, offers
from dask_starburst.local.services.ec2.instances import GROUP_TAG, Ec2
from dask_starburst.local.services.ec2.machines import Machines

# AWS keeps six weeks of activities; nobody reads more than the latest, and a test of days would fill the memory.
_ACTIVITIES_KEPT = 500
_FIRST_RETRY = 15.0
_LONGEST_RETRY = 300.0
# So many instances at once; in between other things happen in their time.
_PORTION = 25


class Groups:
    """Reconciles every Auto Scaling group.

    Parameters
    ----------
    world : World
        Where the groups are.
    ec2 : Ec2
        What launches.
    machines : Machines
        What terminates, and tells of instances that others terminate.
    market : Market
        What there is to buy.
    """

    def __init__(self, world: World, ec2: Ec2, machines: Machines, market: Market) -> None:
        self._world = world
        self._ec2 = ec2
        self._machines = machines
        self._market = market
        self._open: dict[str, dict[str, Any]] = {}  # activities in progress, by instance
        machines.on_running.append(self._instance_runs)
        machines.on_terminating.append(self._instance_leaves)
        machines.on_terminated.append(self._instance_is_gone)

    def resize(self, group: Group, why: str) -> None:
        """Bring a group to its desired capacity, after the while that Auto Scaling takes to notice."""
        cause = f"At {self._stamp()} {why}"
        self._world.after("reconcile", lambda: self._reconcile(group, cause))

    def terminate(self, group: Group, member: Membership, why: str) -> dict[str, Any]:
        """Terminate one member, and return the activity."""
        if member.leaving:
            return self._open[member.machine.id]
        left = len(group.staying())
        member.state = "Terminating"
        cause = f"{why}, shrinking the capacity from {left} to {left - 1}."
        activity = self._begin(group, f"Terminating EC2 instance: {member.machine.id}", cause, member.machine)
        self._machines.terminating(member.machine.id)
        return activity

    def delete(self, group: Group) -> None:
        """Terminate every member of a group and forget it when they are gone."""
        group.deleting = True
        group.desired = group.min_size = 0
        for member in group.staying():
            self.terminate(group, member, f"At {self._stamp()} the group was deleted, an instance was taken out")
        self._forget_if_empty(group)

    def _reconcile(self, group: Group, cause: str) -> None:
        if self._world.groups.get(group.name) is not group or group.deleting:
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
        if self._world.now() < group.retry_at:
            return
        if count > _PORTION:
            self._world.at(self._world.now(), lambda: self._reconcile(group, cause))
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
            offer, subnet = self._buy(group)
            spot = offer.pool.market == "spot"
            identity = self._ec2.launch(offer.template, offer.override, subnet, spot, tags)
        except ServiceError as error:
            self._refused(group, cause, error)
            return False
        machine = self._world.machines[identity]
        group.failures = 0
        group.members[identity] = Membership(machine, self._shown_template(offer.template))
        group.members[identity].protected = bool(group.settings.get("NewInstancesProtectedFromScaleIn"))
        self._begin(group, f"Launching a new EC2 instance: {identity}", cause, machine)
        return True

    def _refused(self, group: Group, cause: str, error: ServiceError) -> None:
        message = f"{error.message.rstrip('.')}. Launching EC2 instance failed."
        activity = self._record(group, f"Launching a new EC2 instance.  Status Reason: {message}", cause)
        activity.update(StatusCode="Failed", StatusMessage=message, EndTime=self._world.now(), Progress=100)
        pause = min(_FIRST_RETRY * 2**group.failures, _LONGEST_RETRY)
        group.failures += 1
        group.retry_at = self._world.now() + pause
        self._world.at(group.retry_at, lambda: self._reconcile(group, cause))

    def _buy(self, group: Group) -> tuple[Offer, str]:
        """Choose a pool, and the subnet in its zone; zones that have the fewest of the group's instances go first."""
        have = Counter(member.machine.zone for member in group.staying())
        subnets: dict[str, str] = {}
        for subnet in group.subnets:
            subnets.setdefault(self._ec2.zone_of(subnet) or "", subnet)
        zones = sorted(subnets, key=lambda zone: have[zone])
        offer = self._market.choose(group, offers(group, zones, self._ec2.type_of))
        return offer, subnets[offer.pool.zone]

    def _shown_template(self, specification: dict[str, Any]) -> dict[str, Any]:
        version = self._ec2.template(specification)
        return {
            "LaunchTemplateId": version.template.id,
            "LaunchTemplateName": version.template.name,
            "Version": str(version.number),
        }

    def _instance_runs(self, machine: Machine) -> None:
        member = self._member(machine)
        if member is not None and member.state == "Pending":
            member.state = "InService"
            self._finish(machine)

    def _instance_leaves(self, machine: Machine) -> None:
        member = self._member(machine)
        if member is not None and not member.leaving:
            self._world.after("health", lambda: self._replace(machine, member))

    def _replace(self, machine: Machine, member: Membership) -> None:
        group = self._world.groups.get(machine.group or "")
        if group is None:
            return
        if not member.leaving:
            member.healthy = False
            why = (
                f"At {self._stamp()} an instance was taken out of service in response to an EC2 health check "
                "indicating it has been terminated or stopped"
            )
            self.terminate(group, member, why)
        if machine.state == "terminated":
            self._instance_is_gone(machine)
        self._reconcile(group, "")

    def _instance_is_gone(self, machine: Machine) -> None:
        group, member = self._world.groups.get(machine.group or ""), self._member(machine)
        # A group that has not noticed yet still shows the instance.
        if group is None or member is None or not member.leaving:
            return
        self._finish(machine)
        del group.members[machine.id]
        self._forget_if_empty(group)
        # A launch may have waited for nothing else, and a desired capacity may have changed meanwhile.
        self._reconcile(group, "")

    def _member(self, machine: Machine) -> Membership | None:
        group = self._world.groups.get(machine.group or "")
        return group.members.get(machine.id) if group is not None else None

    def _forget_if_empty(self, group: Group) -> None:
        if group.deleting and not group.members:
            self._world.groups.pop(group.name, None)

    def _begin(self, group: Group, description: str, cause: str, machine: Machine) -> dict[str, Any]:
        activity = self._record(group, description, cause)
        self._open[machine.id] = activity
        return activity

    def _finish(self, machine: Machine) -> None:
        activity = self._open.pop(machine.id, None)
        if activity is not None:
            activity.update(StatusCode="Successful", EndTime=self._world.now(), Progress=100)

    def _record(self, group: Group, description: str, cause: str) -> dict[str, Any]:
        subnet = group.subnets[0]
        activity = {
            "ActivityId": str(uuid.uuid4()),
            "AutoScalingGroupName": group.name,
            "AutoScalingGroupARN": group.arn,
            "Description": description,
            "Cause": cause.strip(),
            "StartTime": self._world.now(),
            "StatusCode": "InProgress",
            "Progress": 50,
            "Details": json.dumps({"Subnet ID": subnet, "Availability Zone": self._ec2.zone_of(subnet)}),
        }
        group.activities.insert(0, activity)
        del group.activities[_ACTIVITIES_KEPT:]
        return activity

    def _stamp(self) -> str:
        return datetime.fromtimestamp(self._world.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _default_policy(candidates: list[Membership]) -> Membership:
    """Choose a victim: in the zone with the most instances, the one that was launched first."""
    zones = Counter(member.machine.zone for member in candidates)
    return min(candidates, key=lambda member: (-zones[member.machine.zone], member.machine.launched_at))
