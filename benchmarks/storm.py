"""A job on Spot instances with frequent interruptions: time and cost, compared with the same job on demand.

Ten workers run tasks of half a minute each, ten hours of work without interruptions. Every Spot instance is interrupted
at random, independently of the others (a Poisson process), at rates from AWS's published band for c7g (less than 5 % of
the instances a month: 7e-5 an hour) to 30 an hour, which no real market reaches. There are two kinds of jobs: one whose
results are ``gathered`` as they come, and one whose results are ``held`` by the workers to the end, each once, as those
of a persisted dataframe are.

All of it is *simulated*, in virtual time. The decisions are made by the product's code: `plan.loop.reconcile.step`,
`plan.loop.worker`, `plan.loop.interruptions` and `fleet.controller.interruptions.Interruptions`. AWS and Dask are
simulated as in the property tests of `step`, with the latencies of the profile ``realistic``. An interrupted worker
finishes its task and meanwhile transfers its data, at the bandwidth that the product assumes. With ``watch`` off,
notices are ignored: an instance works until it is terminated, and its worker's data is lost. Prices are those of the
bundled list, Spot by its published savings; the scheduler's instance, volumes and public addresses are included.
Interruptions of different capacity pools are independent here; real ones are correlated.

The last line is one JSON object.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count, product
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from benchmarks.harness import plot
from benchmarks.harness.arguments import parser
from benchmarks.harness.compare import median_ratio
from benchmarks.harness.report import Table, finish
from benchmarks.harness.simulator.aws import TICK, Process, SimulatedAWS
from benchmarks.harness.simulator.loop import SimulatedController
from benchmarks.workloads.simulated_job import Job
from dask_starburst.catalog.instance_types import catalogue
from dask_starburst.cost import Ledger, Market
from dask_starburst.fleet.controller.interruptions import Interruptions
from dask_starburst.local.backend.timing import Timing
from dask_starburst.plan.groups import DEFAULT, MARKETS, Placement
from dask_starburst.plan.loop.interruptions import Notice
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Name
from dask_starburst.plan.requests.sizing import worker_types
from dask_starburst.plan.scheduler.moving import bandwidth
from dask_starburst.plan.scheduler.notices import MARGIN, NOTICE_SECONDS

#: Interruptions of one instance in an hour: the band of c7g (aws-facts §4.3), and far beyond it.
C7G, STORM = 7e-5, 30.0
RATES = (C7G, 0.03, 0.3, 3.0, 10.0, STORM)
WORKERS, HOURS, TASK = 10, 10.0, 30.0
#: Bytes of one result that is held, and vCPUs of a worker.
RESULT, VCPUS = 2e6, 4
#: Seconds from a running container to a worker that the scheduler knows, and until Dask knows of a death
#: (``distributed.comm.timeouts.tcp``): Python's start as measured, Dask's default.
JOIN, DEAF = 3.0, 30.0
#: A job that takes this many times as long is given up.
HOPELESS = 4.0
HEAD_TYPE = "m7g.medium"
#: The most types of a group.
MOST = 10
#: The number of stopped tasks that can be described.
REMEMBERED = 200


@dataclass
class StormyAWS(SimulatedAWS):
    """A simulated AWS that interrupts Spot instances, with the latencies of the embedded AWS.

    Parameters
    ----------
    rate : float
        Interruptions of one instance on Spot in an hour.
    """

    rate: float = 0.0
    timing: Timing = field(default_factory=Timing)
    taken: dict[str, float] = field(default_factory=dict)
    leaving: dict[Name, float] = field(default_factory=dict)
    billed: set[str] = field(default_factory=set)
    ledger: Ledger = field(default_factory=lambda: Ledger(simulated=True))

    def boot_time(self) -> float:
        """Draw as the embedded AWS does."""
        return sum(self.timing.seconds(step) for step in ("reconcile", "pending", "boot", "agent"))

    def pull_time(self) -> float:
        """Draw as the embedded AWS does."""
        return self.timing.seconds("placement") + self.timing.seconds("pull")

    def join_time(self) -> float:
        """Return the measured time."""
        return JOIN

    def detection_time(self) -> float:
        """Return the timeout of a dead connection."""
        return DEAF

    def pass_time(self, seconds: float) -> None:
        """Announce interruptions, execute those that are due, and record billed instances."""
        super().pass_time(seconds)
        chance = 1 - math.exp(-self.rate / 3600 * seconds)
        self._forget_the_past()
        for machine in self.instances.values():
            market = machine.placement.market
            if machine.id not in self.billed:
                self.billed.add(machine.id)
                self.ledger.instance_started(machine.id, machine.type, market, self.now)
            if machine.terminating:
                self.ledger.instance_ended(machine.id, self.now)
            elif market is Market.SPOT and machine.id not in self.taken and self.random.random() < chance:
                self.taken[machine.id] = self.now + NOTICE_SECONDS
            elif self.now >= self.taken.get(machine.id, math.inf):
                machine.terminating, machine.gone = True, self.now

    def _forget_the_past(self) -> None:
        """End the billing of terminated instances, and forget stopped tasks as ECS does."""
        for gone in self.billed - self.instances.keys():
            self.ledger.instance_ended(gone, self.now)
        self.billed &= self.instances.keys()
        over = [arn for arn, process in self.processes.items() if process.status == "STOPPED"]
        for arn in over[:-REMEMBERED]:
            del self.processes[arn]

    def _retire(self, worker: Name) -> None:
        """Mark a worker as leaving, so that it transfers its data first."""
        if worker in self.members:
            self.leaving.setdefault(worker, math.inf)

    def close(self, worker: Name) -> None:
        """Close a worker after its data transfer."""
        self.leaving.pop(worker, None)
        super()._retire(worker)

    def under_notice(self) -> Iterator[tuple[Process, float]]:
        """Yield the processes on instances with a notice, and the time of the interruption."""
        until = {m.arn: self.taken[m.id] for m in self.instances.values() if m.id in self.taken and m.arn}
        for process in self.running():
            if process.instance in until:
                yield process, until[process.instance]


class Pending:
    """Coroutines that are to run before the next tick."""

    def __init__(self) -> None:
        self._waiting: list[Coroutine[Any, Any, None]] = []

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine before the next tick."""
        self._waiting.append(work)

    async def run(self) -> None:
        """Run them."""
        waiting, self._waiting = self._waiting, []
        await asyncio.gather(*waiting)


