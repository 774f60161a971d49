"""The vCPU quotas of the embedded account and their usage."""

from __future__ import annotations

from collections.abc import Iterable

from dask_starburst.catalog.markets import Market
from dask_starburst.catalog.quotas import Quota, fargate_quota, quota_of
from dask_starburst.local.backend.state import Ec2Instance, Task

#: The initial value of every quota, practically unlimited. A new AWS account has 0 to 6.
PLENTY = 1_000_000.0
#: The launch type of tasks without EC2 instances.
_FARGATE = "FARGATE"


class Quotas:
    """The quotas that Service Quotas reports and launches respect, in vCPUs."""

    def __init__(self) -> None:
        self._limits: dict[str, float] = {}  # changed from the initial value
        self._ec2_instances: dict[str, Ec2Instance] = {}  # counted against quotas
        self._used: dict[str, int] = {}

    def limit(self, quota: Quota) -> float:
        """Return the value of a quota."""
        return self._limits.get(quota.code, PLENTY)

    def set(self, quota: Quota, vcpus: float | None) -> None:
        """Set the value of a quota; None restores the initial value."""
        self._limits.pop(quota.code, None)
        if vcpus is not None:
            self._limits[quota.code] = vcpus

    def clear(self) -> None:
        """Restore the initial values of all quotas."""
        self._limits.clear()

    def take(self, ec2_instance: Ec2Instance) -> None:
        """Count a launched instance."""
        self._ec2_instances[ec2_instance.id] = ec2_instance
        self._add(ec2_instance, ec2_instance.vcpus)

    def give_back(self, ec2_instance: Ec2Instance) -> None:
        """Stop counting an instance that shuts down."""
        if self._ec2_instances.pop(ec2_instance.id, None) is not None:
            self._add(ec2_instance, -ec2_instance.vcpus)

    def allows(self, quota: Quota, vcpus: int) -> bool:
        """Return whether the quota has room for an instance with `vcpus` vCPUs."""
        return self._used.get(quota.code, 0) + vcpus <= self.limit(quota)

    def allows_task(self, market: Market, cpu: int, tasks: Iterable[Task]) -> bool:
        """Return whether the Fargate quota has room for a task of `cpu` CPU units beside `tasks`."""
        running = (one for one in tasks if one.launch_type == _FARGATE and one.status != "STOPPED")
        used = sum(one.cpu for one in running if _bought(one.instance.ec2_instance) == market)
        return (used + cpu) / 1024 <= self.limit(fargate_quota(market))

    def _add(self, ec2_instance: Ec2Instance, vcpus: int) -> None:
        quota = quota_of(ec2_instance.instance_type, _bought(ec2_instance))
        if quota is not None:
            self._used[quota.code] = self._used.get(quota.code, 0) + vcpus


def _bought(ec2_instance: Ec2Instance) -> Market:
    return Market(ec2_instance.lifecycle)
