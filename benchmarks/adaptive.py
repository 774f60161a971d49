"""Instance-seconds and launches of adaptive scaling, Dask's and ours, in virtual time: all simulated.

    python benchmarks/adaptive.py

Demand is the number of threads that are needed in each second; unserved demand is not carried over. The minimum is the
cost of serving all of it with foresight: for the first, the second, the n-th concurrent worker, one boot before it is
needed for the first time, the seconds in which it is needed, and for every pause between them the pause or another
boot, whichever is shorter. A ratio below one means that demand was not served, as the last column shows; without
foresight the demand during the first boot cannot be served. ``idle`` are the instance-seconds of workers that were up
and not needed: the cost of patience. There are three policies: Dask's; ours with a patience of 60 s, as at first; ours
with the measured startup time as its patience. Times are seconds of virtual time; nothing here ran on AWS. The last
line is one JSON object.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from distributed.deploy.adaptive_core import AdaptiveCore

from benchmarks.harness.arguments import parser
from benchmarks.harness.report import Table, finish
from benchmarks.workloads.demand import LOADS, Demand
from dask_starburst.plan.loop.adaptive import (
    Limits,
    Patience,
    Sample,
    StartupTimes,
    State,
    recommend,
    remember,
    sample_every,
    workers_for,
)
from dask_starburst.plan.loop.state import Name

BOOT = 90.0
NTHREADS = 4
MAXIMUM = 50
DURATION = 1800


@dataclass
class Cloud:
    """Instances by the time at which their worker is ready; they are billed from their request on."""

    now: float = 0.0
    boot: float = BOOT
    launches: int = 0
    seconds: float = 0.0
    served: float = 0.0
    idle: float = 0.0
    all: dict[Name, float] = field(default_factory=dict)
    booted: bool = False

    def running(self) -> set[Name]:
        """The registered workers."""
        return {name for name, at in self.all.items() if at <= self.now}

    def scale(self, n: int) -> None:
        """Launch up to `n`."""
        while len(self.all) < n:
            self.all[self.launches] = self.now + self.boot
            self.launches += 1

    def close(self, names: list[Name]) -> None:
        """Terminate these."""
        for name in names:
            del self.all[name]

    def startups(self) -> StartupTimes:
        """The startup times that a controller would have measured by now."""
        self.booted = self.booted or bool(self.running())
        oldest = min((at - self.boot for at in self.all.values() if at > self.now), default=self.now)
        return StartupTimes((self.boot,) if self.booted else (), self.now - oldest)

    def pass_second(self, wanted: int) -> None:
        """Count a second in which this number of workers is needed."""
        running = len(self.running())
        self.seconds += len(self.all)
        self.served += min(wanted, running)
        self.idle += max(0, running - wanted)


class DaskLogic(AdaptiveCore):  # type: ignore[misc]  # a class without types
    """distributed's core with its defaults: an interval of 1 s, a wait count of three."""

    interval = 1.0

    def __init__(self, cloud: Cloud, demand: Demand, maximum: int) -> None:
        super().__init__(minimum=0, maximum=maximum, wait_count=3)
        self.cloud, self.demand = cloud, demand

    @property
    def plan(self) -> set[Name]:
        """Requested workers."""
        return set(self.cloud.all)

    requested = plan

    @property
    def observed(self) -> set[Name]:
        """Registered workers."""
        return self.cloud.running()

    async def target(self) -> int:
        """Return the target as ``Scheduler.adaptive_target`` does: threads while there is no worker."""
        return asked(self.demand(self.cloud.now), len(self.observed))

    async def scale_up(self, n: int) -> None:
        """Launch."""
        self.cloud.scale(n)

    async def scale_down(self, workers: list[Name]) -> None:
        """Terminate workers."""
        self.cloud.close(workers)

    def look(self) -> None:
        """Run one step."""
        asyncio.run(self.adapt())


