"""The lifecycle of an instance: pending, running, booted, registered with ECS, terminated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dask_starburst.local.backend.backend import Backend, new_id
from dask_starburst.local.backend.state import ContainerInstance, Ec2Instance, Task
from dask_starburst.local.services.ec2.instances import Ec2
from dask_starburst.local.services.ecs import rights

# A container instance registers less memory than its type has: the kernel and the agent use some.
REGISTERED_SHARE = 0.95
CPU_UNITS = 1024
_USER = "Client.UserInitiatedShutdown: User initiated shutdown"
_AGENT_RETRY = 10.0  # RestartSec of ecs.service
_SHOWN = 3600.0  # EC2 shows terminated instances for about an hour


class InstanceLifecycle:
    """Runs the lifecycle of every instance.

    Parameters
    ----------
    backend : Backend
        The state and timers.
    ec2 : Ec2
        Shows them in EC2's API.

    Attributes
    ----------
    on_launched, on_running, on_booted, on_terminating, on_terminated : list of callable
        Called with each instance that enters the state.
    stop_task, end_task : callable
        Stop or end a task on an instance that shuts down.
    refuse : callable
        Returns EC2's reason to terminate an instance before it runs; None if it starts.
    """

    def __init__(self, backend: Backend, ec2: Ec2) -> None:
        self._backend = backend
        self._ec2 = ec2
        self.on_launched: list[Callable[[Ec2Instance], None]] = []
        self.on_running: list[Callable[[Ec2Instance], None]] = []
        self.on_booted: list[Callable[[Ec2Instance], None]] = []
        self.on_terminating: list[Callable[[Ec2Instance], None]] = []
        self.on_terminated: list[Callable[[Ec2Instance], None]] = []
        self.stop_task: Callable[[Task], None] = lambda task: None
        self.end_task: Callable[[Task, str], None] = lambda task, reason: None
        self.refuse: Callable[[Ec2Instance], Any] = lambda ec2_instance: None

    def launched(self, instance: Any) -> None:
        """Start the lifecycle of an instance that moto has just created."""
        with self._backend.lock:
            ec2_instance = self._ec2.describe(instance, self._backend.now())
            self._backend.ec2_instances[ec2_instance.id] = ec2_instance
            self._backend.history.append(ec2_instance)
            self._backend.after("pending", lambda: self._run(ec2_instance))
            for listener in self.on_launched:
                listener(ec2_instance)

    def terminating(self, instance_id: str, reason: Any = None) -> None:
        """Shut an instance down. No-op if it is shutting down already.

        Parameters
        ----------
        instance_id : str
            The id of the instance.
        reason : StateReason, optional
            EC2's state reason if the user did not request it.
        """
        with self._backend.lock:
            ec2_instance = self._backend.ec2_instances.get(instance_id)
            if ec2_instance is None or ec2_instance.state in ("shutting-down", "terminated"):
                return
            ec2_instance.state, ec2_instance.ended_at = "shutting-down", self._backend.now()
            ec2_instance.interrupted = reason is not None and reason.code == "Server.SpotInstanceTermination"
            ec2_instance.end_reason = _USER if reason is None else reason.message
            self._ec2.set_shutting_down(ec2_instance, ec2_instance.ended_at, reason)
            for task in self._tasks_on(ec2_instance):
                self.stop_task(task)
            instance = self._backend.registered.get(ec2_instance.id)
            if instance is not None:
                instance.connected = False
                instance.version += 1
            self._backend.after("shutdown", lambda: self._end(ec2_instance))
            for listener in self.on_terminating:
                listener(ec2_instance)

    def terminate_at_once(self, ec2_instance: Ec2Instance, reason: Any) -> None:
        """Terminate an instance at once with everything on it. The backend's lock must be held."""
        for task in self._tasks_on(ec2_instance):
            self.end_task(task, f"Host EC2 (instance {ec2_instance.id}) terminated.")
        self.terminating(ec2_instance.id, reason)
        self._end(ec2_instance)

    def is_connected(self, ec2_instance: Ec2Instance) -> bool:
        """Return whether the ECS agent of an instance is connected."""
        instance = self._backend.registered.get(ec2_instance.id)
        return instance is not None and instance.connected

    def set_agent(self, ec2_instance: Ec2Instance, connected: bool) -> None:
        """Connect or disconnect the ECS agent of a running instance."""
        instance = self._backend.registered.get(ec2_instance.id)
        if instance is not None and ec2_instance.state == "running":
            instance.connected = connected
            instance.version += 1

    def _run(self, ec2_instance: Ec2Instance) -> None:
        if ec2_instance.state != "pending":
            return
        refusal = self.refuse(ec2_instance)
        if refusal is not None:
            self.terminating(ec2_instance.id, refusal)
            return
        ec2_instance.state = "running"
        self._ec2.set_running(ec2_instance)
        for listener in self.on_running:
            listener(ec2_instance)
        registers = self._backend.pending_faults.registers(ec2_instance) and self._ec2.reaches_ecs(ec2_instance)
        # One fault an instance: an instance that never registers does not use up a slow boot.
        boot = self._backend.timing.seconds("boot") + (
            self._backend.pending_faults.delay(ec2_instance) if registers else 0.0
        )
        self._backend.at(self._backend.now() + boot, lambda: self._boot(ec2_instance, registers))

    def _boot(self, ec2_instance: Ec2Instance, registers: bool) -> None:
        if ec2_instance.state != "running":
            return
        for listener in self.on_booted:
            listener(ec2_instance)
        if registers:
            self._register(ec2_instance)

    def _register(self, ec2_instance: Ec2Instance) -> None:
        if ec2_instance.state != "running":
            return
        cluster = self._backend.clusters.get(ec2_instance.cluster or "default")
        if cluster is None or cluster.status != "ACTIVE":
            if ec2_instance.cluster is not None:
                self._backend.at(self._backend.now() + _AGENT_RETRY, lambda: self._register(ec2_instance))
            return
        role = self._ec2.role_of(ec2_instance.id)
        if rights.registration_denial(self._backend, role, ec2_instance.id, cluster.name):
            self._backend.at(self._backend.now() + _AGENT_RETRY, lambda: self._register(ec2_instance))
            return
        instance = self._container_instance(ec2_instance, cluster.name)
        cluster.instances[instance.arn] = instance
        self._backend.registered[ec2_instance.id] = instance
        self._backend.after("agent", lambda: self._connect(instance))

    def _container_instance(self, ec2_instance: Ec2Instance, cluster: str) -> ContainerInstance:
        cpu, memory = ec2_instance.vcpus * CPU_UNITS, int(ec2_instance.memory * REGISTERED_SHARE)
        return ContainerInstance(
            arn=self._backend.arn("ecs", f"container-instance/{cluster}/{new_id()}"),
            cluster=cluster,
            ec2_instance=ec2_instance,
            provider=self._backend.provider_of(ec2_instance, cluster),
            registered_at=self._backend.now(),
            cpu=cpu,
            memory=memory,
            free_cpu=cpu,
            free_memory=memory,
            attributes={
                "ecs.instance-type": ec2_instance.instance_type,
                "ecs.cpu-architecture": ec2_instance.architecture,
                "ecs.os-type": "linux",
                "ecs.availability-zone": ec2_instance.zone,
                **ec2_instance.host_attributes,
            },
        )

    def drain(self, ec2_instance: Ec2Instance) -> None:
        """Set an instance to DRAINING, as its agent does on a Spot notice where it is told and allowed to."""
        instance, role = self._backend.registered.get(ec2_instance.id), self._ec2.role_of(ec2_instance.id)
        if not ec2_instance.drains or instance is None or instance.status != "ACTIVE":
            return
        if rights.draining_denial(self._backend, role, instance) is None:
            instance.status = "DRAINING"
            instance.version += 1

    def _connect(self, instance: ContainerInstance) -> None:
        if instance.ec2_instance.state != "running":
            return
        if rights.connection_denial(self._backend, self._ec2.role_of(instance.ec2_instance.id), instance):
            self._backend.at(self._backend.now() + _AGENT_RETRY, lambda: self._connect(instance))
        else:
            instance.connected = True
            instance.connected_at = self._backend.now()
            instance.version += 1

    def _end(self, ec2_instance: Ec2Instance) -> None:
        if ec2_instance.state == "terminated":
            return
        for task in self._tasks_on(ec2_instance):
            self.end_task(task, f"Host EC2 (instance {ec2_instance.id}) terminated.")
        ec2_instance.state = "terminated"
        self._ec2.set_terminated(ec2_instance)
        self._backend.after("deregister", lambda: self._deregister(ec2_instance))
        self._backend.at(self._backend.now() + _SHOWN, lambda: self._forget(ec2_instance))
        for listener in self.on_terminated:
            listener(ec2_instance)

    def _deregister(self, ec2_instance: Ec2Instance) -> None:
        instance = self._backend.registered.pop(ec2_instance.id, None)
        if instance is not None:
            instance.status = "INACTIVE"
            self._backend.clusters[instance.cluster].instances.pop(instance.arn, None)

    def _forget(self, ec2_instance: Ec2Instance) -> None:
        self._ec2.forget(ec2_instance)
        del self._backend.ec2_instances[ec2_instance.id]

    def _tasks_on(self, ec2_instance: Ec2Instance) -> list[Task]:
        instance = self._backend.registered.get(ec2_instance.id)
        return list(instance.tasks.values()) if instance is not None else []