@dataclass(frozen=True)
class Result:
    """The outcome of one job. Hours and dollars are infinite if it was given up."""

    hours: float
    usd: float
    interruptions: int
    lost: int
    cut_short: int


async def run(rate: float, policy: str, held: bool, watch: bool, seed: int, hours_of_work: float) -> Result:
    """Run one job from the first request to the last result."""
    types = tuple(kind.name for kind in worker_types(catalogue(), "arm64", None, None, None))[:MOST]
    placements = tuple(Placement(DEFAULT, market) for market in MARKETS[policy])
    aws = StormyAWS(Random(seed), rate=rate, timing=Timing("realistic", seed), allowed=types)
    aws.desired, aws.types = dict.fromkeys(placements, 0), dict.fromkeys(placements, types)
    controller, pending = SimulatedController(aws, Limits(placements={DEFAULT: placements})), Pending()
    roster = controller.roster
    spot = Interruptions(roster, controller.scheduler, lambda event: None, pending.spawn)
    job, numbers = Job(round(WORKERS * hours_of_work * 3600 / TASK), held, TASK), count(1)
    aws.ledger.instance_started(SCHEDULER, HEAD_TYPE, Market.ON_DEMAND, 0.0)
    for number in range(WORKERS):
        roster.request(number, DEFAULT)
    while not job.over and aws.now < HOPELESS * hours_of_work * 3600:
        controller.tick()
        if watch:
            for process, until in list(aws.under_notice()):
                if process.worker in aws.members and aws.leaving.get(process.worker, math.inf) > until:
                    aws.leaving[process.worker] = until
                    await spot.handle(Notice(next(numbers), process.worker, "interruption", until - aws.now))
        spot.update(())
        await pending.run()
        leave(aws, job)
    hours, usd = aws.now / 3600, aws.ledger.total(aws.now).usd
    if not job.over:
        hours = usd = math.inf
    return Result(hours, usd, len(aws.taken), job.lost, job.cut_short)


@cache
def undisturbed(seed: int, hours: float) -> Result:
    """Run the job on demand."""
    return asyncio.run(run(0.0, "on-demand", False, True, seed, hours))


def leave(aws: StormyAWS, job: Job) -> None:
    """Advance the job by one tick; leaving workers transfer their data."""
    workers = set(aws.members)
    job.work(workers, set(aws.leaving), TICK)
    stay = sorted(workers - aws.leaving.keys())
    for name, until in list(aws.leaving.items()):
        if name in workers and until - aws.now > MARGIN:
            job.move(name, stay, int(bandwidth(VCPUS) * TICK / RESULT))
            if name in job.running or job.results[name]:
                continue
        job.lose(name)
        aws.close(name)