class OurLogic:
    """`plan.loop.adaptive` with the interval of an account."""

    decides_every = 5.0
    interval = sample_every(decides_every)

    def __init__(self, cloud: Cloud, demand: Demand, maximum: int) -> None:
        self.cloud, self.demand, self.maximum = cloud, demand, maximum
        self.samples: tuple[Sample, ...] = ()

    def patience(self) -> float:
        """Return the default patience."""
        return Patience().after(self.cloud.startups())

    def look(self) -> None:
        """Run one step."""
        running = sorted(self.cloud.running())
        booting = tuple(name for name in self.cloud.all if name not in running)
        state = State(booting=booting, running=len(running), samples=self.samples)
        target = workers_for(asked(self.demand(self.cloud.now), len(running)), NTHREADS, len(running))
        limits = Limits(0, self.maximum, self.patience())
        if self.cloud.now % self.decides_every:
            self.samples = remember(self.samples, target, self.cloud.now, limits)
            return
        decision = recommend(state, target, self.cloud.now, limits)
        self.samples = decision.samples
        self.cloud.scale(decision.target_workers)
        self.cloud.close([*decision.cancel, *running[: decision.retire]])


class SixtySeconds(OurLogic):
    """Our policy before it measured startup times."""

    def patience(self) -> float:
        """Return a fixed patience, as a user may set it."""
        return 60.0


def asked(threads: int, workers: int) -> int:
    """The scheduler's target for this demand."""
    return math.ceil(threads / NTHREADS) if workers else threads


@dataclass(frozen=True)
class Result:
    """The result of one policy with one load; `seconds` and `idle` are instance-seconds, `served` is a share."""

    launches: int
    ideal_launches: int
    seconds: float
    least_seconds: float
    idle: float
    served: float


def simulate(logic: Any, demand: Demand, duration: int = DURATION, boot: float = BOOT) -> Result:
    """Run a policy for `duration` seconds of `demand` (threads)."""
    cloud = Cloud(boot=boot)
    controller = logic(cloud, demand, MAXIMUM)
    wanted = [min(MAXIMUM, math.ceil(demand(float(t)) / NTHREADS)) for t in range(duration)]
    for t, n in enumerate(wanted):
        cloud.now = float(t)
        if t % controller.interval == 0:
            controller.look()
        cloud.pass_second(n)
    ideal, least = foresight(wanted, boot)
    served = cloud.served / max(1, sum(wanted))
    return Result(cloud.launches, ideal, cloud.seconds, least, cloud.idle, round(served, 3))


def foresight(wanted: list[int], boot: float) -> tuple[int, float]:
    """Return the launches and the fewest instance-seconds that serve all of the demand."""
    launches, seconds = 0, 0.0
    for level in range(1, max(wanted, default=0) + 1):
        times = [t for t, n in enumerate(wanted) if n >= level]
        pauses = [after - before - 1 for before, after in pairwise(times)]
        launches += 1 + sum(pause > boot for pause in pauses)
        seconds += boot + len(times) + sum(min(pause, boot) for pause in pauses)
    return launches, seconds


LOGICS = {"dask": DaskLogic, "60 s": SixtySeconds, "a boot": OurLogic}


def main() -> None:
    """Print the table, then the JSON line."""
    smallest = parser(__doc__).parse_args().smallest
    loads = {"one burst of 300 s": LOADS["one burst of 300 s"]} if smallest else LOADS
    print(f"SIMULATED, virtual time: boot {BOOT:g} s, {NTHREADS} threads a worker, {DURATION} s each")
    seconds = {"inst-s": ">9.0f", "least": ">9.0f", "ratio": ">9.2f", "idle": ">9.0f", "served": ">9.1%"}
    table = Table({"load": "<26", "logic": "<6", "launches": ">9", "ideal": ">9", **seconds})
    rows = []
    for load, demand in loads.items():
        for who, logic in LOGICS.items():
            r = simulate(logic, demand)
            ratio = r.seconds / r.least_seconds
            table.row(load, who, r.launches, r.ideal_launches, r.seconds, r.least_seconds, ratio, r.idle, r.served)
            rows.append({"load": load, "logic": who, **asdict(r)})
    finish("adaptive", simulated=True, boot_seconds=BOOT, rows=rows)


if __name__ == "__main__":
    main()
