"""The vCPU quotas of the embedded account: what they allow, and what is in use."""

from __future__ import annotations

from collections.abc import Iterable

from dask_starburst.catalog.quotas import Market, Quota, fargate_quota, quota_of
from dask_starburst.local.backend.state import Machine, Task

#: What every quota is at the start: so much that nobody meets it by accident. A new account of AWS has 0 to 6.
PLENTY = 1_000_000.0
#: Where ECS runs tasks without instances.
_FARGATE = "FARGATE"


class Quotas:
    """What Service Quotas says and launches keep to, in vCPUs."""

    def __init__(self) -> None:
        self._limits: dict[str, float] = {}  # those that are no longer as at the start
        self._machines: dict[str, Machine] = {}  # those that count
        self._used: dict[str, int] = {}

    def limit(self, quota: Quota) -> float:
        """Return what a quota allows."""
        return self._limits.get(quota.code, PLENTY)

    def set(self, quota: Quota, vcpus: float | None) -> None:
        """Let a quota allow so much; None is what it was at the start."""
        self._limits.pop(quota.code, None)
        if vcpus is not None:
            self._limits[quota.code] = vcpus

    def clear(self) -> None:
        """Let all quotas be as at the start."""
        self._limits.clear()

    def take(self, machine: Machine) -> None:
        """Count an instance that is launched."""
        self._machines[machine.id] = machine
        self._add(machine, machine.vcpus)

    def give_back(self, machine: Machine) -> None:
        """Count an instance no longer that shuts down."""
        if self._machines.pop(machine.id, None) is not None:
            self._add(machine, -machine.vcpus)

    def allows(self, quota: Quota, vcpus: int) -> bool:
        """Whether an instance of so many vCPUs may be launched."""
        return self._used.get(quota.code, 0) + vcpus <= self.limit(quota)

    def allows_task(self, market: Market, cpu: int, tasks: Iterable[Task]) -> bool:
        """Whether a task of so many CPU units may be started on Fargate beside these."""
        there = (one for one in tasks if one.launch_type == _FARGATE and one.status != "STOPPED")
        used = sum(one.cpu for one in there if _bought(one.instance.machine) == market)
        return (used + cpu) / 1024 <= self.limit(fargate_quota(market))

    def _add(self, machine: Machine, vcpus: int) -> None:
        quota = quota_of(machine.instance_type, _bought(machine))
        if quota is not None:
            self._used[quota.code] = self._used.get(quota.code, 0) + vcpus


def _bought(machine: Machine) -> Market:
    return "spot" if machine.lifecycle == "spot" else "on-demand"
