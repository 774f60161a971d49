"""What the metadata services tell instances and tasks of themselves."""

from __future__ import annotations

from dask_starburst.local.backend.world import ACCOUNT, World
from dask_starburst.local.containers.awslogs import log_stream
from dask_starburst.local.services.ec2.instances import Ec2
from dask_starburst.local.services.ec2.metadata import InstanceFacts, TaskFacts


class Facts:
    """The source of all metadata.

    Parameters
    ----------
    world : World
        Where instances and tasks are.
    ec2 : Ec2
        What knows roles, images and tags.
    """

    def __init__(self, world: World, ec2: Ec2) -> None:
        self._world = world
        self._ec2 = ec2

    def instance(self, id: str) -> InstanceFacts | None:
        """Return the facts of an instance while it lives."""
        with self._world.lock:
            machine = self._world.machines.get(id)
            if machine is None or machine.state == "terminated":
                return None
            instance = self._ec2.instance(id)
            shown = instance.metadata_options.instance_metadata_tags == "enabled"
            return InstanceFacts(
                instance_id=id,
                instance_type=machine.instance_type,
                region=self._world.region,
                zone=machine.zone,
                private_ip=machine.private_ip,
                public_ip=instance.public_ip,
                image_id=instance.image_id,
                account_id=ACCOUNT,
                role_name=self._ec2.role_of(id),
                lifecycle=machine.lifecycle,
                tags={tag["key"]: tag["value"] for tag in instance.get_tags()} if shown else {},
                instance_action=machine.instance_action,
                rebalance=machine.rebalance,
            )

    def task(self, id: str) -> TaskFacts | None:
        """Return the facts of a task while it lives."""
        with self._world.lock:
            task = self._world.tasks.get(id)
            if task is None or task.status == "STOPPED":
                return None
            container = task.containers[0]
            stream = log_stream(task, container)
            role = task.overrides.get("taskRoleArn") or task.definition.document.get("taskRoleArn")
            return TaskFacts(
                arn=task.arn,
                cluster=task.cluster,
                family=task.definition.family,
                revision=task.definition.revision,
                container=container.name,
                image=container.definition["image"],
                cpu=task.cpu,
                memory=task.memory,
                zone=task.instance.machine.zone,
                role_arn=role,
                instance_id=task.instance.machine.id,
                started=task.times.get("startedAt"),
                log_group=stream[1] if stream else None,
                log_stream=stream[2] if stream else None,
                launch_type="FARGATE" if task.fargate else "EC2",
                interface_ip=task.interface.private_ip if task.interface else None,
            )
