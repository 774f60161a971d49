"""Instance-seconds and launches of adaptive scaling, Dask's and ours, in virtual time: all simulated.

Demand is given as threads wanted at each second and is not carried over when nobody serves it. The least
possible is that demand in whole workers, plus one boot of each worker of every episode's peak; a pause
shorter than a boot does not end an episode. The least is what it takes to serve everything: a ratio below
one means that demand went unserved, as the last column says. Times are seconds of virtual time; nothing here
ran on AWS.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from distributed.deploy.adaptive_core import AdaptiveCore

from dask_starburst.plan.adaptive import Limits, Look, State, recommend, workers_for

BOOT = 90.0
NTHREADS = 4
MAXIMUM = 50
DURATION = 1800
Demand = Callable[[float], int]


@dataclass
class Cloud:
    """Instances by the time their worker is ready; all are paid for from their order on."""

    now: float = 0.0
    boot: float = BOOT
    launches: int = 0
    seconds: float = 0.0
    served: float = 0.0
    ready: dict[str, float] | None = None

    def __post_init__(self) -> None:
        self.ready = {}

    @property
    def all(self) -> dict[str, float]:
        """Each worker with the time at which it is ready."""
        assert self.ready is not None
        return self.ready

    def running(self) -> set[str]:
        """The workers that have registered."""
        return {name for name, at in self.all.items() if at <= self.now}

    def scale(self, n: int) -> None:
        """Launch up to `n`."""
        while len(self.all) < n:
            self.all[str(self.launches)] = self.now + self.boot
            self.launches += 1

    def close(self, names: list[str]) -> None:
        """Give these back."""
        for name in names:
            del self.all[name]


class DaskLogic(AdaptiveCore):  # type: ignore[misc]  # a class without types
    """distributed's own core with its defaults: 1 s, three looks."""

    interval = 1.0

    def __init__(self, cloud: Cloud, demand: Demand, maximum: int) -> None:
        super().__init__(minimum=0, maximum=maximum, wait_count=3)
        self.cloud, self.demand = cloud, demand

    @property
    def plan(self) -> set[str]:
        """Workers wished for."""
        return set(self.cloud.all)

    requested = plan

    @property
    def observed(self) -> set[str]:
        """Workers that have registered."""
        return self.cloud.running()

    async def target(self) -> int:
        """Answer as ``Scheduler.adaptive_target``: threads while there is no worker."""
        return asked(self.demand(self.cloud.now), len(self.observed))

    async def scale_up(self, n: int) -> None:
        """Launch."""
        self.cloud.scale(n)

    async def scale_down(self, workers: list[str]) -> None:
        """Give back."""
        self.cloud.close(workers)

    def look(self) -> None:
        """Look once."""
        asyncio.run(self.adapt())


class OurLogic:
    """`plan.adaptive.recommend` at the pace of an account."""

    interval = 5.0

    def __init__(self, cloud: Cloud, demand: Demand, maximum: int) -> None:
        self.cloud, self.demand = cloud, demand
        self.limits = Limits(0, maximum, 60.0)
        self.looks: tuple[Look, ...] = ()

    def look(self) -> None:
        """Look once."""
        running = sorted(self.cloud.running())
        booting = tuple(name for name in self.cloud.all if name not in running)
        state = State(booting=booting, running=len(running), looks=self.looks)
        target = workers_for(asked(self.demand(self.cloud.now), len(running)), NTHREADS, len(running))
        decision = recommend(state, target, self.cloud.now, self.limits)
        self.looks = decision.looks
        self.cloud.scale(decision.wish)
        self.cloud.close([*decision.cancel, *running[: decision.retire]])


def asked(threads: int, workers: int) -> int:
    """What the scheduler would answer to that demand."""
    return math.ceil(threads / NTHREADS) if workers else threads


@dataclass(frozen=True)
class Result:
    """What one logic did with one load; `seconds` are instance-seconds, `served` a share."""

    launches: int
    ideal_launches: int
    seconds: float
    least_seconds: float
    served: float


def simulate(logic: Any, demand: Demand, duration: int = DURATION, boot: float = BOOT) -> Result:
    """Run `duration` seconds of `demand` (threads) through a logic."""
    cloud = Cloud(boot=boot)
    controller = logic(cloud, demand, MAXIMUM)
    wanted = [min(MAXIMUM, math.ceil(demand(float(t)) / NTHREADS)) for t in range(duration)]
    for t, n in enumerate(wanted):
        cloud.now = float(t)
        if t % controller.interval == 0:
            controller.look()
        cloud.seconds += len(cloud.all)
        cloud.served += min(n, len(cloud.running()))
    ideal = sum(peaks(wanted, boot))
    served = cloud.served / max(1, sum(wanted))
    return Result(cloud.launches, ideal, cloud.seconds, sum(wanted) + boot * ideal, round(served, 3))


def peaks(wanted: list[int], boot: float) -> list[int]:
    """Return the most workers wanted in each episode: pauses shorter than a boot do not end one."""
    found: list[int] = []
    pause = math.inf
    for n in wanted:
        if n and pause >= boot:
            found.append(0)
        if n:
            found[-1] = max(found[-1], n)
        pause = 0 if n else pause + 1
    return found


def saw_tooth(period: float, peak: int) -> Demand:
    """Rise to `peak` threads and fall to zero, again and again."""
    return lambda t: round(peak * (t % period) / period)


def square(on: float, off: float, peak: int) -> Demand:
    """Want `peak` threads for `on` seconds, nothing for `off`."""
    return lambda t: peak if t % (on + off) < on else 0


LOADS = {
    "saw-tooth 60 s": saw_tooth(60, 80),
    "waves 20 s on 40 s off": square(20, 40, 80),
    "burst 200 s every 900 s": square(200, 700, 80),
    "blip 4 s every 300 s": square(4, 296, 160),
    "steady": lambda t: 80,
}


def main() -> None:
    """Print the table, then the JSON line."""
    print(f"SIMULATED, virtual time: boot {BOOT:g} s, {NTHREADS} threads a worker, {DURATION} s each")
    print(f"{'load':26}{'logic':6}{'launches':>9}{'ideal':>7}{'inst-s':>9}{'least':>8}{'ratio':>7}{'served':>8}")
    rows = []
    for load, demand in LOADS.items():
        for who, logic in (("dask", DaskLogic), ("ours", OurLogic)):
            r = simulate(logic, demand)
            ratio = r.seconds / r.least_seconds
            print(
                f"{load:26}{who:6}{r.launches:9}{r.ideal_launches:7}{r.seconds:9.0f}{r.least_seconds:8.0f}"
                f"{ratio:7.2f}{r.served:8.1%}"
            )
            rows.append({"load": load, "logic": who, **asdict(r)})
    print(json.dumps({"benchmark": "adaptive", "simulated": True, "boot_seconds": BOOT, "rows": rows}))


if __name__ == "__main__":
    main()
