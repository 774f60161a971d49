"""`SimulatedAWS` behind the product's interface to a platform, and its scheduler behind that to Dask."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import count

from benchmarks.harness.simulator.aws import LOSS, NEVER, Process, SimulatedAWS
from dask_starburst.errors import AWSError, AWSUnavailable
from dask_starburst.events.instances import InstanceTimestamps
from dask_starburst.fleet.capacity.interface import Accepted, Failed, Ran, Refused, Report
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.offerings import remember
from dask_starburst.plan.loop.polling import Connected, booting, differing, join_instances, join_tasks, unverified
from dask_starburst.plan.loop.reconcile import unconfirmed
from dask_starburst.plan.loop.state import (
    Action,
    Forget,
    Name,
    Observed,
    Retire,
    RunTask,
    ScalingGroup,
    SetDesired,
    SetTypes,
    StopTask,
    Task,
    Terminate,
    Worker,
)

#: Seconds between two full refreshes, and until a task that has not joined is described: as with a poll of 1.5 s.
FULL_REFRESH = 30.0
JOIN_GRACE = 6.0


class SimulatedCapacity:
    """Instances and tasks in virtual time; see `Capacity`. No method waits.

    Parameters
    ----------
    aws : SimulatedAWS
        Its outages make calls fail.
    tick : float
        Seconds that pass in each observation; 0 if the caller lets the time pass.
    """

    name = "simulated"
    scheduler_address = contact_address = "tls://simulated:8786"
    reachable = True

    def __init__(self, aws: SimulatedAWS, tick: float = 0.0) -> None:
        self.aws = aws
        self._tick = tick
        self._refreshed = -NEVER
        self._described: dict[str, float] = {}
        self._launched: dict[str, float] = {}

    def now(self) -> float:
        """Return the virtual time."""
        return self.aws.now

    def renew_credentials(self) -> None:
        """Do nothing: there are none."""

    async def observe(
        self, before: Observed, workers: Collection[Worker], members: frozenset[Name], now: float
    ) -> Observed:
        """Observe as much, and as late, as `EC2Capacity` does."""
        self.aws.pass_time(self._tick)
        if self.aws.down("poll"):
            raise AWSUnavailable("the simulated AWS does not answer.")
        aws = self.aws
        present = [(m.id, m.placement, m.type, m.terminating) for m in aws.instances.values()]
        refresh = now - self._refreshed >= FULL_REFRESH
        instances = join_instances(present, None, before, now)
        known = replace(before, instances=instances, members=members)
        registered = {m.arn: m for m in aws.instances.values() if m.arn}
        arns = frozenset(arn for arn, m in registered.items() if m.connected)
        requested = unverified(workers, known, self._described, now, JOIN_GRACE)
        if refresh or booting(instances.values()):
            connected = Connected(arns, {arn: m.id for arn, m in registered.items()})
            instances = join_instances(present, connected, before, now)
        if refresh:
            self._refreshed = now
            requested |= differing(known, (p.arn for p in aws.running()))
        answered = {arn: _task(aws.processes[arn]) for arn in requested if arn in aws.processes}
        placed = {w.task: w.accepted or w.since for w in workers if w.task}
        tasks = join_tasks(before.tasks, requested, answered, placed, now)
        described = self._described | dict.fromkeys(requested, now)
        self._described = {arn: at for arn, at in described.items() if arn in tasks}
        self._launched = {i.id: i.launched for i in instances.values()}
        seen = Observed(groups=self._groups(), instances=instances, tasks=tasks, members=members)
        refusals = remember(before.refusals, aws.refusals, dict(seen.youngest), now)
        aws.refusals.clear()
        return replace(seen, in_flight=unconfirmed(before.in_flight, seen), refusals=refusals)

    def _groups(self) -> dict[Placement, ScalingGroup]:
        aws = self.aws
        return {
            place: ScalingGroup(place, desired, aws.types.get(place, aws.allowed), aws.allowed)
            for place, desired in aws.desired.items()
        }

    async def prepare(self, observed: Observed) -> None:
        """Do nothing: the scheduler's address is known."""

    def ready(self, action: Action) -> bool:
        """Return True."""
        return True

    async def apply(self, actions: Iterable[Action], observed: Observed, report: Report) -> None:
        """Apply the actions one after the other."""
        for action in actions:
            match action:
                case RunTask():
                    self._run(action, report)
                case SetDesired() | SetTypes() | StopTask() | Terminate():
                    self._one(action, report)

    def _one(self, action: SetDesired | SetTypes | StopTask | Terminate, report: Report) -> None:
        if self.aws.down("capacity"):
            report(Failed((action,), AWSUnavailable("the simulated AWS does not answer.")))
        elif self.aws.execute(action):
            report(Accepted(action))
        else:
            report(Failed((action,), AWSError("the simulated AWS refuses.")))

    def _run(self, action: RunTask, report: Report) -> None:
        down = self.aws.down("run")
        process = None if down else self.aws.run_task(action)
        lost = self.aws.down("lost") or (self.aws.noisy and self.aws.random.random() < LOSS)
        if down or (process is not None and lost):
            self._refreshed = -NEVER
            report(Failed((action,), AWSUnavailable("the simulated AWS does not answer.")))
        elif process is None:
            report(Ran((action,), (), (Refused(action, "RESOURCE:CPU", passing=True),)))
        else:
            report(Ran((action,), (_task(process),), ()))

    async def billable(self, instances: Iterable[str]) -> list[InstanceTimestamps]:
        """Return when the instances that exist were launched."""
        known = {name: self._launched[name] for name in instances if name in self._launched}
        return [
            InstanceTimestamps(instance=name, launched=at, ended=None, zone="us-east-1a", taken=False)
            for name, at in known.items()
        ]

    async def explain(self, worker: Worker, lines: int, patience: float = 0.0) -> list[str]:
        """Return no lines: simulated processes write none."""
        return []

    async def renew(self, until: float) -> None:
        """Do nothing: there is no lease."""

    async def is_claimed_and_open(self) -> bool:
        """Return True."""
        return True


