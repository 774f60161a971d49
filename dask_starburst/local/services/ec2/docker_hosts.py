"""Instances without ECS that run containers from their user data."""

from __future__ import annotations

import logging
import os
import signal
from collections import deque
from dataclasses import dataclass

from dask_starburst.local.backend.backend import Backend
from dask_starburst.local.backend.state import Ec2Instance
from dask_starburst.local.containers.fake import FakeContainers
from dask_starburst.local.containers.images import Images
from dask_starburst.local.containers.processes import Containers
from dask_starburst.local.services.ec2.cloud_init import Boot, DockerRun, parse
from dask_starburst.local.services.ec2.instance_lifecycle import InstanceLifecycle
from dask_starburst.local.services.ec2.instances import Ec2

_log = logging.getLogger(__name__)


@dataclass
class _Host:
    ec2_instance: Ec2Instance
    boot: Boot
    left: deque[DockerRun]
    number: int = 0
    key: str | None = None


class DockerHosts:
    """Runs the containers of instances' user data.

    Parameters
    ----------
    backend, ec2, containers, images : Backend, Ec2, Containers, Images
        The instances, their user data, the container processes, and the Python of each image.
    lifecycle : InstanceLifecycle
        Calls back when instances boot and end.
    """

    def __init__(
        self,
        backend: Backend,
        ec2: Ec2,
        containers: Containers | FakeContainers,
        images: Images,
        lifecycle: InstanceLifecycle,
    ) -> None:
        self._backend = backend
        self._ec2 = ec2
        self._containers = containers
        self._images = images
        self._lifecycle = lifecycle
        self._hosts: dict[str, _Host] = {}
        lifecycle.on_booted.append(self._booted)
        lifecycle.on_terminating.append(lambda ec2_instance: self._signal(ec2_instance, signal.SIGTERM))
        lifecycle.on_terminated.append(self._ended)

    def watch(self) -> None:
        """Check for containers that have ended; start the next one, or shut the instance down."""
        for host in list(self._hosts.values()):
            if host.key is not None and self._containers.poll(host.key) is not None:
                self._containers.forget(host.key)
                host.key = None
                if host.ec2_instance.state == "running":
                    self._next(host)

    def _booted(self, ec2_instance: Ec2Instance) -> None:
        boot = parse(self._ec2.user_data(ec2_instance.id))
        if boot is None:
            return
        host = _Host(ec2_instance, boot, deque(boot.runs))
        self._hosts[ec2_instance.id] = host
        if boot.installs_docker:
            self._backend.after("bootstrap", lambda: self._next(host))
        else:
            self._next(host)

    def _next(self, host: _Host) -> None:
        if host.left:
            run = host.left.popleft()
            self._backend.after("pull", lambda: self._start(host, run))
        elif host.boot.shuts_down:
            self._lifecycle.terminating(host.ec2_instance.id)

    def _start(self, host: _Host, run: DockerRun) -> None:
        if host.ec2_instance.state != "running":
            return
        host.number += 1
        key = f"{host.ec2_instance.id}/{host.number}"
        address = host.ec2_instance.private_ip
        argv, environment = self._images.dress(run.image, run.argv, self._environment(host.ec2_instance, run), address)
        try:
            self._containers.start(key, argv, environment, lambda when, line: _log.info("%s: %s", key, line))
        except OSError as error:
            _log.warning("%s could not be started: %s", key, error)
            self._next(host)
        else:
            host.key = key

    def _environment(self, ec2_instance: Ec2Instance, run: DockerRun) -> dict[str, str]:
        region = self._backend.region
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOSTNAME": f"ip-{ec2_instance.private_ip.replace('.', '-')}.ec2.internal",
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_ENDPOINT_URL": self._backend.endpoint_url,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self._backend.private_url("imds", ec2_instance.id) + "/",
            **run.environment,
        }

    def _signal(self, ec2_instance: Ec2Instance, number: int) -> None:
        host = self._hosts.get(ec2_instance.id)
        if host is not None and host.key is not None:
            self._containers.signal(host.key, number)

    def _ended(self, ec2_instance: Ec2Instance) -> None:
        self._signal(ec2_instance, signal.SIGKILL)
        self._hosts.pop(ec2_instance.id, None)
