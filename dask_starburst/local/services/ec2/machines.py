"""The life of an instance: pending, running, booted, registered with ECS, terminated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dask_starburst.local.backend.state import ContainerInstance, Machine, Task
from dask_starburst.local.backend.world import World, new_id
from dask_starburst.local.services.ec2.instances import Ec2

# A container instance offers less memory than EC2 sells: the kernel and the agent have theirs.
REGISTERED_SHARE = 0.95
CPU_UNITS = 1024
_AGENT_RETRY = 10.0  # RestartSec of ecs.service
_SHOWN = 3600.0  # EC2 shows terminated instances for about an hour


class Machines:
    """Takes every instance through its life.

    Parameters
    ----------
    world : World
        Where they are.
    ec2 : Ec2
        What shows them to EC2's callers.

    Attributes
    ----------
    on_launched, on_running, on_booted, on_terminating, on_terminated : list of callable
        Called with each instance that comes to that state: its group, the market and what runs on it listen.
    stop_task, end_task : callable
        What ends a task on an instance that shuts down, gently and for good.
    """

    def __init__(self, world: World, ec2: Ec2) -> None:
        self._world = world
        self._ec2 = ec2
        self.on_launched: list[Callable[[Machine], None]] = []
        self.on_running: list[Callable[[Machine], None]] = []
        self.on_booted: list[Callable[[Machine], None]] = []
        self.on_terminating: list[Callable[[Machine], None]] = []
        self.on_terminated: list[Callable[[Machine], None]] = []
        self.stop_task: Callable[[Task], None] = lambda task: None
        self.end_task: Callable[[Task, str], None] = lambda task, reason: None

    def launched(self, instance: Any) -> None:
        """Take over an instance that moto has just made."""
        with self._world.lock:
            machine = self._ec2.machine(instance, self._world.now())
            self._world.machines[machine.id] = machine
            self._world.history.append(machine)
            self._world.after("pending", lambda: self._run(machine))
            for listener in self.on_launched:
                listener(machine)

    def terminating(self, instance_id: str, reason: Any = None) -> None:
        """Shut an instance down, whoever asked for it. Nothing happens if it is on its way already.

        Parameters
        ----------
        instance_id : str
            Which.
        reason : StateReason, optional
            What EC2 shows when it was not the user who asked for it.
        """
        with self._world.lock:
            machine = self._world.machines.get(instance_id)
            if machine is None or machine.state in ("shutting-down", "terminated"):
                return
            machine.state, machine.ended_at = "shutting-down", self._world.now()
            machine.taken = reason is not None and reason.code == "Server.SpotInstanceTermination"
            self._ec2.set_shutting_down(machine, machine.ended_at, reason)
            for task in self._tasks_on(machine):
                self.stop_task(task)
            instance = self._world.registered.get(machine.id)
            if instance is not None:
                instance.connected = False
                instance.version += 1
            self._world.after("shutdown", lambda: self._end(machine))
            for listener in self.on_terminating:
                listener(machine)

    def die(self, machine: Machine, reason: Any) -> None:
        """Let an instance be gone at once, with all that runs on it. Call it with the world's lock held."""
        for task in self._tasks_on(machine):
            self.end_task(task, f"Host EC2 (instance {machine.id}) terminated.")
        self.terminating(machine.id, reason)
        self._end(machine)

    def is_connected(self, machine: Machine) -> bool:
        """Whether the ECS agent of an instance is connected."""
        instance = self._world.registered.get(machine.id)
        return instance is not None and instance.connected

    def set_agent(self, machine: Machine, connected: bool) -> None:
        """Disconnect the ECS agent of a running instance, or connect it again."""
        instance = self._world.registered.get(machine.id)
        if instance is not None and machine.state == "running":
            instance.connected = connected
            instance.version += 1

    def _run(self, machine: Machine) -> None:
        if machine.state != "pending":
            return
        machine.state = "running"
        self._ec2.set_running(machine)
        for listener in self.on_running:
            listener(machine)
        registers = self._world.luck.registers(machine)
        # One mishap is enough for one instance: a slow boot waits for another one than that which never registers.
        boot = self._world.timing.seconds("boot") + (self._world.luck.delay(machine) if registers else 0.0)
        self._world.at(self._world.now() + boot, lambda: self._boot(machine, registers))

    def _boot(self, machine: Machine, registers: bool) -> None:
        if machine.state != "running":
            return
        for listener in self.on_booted:
            listener(machine)
        if registers:
            self._register(machine)

    def _register(self, machine: Machine) -> None:
        if machine.state != "running":
            return
        cluster = self._world.clusters.get(machine.cluster or "default")
        if cluster is None or cluster.status != "ACTIVE":
            if machine.cluster is not None:
                self._world.at(self._world.now() + _AGENT_RETRY, lambda: self._register(machine))
            return
        instance = self._container_instance(machine, cluster.name)
        cluster.instances[instance.arn] = instance
        self._world.registered[machine.id] = instance
        self._world.after("agent", lambda: self._connect(instance))

    def _container_instance(self, machine: Machine, cluster: str) -> ContainerInstance:
        cpu, memory = machine.vcpus * CPU_UNITS, int(machine.memory * REGISTERED_SHARE)
        return ContainerInstance(
            arn=self._world.arn("ecs", f"container-instance/{cluster}/{new_id()}"),
            cluster=cluster,
            machine=machine,
            provider=self._world.provider_of(machine, cluster),
            registered_at=self._world.now(),
            cpu=cpu,
            memory=memory,
            free_cpu=cpu,
            free_memory=memory,
            attributes={
                "ecs.instance-type": machine.instance_type,
                "ecs.cpu-architecture": machine.architecture,
                "ecs.os-type": "linux",
                "ecs.availability-zone": machine.zone,
                **machine.host_attributes,
            },
        )

    def _connect(self, instance: ContainerInstance) -> None:
        if instance.machine.state == "running":
            instance.connected = True
            instance.connected_at = self._world.now()
            instance.version += 1

    def _end(self, machine: Machine) -> None:
        if machine.state == "terminated":
            return
        for task in self._tasks_on(machine):
            self.end_task(task, f"Host EC2 (instance {machine.id}) terminated.")
        machine.state = "terminated"
        self._ec2.set_terminated(machine)
        self._world.after("deregister", lambda: self._deregister(machine))
        self._world.at(self._world.now() + _SHOWN, lambda: self._forget(machine))
        for listener in self.on_terminated:
            listener(machine)

    def _deregister(self, machine: Machine) -> None:
        instance = self._world.registered.pop(machine.id, None)
        if instance is not None:
            instance.status = "INACTIVE"
            self._world.clusters[instance.cluster].instances.pop(instance.arn, None)

    def _forget(self, machine: Machine) -> None:
        self._ec2.forget(machine)
        del self._world.machines[machine.id]

    def _tasks_on(self, machine: Machine) -> list[Task]:
        instance = self._world.registered.get(machine.id)
        return list(instance.tasks.values()) if instance is not None else []