class SimulatedScheduler:
    """The scheduler of `SimulatedAWS`, and SpecCluster as far as it requests replacements.

    Parameters
    ----------
    aws : SimulatedAWS
        Knows which workers have joined.
    roster : Roster, optional
        Where replacements are requested; may be set later.
    numbers : iterator of int
        The names of replacements.
    """

    def __init__(self, aws: SimulatedAWS, roster: Roster | None = None, numbers: Iterator[int] | None = None) -> None:
        self.aws = aws
        self._roster = roster
        self.numbers = count(1_000_000) if numbers is None else numbers

    @property
    def roster(self) -> Roster:
        """Where replacements are requested."""
        assert self._roster is not None, "the controller has made no roster yet"
        return self._roster

    @roster.setter
    def roster(self, roster: Roster) -> None:
        self._roster = roster

    def members(self) -> frozenset[Name]:
        """Return the names of the workers that have joined."""
        return frozenset(self.aws.members)

    async def retire(self, name: Name) -> None:
        """Close a worker."""
        self.aws.execute(Retire(name))

    async def forget(self, name: Name) -> None:
        """Forget a dead worker."""
        self.aws.execute(Forget(name))

    async def lease(self) -> float:
        """Renew nothing."""
        return 0.0

    async def notices(self, after: int) -> list[Notice]:
        """Wait for ever: simulated notices are handed over directly."""
        await asyncio.Event().wait()
        return []

    async def counts(self) -> dict[str, float]:
        """Return no counts."""
        return {}

    async def unrunnable(self) -> dict[str, str]:
        """Return no tasks."""
        return {}

    async def report_spending(self, spent: float, rate: float) -> dict[Name, float]:
        """Return no busy workers."""
        return {}

    async def announce_drain(self, name: Name) -> None:
        """Do nothing: no instance is drained."""

    async def replace(self, name: Name) -> Name:
        """Request another worker of the same group, in place of this one."""
        new = next(self.numbers)
        self.roster.request(new, self.roster.workers[name].placement.group)
        self.roster.cancel(name)
        return new

    async def withdraw(self, name: Name) -> None:
        """Cancel the request for a worker."""
        self.roster.cancel(name)

    async def restore(self, new: Name, old: Name) -> None:
        """Cancel the request for the new worker; the old one is still up."""
        self.roster.cancel(new)

    async def exempt(self, names: Collection[Name]) -> None:
        """Do nothing: no task is suspicious."""


def _task(process: Process) -> Task:
    return Task(
        process.arn,
        process.worker,
        process.launch,
        process.status,
        process.instance,
        process.reason,
        process.exit_code,
        passing=not process.placed,
        aws_failed=not process.placed,
        placed=process.placed,
    )
