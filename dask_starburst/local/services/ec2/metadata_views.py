"""The metadata of instances and tasks, from the backend's state."""

from __future__ import annotations

from dask_starburst.local.backend.backend import ACCOUNT, Backend
from dask_starburst.local.containers.awslogs import log_stream
from dask_starburst.local.services.ec2.instances import Ec2
from dask_starburst.local.services.ec2.metadata import InstanceMetadata, TaskMetadata


class MetadataViews:
    """The source of all metadata.

    Parameters
    ----------
    backend : Backend
        The instances and tasks.
    ec2 : Ec2
        Roles, images and tags of instances.
    """

    def __init__(self, backend: Backend, ec2: Ec2) -> None:
        self._backend = backend
        self._ec2 = ec2

    def instance(self, id: str) -> InstanceMetadata | None:
        """Return the metadata of an instance that is not terminated."""
        with self._backend.lock:
            ec2_instance = self._backend.ec2_instances.get(id)
            if ec2_instance is None or ec2_instance.state == "terminated":
                return None
            instance = self._ec2.instance(id)
            shown = instance.metadata_options.instance_metadata_tags == "enabled"
            return InstanceMetadata(
                instance_id=id,
                instance_type=ec2_instance.instance_type,
                region=self._backend.region,
                zone=ec2_instance.zone,
                private_ip=ec2_instance.private_ip,
                public_ip=instance.public_ip,
                image_id=instance.image_id,
                account_id=ACCOUNT,
                role_name=self._ec2.role_of(id),
                lifecycle=ec2_instance.lifecycle,
                tags={tag["key"]: tag["value"] for tag in instance.get_tags()} if shown else {},
                instance_action=ec2_instance.instance_action,
                rebalance=ec2_instance.rebalance,
            )

    def task(self, id: str) -> TaskMetadata | None:
        """Return the metadata of a task that is not stopped."""
        with self._backend.lock:
            task = self._backend.tasks.get(id)
            if task is None or task.status == "STOPPED":
                return None
            container = task.containers[0]
            stream = log_stream(task, container)
            role = task.overrides.get("taskRoleArn") or task.definition.document.get("taskRoleArn")
            return TaskMetadata(
                arn=task.arn,
                cluster=task.cluster,
                family=task.definition.family,
                revision=task.definition.revision,
                container=container.name,
                image=container.definition["image"],
                cpu=task.cpu,
                memory=task.memory,
                zone=task.instance.ec2_instance.zone,
                role_arn=role,
                instance_id=task.instance.ec2_instance.id,
                started=task.times.get("startedAt"),
                log_group=stream[1] if stream else None,
                log_stream=stream[2] if stream else None,
                launch_type="FARGATE" if task.fargate else "EC2",
                interface_ip=task.interface.private_ip if task.interface else None,
                stopping="stoppingAt" in task.times,
            )
