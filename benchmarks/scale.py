"""The time that our code adds to AWS's latencies, and its calls, for 1 to 1,000 workers.

    python benchmarks/scale.py --workers 1000

The embedded AWS runs in the latency profile ``realistic``, at time scale 1, with the documented token
buckets of ECS on; boto3 and HTTP are real. Up to 20 workers a `StarburstCluster` and a `Client` run, whose scheduler
and workers are processes. With more workers the real control loop runs with containers without processes, and a
stand-in for the Dask scheduler lists every worker as a member as soon as its container runs. All of AWS's latencies are
*simulated*.

``overhead_ratio`` is the time from the request for N workers until all are up, divided by the ideal: the same latencies
of the same run, if each worker's capacity was requested at once, and each task placed at the moment at which its
instance connected. For worker k on instance i::

    ideal_k = started_k - (created_k - connected_i) - (capacity_requested - requested) - requested

and the ideal is the largest of them. The container's own start, which is Python's start and the handshake with the
scheduler, is not part of AWS's latencies: with processes it counts as overhead, and depends on the load of this
computer. ``joining`` is its time, in seconds from a container's start until its worker is known. Three effects
would make the ideal too long, and the ratio too good: ``late``, the most seconds by which the embedded AWS was late
because the computer was busy; ``launching``, the time in which all instances were created, which is processor time of
this computer too (``overhead_ratio_at_worst`` is our time over an ideal without either); and ``again``, the tasks that
were run a second time.

``calls_per_worker`` counts every call that reached AWS, retries included, from the request until all workers are up;
the calls of the start before it (account, pool, scheduler), of scaling down to zero, and of closing are printed too.
The last line is one JSON object: the run with the median ratio, and the ``ratios`` of all seeds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median, median_low
from typing import Any

from benchmarks.harness.arguments import parser
from benchmarks.harness.cloud import (
    MOST_PROCESSES,
    PATIENCE,
    Calls,
    account,
    cluster_as_in_an_account,
    controller_settings,
    limited_aws,
)
from benchmarks.harness.report import Table, finish
from benchmarks.harness.stand_in import StandIn
from dask_starburst.catalog.markets import Market
from dask_starburst.events import CapacityRequested, EventLog, InstanceLaunched, WorkerReady
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.controller.loop import Controller
from dask_starburst.fleet.session import Session
from dask_starburst.local import LocalAWS
from dask_starburst.plan.groups import DEFAULT, Placement
from dask_starburst.plan.loop.state import SCHEDULER, Name, WorkerState
from dask_starburst.plan.requests.tasks import place_of

#: The Auto Scaling groups of workers.
WORKERS = {str(Placement(DEFAULT, market)) for market in Market}


class Run:
    """Measures one run by its phases.

    Parameters
    ----------
    local : LocalAWS
        On which it runs.
    workers : int
        How many.
    processes : bool
        Whether their containers are processes.
    """

    def __init__(self, local: LocalAWS, workers: int, processes: bool) -> None:
        self.local = local
        self.workers = workers
        self.processes = processes
        self.events = EventLog()
        self.group = ""
        self.requested = self.ready = self.late = 0.0
        self.tasks: list[dict[str, Any]] = []
        self.calls: dict[str, Counter[str]] = {}
        self.seconds: dict[str, float] = {}
        self.busy: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count the calls of a phase, and the server's processor time."""
        calls, busy, start = Calls(self.local), self._processor(), time.time()
        yield
        self.seconds[name] = time.time() - start
        self.calls[name] = calls.so_far()
        self.busy[name] = (self._processor() - busy) / self.seconds[name]

    @contextmanager
    def going_up(self) -> Iterator[None]:
        """Measure the phase of scaling up."""
        with self.phase("up"):
            self.requested = time.time()
            yield
            self.ready = time.time()
        self.tasks, self.late = self.local.tasks(), self.local.status().late

    def result(self, left: int) -> dict[str, Any]:
        """Return all figures."""
        orders = [e.time for e in self.events if isinstance(e, CapacityRequested) and e.placement in WORKERS]
        last, launches = self._launched()
        late = orders[0] - self.requested
        ends = [t["started_at"] - (t["created_at"] - t["connected_at"]) - late for t in last.values()]
        ideal = max(ends) - self.requested
        launched = [e.time for e in self.events if isinstance(e, InstanceLaunched) and e.group == self.group]
        launching = max(launched) - min(launched)
        ours = self.ready - self.requested - ideal
        seconds = {name: round(s, 1) for name, s in self.seconds.items()}
        return {
            "workers": self.workers,
            "overhead_ratio": round((self.ready - self.requested) / ideal, 3),
            "calls_per_worker": round(self.calls["up"].total() / self.workers, 3),
            "throttles": self.local.status().throttled,
            "processes": self.processes,
            "simulated_seconds": seconds | {"up_ideal": round(ideal, 1)},
            "joining": self._joining(last),
            "late": round(self.late, 2),
            "launching": round(launching, 1),
            "overhead_ratio_at_worst": round(1 + ours / (ideal - self.late - launching), 3),
            "again": launches - self.workers,
            "orders": len(orders),
            "server_busy": {name: round(share, 2) for name, share in self.busy.items()},
            "calls": {name: dict(sorted(calls.items())) for name, calls in self.calls.items()},
            "left": left,
        }

    def _joining(self, last: dict[Name, dict[str, Any]]) -> dict[str, float]:
        ready = {e.name: e.time for e in self.events if isinstance(e, WorkerReady)}
        took = [ready[name] - task["started_at"] for name, task in last.items()]
        return {"median": round(median(took), 1), "longest": round(max(took), 1)}

    def _launched(self) -> tuple[dict[Name, dict[str, Any]], int]:
        """Return the last task of each worker, and the number of tasks."""
        last: dict[Name, dict[str, Any]] = {}
        launches = 0
        for task in sorted(self.tasks, key=lambda t: float(t["created_at"])):
            place = place_of(task["overrides"], task["containerInstanceArn"])
            if place is not None and place.worker != SCHEDULER:
                last[place.worker] = task
                launches += 1
        return last, launches

    def _processor(self) -> float:
        """Return the processor seconds that the server has used; 0 without /proc."""
        try:
            with open(f"/proc/{self.local.pid}/stat") as stat:
                fields = stat.read().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_processes(run: Run) -> int:
    """Run a cluster as a user does; return the instances that were still billed at the end."""
    from dask.distributed import Client

    with run.phase("start"):
        cluster = cluster_as_in_an_account(run.local, 0, max_workers=MOST_PROCESSES)
        client = Client(cluster)
    run.events, run.group = cluster.events, DEFAULT
    with run.going_up():
        cluster.scale(run.workers)
        client.wait_for_workers(run.workers, timeout=PATIENCE)
    with run.phase("down"):
        cluster.scale(0)
        while run.local.status().instances_running > 1:
            time.sleep(0.5)
    with run.phase("close"):
        client.close()
        cluster.close()
    return run.local.status().instances_running


