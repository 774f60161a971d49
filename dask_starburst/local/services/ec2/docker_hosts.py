"""Instances without ECS that run containers because their user data says so."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from dataclasses import dataclass

from dask_starburst.local.backend.state import Machine
from dask_starburst.local.backend.world import World
from dask_starburst.local.containers.fake import PlayedContainers
from dask_starburst.local.containers.images import Images
from dask_starburst.local.containers.processes import Containers
from dask_starburst.local.services.ec2.cloud_init import Boot, DockerRun, parse
from dask_starburst.local.services.ec2.instances import Ec2
from dask_starburst.local.services.ec2.machines import Machines

_log = logging.getLogger(__name__)


@dataclass
class _Host:
    machine: Machine
    boot: Boot
    left: deque[DockerRun]
    number: int = 0
    key: str | None = None


class DockerHosts:
    """Follows every instance that boots.

    Parameters
    ----------
    world, ec2, containers, images : World, Ec2, Containers, Images
        Where they are, what they were told, what runs processes, and in which Python.
    machines : Machines
        What tells of booted and of ending instances.
    """

    def __init__(
        self, world: World, ec2: Ec2, containers: Containers | PlayedContainers, images: Images, machines: Machines
    ) -> None:
        self._world = world
        self._ec2 = ec2
        self._containers = containers
        self._images = images
        self._machines = machines
        self._hosts: dict[str, _Host] = {}
        machines.on_booted.append(self._booted)
        machines.on_terminating.append(lambda machine: self._signal(machine, signal.SIGTERM))
        machines.on_terminated.append(self._ended)

    def watch(self) -> None:
        """Notice containers that have ended: the next one follows, or the instance shuts down."""
        for host in list(self._hosts.values()):
            if host.key is not None and self._containers.poll(host.key) is not None:
                self._containers.forget(host.key)
                host.key = None
                if host.machine.state == "running":
                    self._next(host)

    def _booted(self, machine: Machine) -> None:
        boot = parse(self._ec2.user_data(machine.id))
        if boot is None:
            return
        host = _Host(machine, boot, deque(boot.runs))
        self._hosts[machine.id] = host
        if boot.installs_docker:
            self._world.after("bootstrap", lambda: self._next(host))
        else:
            self._next(host)

    def _next(self, host: _Host) -> None:
        if host.left:
            run = host.left.popleft()
            self._world.after("pull", lambda: self._start(host, run))
        elif host.boot.shuts_down:
            self._machines.terminating(host.machine.id)

    def _start(self, host: _Host, run: DockerRun) -> None:
        if host.machine.state != "running":
            return
        host.number += 1
        key = f"{host.machine.id}/{host.number}"
        address = host.machine.private_ip
        argv, environment = self._images.dress(run.image, run.argv, self._environment(host.machine, run), address)
        try:
            self._containers.start(key, argv, environment, lambda when, line: _log.info("%s: %s", key, line))
        except OSError as error:
            _log.warning("%s could not be started: %s", key, error)
            self._next(host)
        else:
            host.key = key

    def _environment(self, machine: Machine, run: DockerRun) -> dict[str, str]:
        region = self._world.region
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOSTNAME": f"ip-{machine.private_ip.replace('.', '-')}.ec2.internal",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL": self._world.endpoint_url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._world.private_url("imds", machine.id) + "/",
            **run.environment,
        }

    def _signal(self, machine: Machine, number: int) -> None:
        host = self._hosts.get(machine.id)
        if host is not None and host.key is not None:
            self._containers.signal(host.key, number)

    def _ended(self, machine: Machine) -> None:
        self._signal(machine, signal.SIGKILL)
        self._hosts.pop(machine.id, None)
