"""The time that our code adds to AWS's latencies, and its calls, for 1 to 1,000 workers.

    python benchmarks/scale.py --workers 1000

The embedded AWS runs in the latency profile ``realistic``, at time scale 1, with the documented token
buckets of ECS on; boto3 and HTTP are real. Up to 20 workers a `StarburstCluster` and a `Client` run, whose scheduler
and workers are processes. With more workers the real fleet loop runs with containers without processes, and a stand-in
for the Dask scheduler lists every worker as a member as soon as its container runs. All of AWS's latencies are
*simulated*.

``overhead_ratio`` is the time from the request for N workers until all are up, divided by the ideal: the same latencies
of the same run, if each worker's capacity was requested at once, and each task placed at the moment at which its
instance connected. For worker k on instance i::

    ideal_k = started_k - (created_k - connected_i) - (capacity_requested - requested) - requested

and the ideal is the largest of them. The container's own start, which is Python's start and the handshake with the
scheduler, is not part of AWS's latencies: with processes it counts as overhead, and depends on the load of this
computer. ``joining`` is its time, in seconds from a container's start until the fleet knows its worker. Three effects
would make the ideal too long, and the ratio too good: ``late``, the most seconds by which the embedded AWS was late
because the computer was busy; ``launching``, the time in which all instances were created, which is processor time of
this computer too (``overhead_ratio_at_worst`` is our time over an ideal without either); and ``again``, the tasks that
were run a second time.

``calls_per_worker`` counts every call that reached AWS, retries included, from the request until all workers are up;
the calls of the start before it (account, pool, scheduler), of scaling down to zero, and of closing are printed too.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from benchmarks.stand_in import StandIn
from dask_starburst import StarburstCluster
from dask_starburst.aws.session import AWS
from dask_starburst.events import CapacityRequested, EventLog, InstanceLaunched, WorkerReady
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.controller.loop import Fleet
from dask_starburst.fleet.session import Session
from dask_starburst.local import LocalAWS
from dask_starburst.plan.loop.state import SCHEDULER, Name, WorkerState
from dask_starburst.plan.requests.tasks import place_of
from dask_starburst.settings import Settings

#: The most workers that run as processes.
REAL = 20
_PATIENCE = 1200.0


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
        before, busy, start = Counter(self.local.status().calls), self._processor(), time.time()
        yield
        self.seconds[name] = time.time() - start
        self.calls[name] = Counter(self.local.status().calls) - before
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
        orders = [e.time for e in self.events if isinstance(e, CapacityRequested) and e.placement == self.group]
        last, launches = self._launched()
        late = orders[0] - self.requested
        ends = [t["started_at"] - (t["created_at"] - t["connected_at"]) - late for t in last.values()]
        ideal = max(ends) - self.requested
        launched = [e.time for e in self.events if isinstance(e, InstanceLaunched) and e.placement == self.group]
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

    os.environ.update(run.local.environment)  # as an account, with its poll interval and timeouts
    with run.phase("start"):
        cluster = StarburstCluster(
            n_workers=0,
            image="benchmark",
            endpoint_url=run.local.endpoint_url,
            network={"caller": "127.0.0.1/32"},
            max_workers=REAL,
            quiet=True,
        )
        client = Client(cluster)
    run.events, run.group = cluster.events, cluster.settings.spot_policy
    with run.going_up():
        cluster.scale(run.workers)
        client.wait_for_workers(run.workers, timeout=_PATIENCE)
    with run.phase("down"):
        cluster.scale(0)
        while run.local.status().instances_running > 1:
            time.sleep(0.5)
    with run.phase("close"):
        client.close()
        cluster.close()
    return run.local.status().instances_running


async def run_played(run: Run) -> int:
    """Run the fleet alone; return the instances that were still billed at the end."""
    local, workers = run.local, run.workers
    settings = Settings.load(
        arch="arm64",
        endpoint_url=local.endpoint_url,
        image="benchmark",
        max_workers=max(500, workers),
        network={"caller": "127.0.0.1/32"},
    )
    aws = AWS(endpoint_url=local.endpoint_url, session=local.session())
    run.events.now = aws.now
    session, dask = Session(aws, blueprint(settings, "{}"), run.events.emit), StandIn(local)
    watch = asyncio.ensure_future(dask.watch())
    names, run.group = list(range(workers)), session.worker_group
    try:
        with run.phase("start"):
            fleet = await session.start(dask, [])
            await fleet.until(lambda: fleet.workers[SCHEDULER].state is WorkerState.READY)
        with run.going_up():
            for name in names:
                fleet.request(name, run.group)
            await fleet.until(lambda: all(w.state is WorkerState.READY for w in fleet.workers.values()))
        with run.phase("down"):
            for name in names:
                fleet.cancel(name)
            await fleet.until(lambda: len(fleet.workers) == 1 and not _instances(fleet, run.group))
        with run.phase("close"):
            await fleet.stop()
            left = await session.end(ended=lambda: True)  # the stand-in does not change the pool
    finally:
        watch.cancel()
        aws.close()
    return len(left)


def _instances(fleet: Fleet, group: str) -> bool:
    return any(i.group == group for i in fleet.observed.instances.values())


def measure(workers: int, seed: int, timing: str, processes: bool) -> dict[str, Any]:
    """Run once, with or without processes, and return all figures."""
    with LocalAWS(timing=timing, seed=seed, processes=processes) as local:
        local.throttle(True)
        run = Run(local, workers, processes)
        return run.result(run_processes(run) if processes else asyncio.run(run_played(run)))


def main() -> None:
    """Run once and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print the fleet's events")
    parser.add_argument("--smallest", action="store_true", help="run the smallest size, as a test")
    arguments = parser.parse_args()
    if arguments.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.smallest:
        result = measure(2, arguments.seed, "fast", processes=False)
    else:
        result = measure(arguments.workers, arguments.seed, "realistic", processes=arguments.workers <= REAL)
    phases = list(result["calls"])
    print(f"{'calls':40}" + "".join(f"{phase:>8}" for phase in phases))
    for action in sorted({a for calls in result["calls"].values() for a in calls}):
        print(f"{action:40}" + "".join(f"{result['calls'][phase].get(action, 0):8}" for phase in phases))
    print(f"{'all':40}" + "".join(f"{sum(result['calls'][phase].values()):8}" for phase in phases))
    print(f"seconds, simulated: {result['simulated_seconds']}")
    print(json.dumps({"benchmark": "scale", "simulated": True, **result}))


if __name__ == "__main__":
    main()
