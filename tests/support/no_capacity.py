"""A platform and a scheduler on which nothing happens."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from dask_starburst.errors import AWSError
from dask_starburst.events.instances import InstanceTimestamps
from dask_starburst.fleet.capacity.interface import Failed, Report
from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.state import Action, Name, Observed, Worker


class NoCapacity:
    """Refuses every call immediately; see `Capacity`."""

    name = "starburst-test-0"
    scheduler_address = contact_address = ""
    reachable = False

    def __init__(self, now: float = 1000.0, lines: Iterable[str] = ()) -> None:
        self.time = now
        self.lines = list(lines)
        self.renewals: list[float] = []
        self.credentials_renewed = 0

    def now(self) -> float:
        return self.time

    def renew_credentials(self) -> None:
        self.credentials_renewed += 1

    async def observe(
        self, before: Observed, workers: Collection[Worker], members: frozenset[Name], now: float
    ) -> Observed:
        raise AWSError("autoscaling:DescribeAutoScalingGroups is refused.")

    async def prepare(self, observed: Observed) -> None:
        raise AWSError("ec2:DescribeInstances is refused.")

    def ready(self, action: Action) -> bool:
        return True

    async def apply(self, actions: Iterable[Action], observed: Observed, report: Report) -> None:
        for action in actions:
            report(Failed((action,), AWSError("AWS refuses the action.")))

    async def billable(self, instances: Iterable[str]) -> list[InstanceTimestamps]:
        raise AWSError("ec2:DescribeInstances is refused.")

    async def explain(self, worker: Worker, lines: int, patience: float = 0.0) -> list[str]:
        return self.lines[-lines:]

    async def renew(self, until: float) -> None:
        self.renewals.append(until)
        raise AWSError("autoscaling:PutScheduledUpdateGroupAction is refused.")

    async def is_claimed_and_open(self) -> bool:
        return True


class NoDask:
    """A scheduler without workers; it notes the calls that change something."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Name]] = []

    def members(self) -> frozenset[Name]:
        return frozenset()

    async def retire(self, name: Name) -> None:
        self.calls.append(("retire", name))

    async def forget(self, name: Name) -> None:
        self.calls.append(("forget", name))

    async def lease(self) -> float:
        return 0.0

    async def notices(self, after: int) -> list[Notice]:
        await asyncio.Event().wait()
        return []

    async def counts(self) -> dict[str, float]:
        return {}

    async def unrunnable(self) -> dict[str, str]:
        return {}

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        return {}

    async def announce_drain(self, name: Name) -> None:
        self.calls.append(("drain", name))

    async def replace(self, name: Name) -> Name:
        self.calls.append(("replace", name))
        return "new"

    async def withdraw(self, name: Name) -> None:
        self.calls.append(("withdraw", name))

    async def restore(self, new: Name, old: Name) -> None:
        self.calls.append(("restore", old))

    async def exempt(self, names: Collection[Name]) -> None:
        self.calls += [("exempt", name) for name in names]