def measure(held: bool, watch: bool, rate: float, seeds: Sequence[int], hours: float) -> dict[str, Any]:
    """Run a job; medians over the seeds, relative to the same job on demand."""
    calm = [undisturbed(seed, hours) for seed in seeds]
    stormy = [asyncio.run(run(rate, "spot", held, watch, seed, hours)) for seed in seeds]
    row: dict[str, Any] = {"results": "held" if held else "gathered", "watch": watch, "rate": rate}
    for key in ("interruptions", "lost", "cut_short"):
        row[key] = median(getattr(one, key) for one in stormy)
    for key, what in (("time_ratio", "hours"), ("money_ratio", "usd")):
        value = median_ratio([getattr(one, what) for one in stormy], [getattr(one, what) for one in calm])
        row[key] = round(value, 3) if math.isfinite(value) else None
    return row


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw time and money over the rate."""
    figure = plot.figure(10, 4.6, f"{WORKERS} workers, {HOURS:g} hours: simulated, virtual time")
    styles = {
        ("gathered", True): ("#1f5fa8", "-", "with the watch, results gathered"),
        ("held", True): ("#1f5fa8", "--", "with the watch, results held"),
        ("gathered", False): ("#d95f02", "-", "without, results gathered"),
        ("held", False): ("#d95f02", "--", "without, results held"),
    }
    for axes, key, title in zip(figure.subplots(1, 2), ("time_ratio", "money_ratio"), ("time", "money"), strict=True):
        for (results, watch), (colour, style, label) in styles.items():
            mine = [r for r in rows if (r["results"], r["watch"]) == (results, watch)]
            ended = [r for r in mine if r[key]]
            rates, ratios = [r["rate"] for r in ended], [r[key] for r in ended]
            axes.plot(rates, ratios, style, color=colour, label=label, marker="o", ms=4)
            if key == "time_ratio" and 0 < len(ended) < len(mine):
                place = {"xytext": (6, 3), "textcoords": "offset points", "fontsize": 8, "color": colour}
                axes.annotate("more: never ends", (rates[-1], ratios[-1]), **place)
        axes.axhline(1, color="#8a8a8a", lw=1)
        axes.axvline(C7G, color="#c4c4c4", lw=1, ls=":")
        axes.annotate(
            "c7g, as published", (C7G, 0.98), xycoords=("data", "axes fraction"), fontsize=8, rotation=90, va="top"
        )
        axes.set_xscale("log")
        axes.set_yscale("log")
        ticks = (0.7, 1, 1.5, 2, 3) if key == "time_ratio" else (0.3, 0.4, 0.6, 1, 1.5)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("interruptions of an instance in an hour")
        axes.set_title(f"{title}, relative to the same job on demand", fontsize=10)
    plot.legend(figure.axes[0], loc="upper left", bbox_to_anchor=(0.08, 1))
    plot.save(figure, path)


def main() -> None:
    """Print the table, draw it if asked, and print the JSON line."""
    options = parser(__doc__, seeds=(0,), plot=True)
    options.add_argument("--rate", type=float, action="append", help="interruptions of one instance in an hour")
    chosen = options.parse_args()
    hours, rates = (0.25, (STORM,)) if chosen.smallest else (HOURS, chosen.rate or RATES)
    print(f"SIMULATED, virtual time: {WORKERS} workers, {hours:g} hours of work, tasks of {TASK:g} s")
    counts = {"taken": ">9,.0f", "lost": ">9,.0f", "cut": ">9,.0f"}
    table = Table({"results": "<10", "watch": "<6", "rate/h": ">9g", **counts, "time": ">8.2f", "money": ">8.2f"})
    rows = []
    for held, watch, rate in product((False, True), (True, False), rates):
        row = measure(held, watch, rate, chosen.seeds, hours)
        counted = (row[key] for key in ("interruptions", "lost", "cut_short"))
        ratios = (row[key] or "never" for key in ("time_ratio", "money_ratio"))
        table.row(row["results"], "on" if watch else "off", rate, *counted, *ratios)
        rows.append(row)
    if chosen.plot:
        draw(rows, chosen.plot)
    finish("storm", simulated=True, workers=WORKERS, hours=hours, rows=rows)


if __name__ == "__main__":
    main()