async def run_played(run: Run) -> int:
    """Run the controller alone; return the instances that were still billed at the end."""
    names = list(range(run.workers))
    with account(run.local) as aws:
        session = Session(aws, blueprint(controller_settings(run.local, run.workers), "{}"), run.events.emit)
        run.events.now, run.group = aws.now, DEFAULT
        async with StandIn(run.local) as dask:
            with run.phase("start"):
                controller = await session.start(dask, {})
                await controller.until(lambda: controller.roster.workers[SCHEDULER].state is WorkerState.READY)
            with run.going_up():
                for name in names:
                    controller.roster.request(name, run.group)
                await controller.until(
                    lambda: all(w.state is WorkerState.READY for w in controller.roster.workers.values())
                )
            with run.phase("down"):
                for name in names:
                    controller.roster.cancel(name)
                await controller.until(
                    lambda: len(controller.roster.workers) == 1 and not _instances(controller, run.group)
                )
            with run.phase("close"):
                await controller.stop()
                left = await session.end(ended=lambda: True)  # the stand-in does not change the pool
    return len(left)


def _instances(controller: Controller, group: str) -> bool:
    return any(i.placement.group == group for i in controller.roster.observed.instances.values())


def measure(workers: int, seed: int, timing: str, processes: bool) -> dict[str, Any]:
    """Run once, with or without processes, and return all figures."""
    with limited_aws(timing, seed, processes=processes) as local:
        run = Run(local, workers, processes)
        return run.result(run_processes(run) if processes else asyncio.run(run_played(run)))


def middle(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the run with the median ratio."""
    ratio = median_low(run["overhead_ratio"] for run in runs)
    return next(run for run in runs if run["overhead_ratio"] == ratio)


def main() -> None:
    """Run once for each seed and print the figures of the median."""
    options = parser(__doc__, seeds=(0,), verbose=True)
    options.add_argument("--workers", type=int, default=50)
    chosen = options.parse_args()
    workers, timing, processes = chosen.workers, "realistic", chosen.workers <= MOST_PROCESSES
    if chosen.smallest:
        workers, timing, processes, chosen.seeds = 2, "fast", False, [0]
    runs = [measure(workers, seed, timing, processes) for seed in chosen.seeds]
    result = middle(runs)
    calls: dict[str, dict[str, int]] = result["calls"]
    table = Table({"calls": "<40"} | dict.fromkeys(calls, ">8"))
    for action in sorted({a for counted in calls.values() for a in counted}):
        table.row(action, *(counted.get(action, 0) for counted in calls.values()))
    table.row("all", *(sum(counted.values()) for counted in calls.values()))
    print(f"seconds, simulated: {result['simulated_seconds']}")
    finish("scale", simulated=True, **result, ratios=[run["overhead_ratio"] for run in runs])


if __name__ == "__main__":
    main()
