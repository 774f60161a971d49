"""Warm pools of Auto Scaling: instances that have booted once, are stopped, and wait to be taken into their group.

Stopped ones only. What AWS's documentation leaves open is marked as our guess.
"""

from __future__ import annotations

from typing import Any

from dask_starburst.local.autoscaling import GroupOperations, invalid
from dask_starburst.local.autoscaling_groups import Groups
from dask_starburst.local.autoscaling_views import shown_instance, shown_warm_pool, size_of_page
from dask_starburst.local.machines import Machines
from dask_starburst.local.state import Group, Machine, Membership, WarmPool
from dask_starburst.local.wire import Reply, Request, ServiceError, page
from dask_starburst.local.world import World


class WarmPools:
    """Keeps every warm pool at its size.

    Parameters
    ----------
    world : World
        Where the groups are.
    machines : Machines
        What stops and starts instances.
    groups : Groups
        What launches, and takes from a warm pool what it can.
    """

    def __init__(self, world: World, machines: Machines, groups: Groups) -> None:
        self._world = world
        self._machines = machines
        self._groups = groups
        groups.take_warm = self.take
        groups.reconciled = self.reconcile
        machines.on_booted.append(self._booted)
        machines.on_stopped.append(self._stopped)
        machines.on_terminating.append(self._leaves)
        machines.on_terminated.append(self._is_gone)

    def take(self, group: Group, cause: str) -> bool:
        """Take one stopped instance into its group; False when there is none."""
        stopped = [one for one in _staying(group) if one.state == "Warmed:Stopped"]
        if group.warm is None or not stopped:
            return False
        member = min(stopped, key=lambda one: one.machine.launched_at)
        machine = member.machine
        del group.warm.members[machine.id]
        member.state, machine.warm = "Pending", False
        group.members[machine.id] = member
        self._groups.begin(group, f"Launching a new EC2 instance from warm pool: {machine.id}", cause, machine)
        self._machines.start(machine)
        return True

    def reconcile(self, group: Group, cause: str) -> None:
        """Launch into a warm pool what it lacks, and terminate what it has too many of."""
        if group.warm is None:
            return
        have, wanted = _staying(group), _size(group)
        # Those that have cost least yet go first: which ones AWS takes is our guess.
        surplus = sorted(have, key=lambda one: -one.machine.launched_at)[: max(0, len(have) - wanted)]
        for member in surplus:
            self._terminate(group, member, cause)
        if "Launch" not in group.suspended and self._world.now() >= group.retry_at:
            for _ in range(wanted - len(have)):
                if not self._groups.launch(group, cause, warm=True):
                    break
        self._forget_if_empty(group)

    def _terminate(self, group: Group, member: Membership, cause: str) -> None:
        member.state = "Warmed:Terminating"
        text = f"Terminating EC2 instance in warm pool: {member.machine.id}"
        self._groups.begin(group, text, cause, member.machine)
        self._machines.terminating(member.machine.id)

    def _booted(self, machine: Machine) -> None:
        # AWS stops it without knowing what runs on it. When is our guess: after its agent could have registered.
        if machine.warm:
            self._world.after("agent", lambda: self._machines.stop(machine))

    def _stopped(self, machine: Machine) -> None:
        member = self._member(machine)
        if member is not None and not member.leaving:
            member.state = "Warmed:Stopped"
            self._groups.finish(machine)

    def _leaves(self, machine: Machine) -> None:
        group, member = self._world.groups.get(machine.group or ""), self._member(machine)
        if group is not None and member is not None and not member.leaving:
            member.state = "Warmed:Terminating"
            self._world.after("health", lambda: self.reconcile(group, "an instance of the warm pool was terminated."))

    def _is_gone(self, machine: Machine) -> None:
        group = self._world.groups.get(machine.group or "")
        if group is None or group.warm is None or group.warm.members.pop(machine.id, None) is None:
            return
        self._groups.finish(machine)
        self._forget_if_empty(group)

    def _forget_if_empty(self, group: Group) -> None:
        if group.warm is not None and group.warm.deleting and not group.warm.members:
            group.warm = None
        self._groups.forget_if_empty(group)

    def _member(self, machine: Machine) -> Membership | None:
        group = self._world.groups.get(machine.group or "")
        return group.warm.members.get(machine.id) if group is not None and group.warm is not None else None


class WarmPoolOperations:
    """The API of warm pools.

    Parameters
    ----------
    operations : GroupOperations
        What knows the groups.
    groups : Groups
        What acts on what is asked for.
    """

    def __init__(self, operations: GroupOperations, groups: Groups) -> None:
        self._operations = operations
        self._groups = groups

    def put_warm_pool(self, request: Request) -> Reply:
        """Give a group a warm pool, or change the one that it has; what is not named stays."""
        group = self._operations.find(request["AutoScalingGroupName"])
        if request.get("PoolState", "Stopped") != "Stopped":
            raise invalid(f"PoolState {request['PoolState']} is not implemented by the embedded AWS.")
        if (request.get("InstanceReusePolicy") or {}).get("ReuseOnScaleIn"):
            raise invalid("ReuseOnScaleIn is not implemented by the embedded AWS.")
        if group.warm is not None and group.warm.deleting:
            raise invalid(f"The warm pool of AutoScalingGroup '{group.name}' is being deleted.")
        self._operations.refuse_spot(group)
        pool = group.warm or WarmPool()
        pool.min_size = request.get("MinSize", pool.min_size)
        most = request.get("MaxGroupPreparedCapacity", pool.max_prepared)
        pool.max_prepared = None if most == -1 else most
        group.warm = pool
        self._groups.resize(group, "a user request changed the warm pool.")
        return {}

    def describe_warm_pool(self, request: Request) -> Reply:
        """Describe a warm pool and its instances; nothing when there is none."""
        group = self._operations.find(request["AutoScalingGroupName"])
        if group.warm is None:
            return {"Instances": []}
        ids, token = page(sorted(group.warm.members), request.get("NextToken"), size_of_page(request, 50, 50), "")
        members = [group.warm.members[identity] for identity in ids]
        instances = [shown_instance(member) for member in members]
        return {"WarmPoolConfiguration": shown_warm_pool(group.warm), "Instances": instances, "NextToken": token}

    def delete_warm_pool(self, request: Request) -> Reply:
        """Terminate what is in a warm pool; it is gone when they are. Without force, only an empty one at once."""
        group = self._operations.find(request["AutoScalingGroupName"])
        if group.warm is None:
            raise invalid(f"No warm pool found for AutoScalingGroup '{group.name}'.")
        if not request.get("ForceDelete") and any(m.state == "Warmed:Pending" for m in group.warm.members.values()):
            raise ServiceError("ScalingActivityInProgress", "Instances are being launched into the warm pool.")
        group.warm.deleting = True
        self._groups.resize(group, "a user request deleted the warm pool.")
        return {}


def _staying(group: Group) -> list[Membership]:
    return [one for one in group.warm.members.values() if not one.leaving] if group.warm is not None else []


def _size(group: Group) -> int:
    """Return how many instances a warm pool is to have.

    The difference between the group's maximum and its desired capacity, or between MaxGroupPreparedCapacity
    and that, and MinSize at the least (docs.aws.amazon.com/autoscaling/ec2/APIReference/API_PutWarmPool.html).
    """
    pool: Any = group.warm
    if pool.deleting or group.deleting:
        return 0
    most = group.max_size if pool.max_prepared is None else pool.max_prepared
    return int(max(most - group.desired, pool.min_size, 0))
