"""How much our own doing adds to the time that AWS takes, and how many calls it costs: 1 to 1,000 workers.

    python benchmarks/scale.py --workers 1000

The real fleet loop, boto3 and HTTP run against the embedded AWS in the latency profile ``realistic``, at
time scale 1, with the documented token buckets of ECS on. What is *simulated*: all of AWS's latencies;
the containers, which are only written down; and the Dask scheduler, for which a stand-in lists every
worker as a member from the moment at which its container runs.

``overhead_ratio`` is the time from the wish for N workers until the fleet knows that all are up, divided
by the ideal: the same draws of the same run, each worker's capacity ordered in the moment of the wish
and each task placed in the moment in which its instance connected. For worker k on instance i::

    ideal_k = started_k - (created_k - connected_i) - (ordered - wished)

``calls_per_worker`` counts every AWS call of the fleet from the wish until all are up; the calls of the
start before it (account, pool, scheduler), of scaling in to none, and of closing are printed beside it.
The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dask_starburst.aws.session import AWS
from dask_starburst.events import EventLog
from dask_starburst.fleet.fleet import Fleet
from dask_starburst.fleet.session import Session, blueprint
from dask_starburst.local import LocalAWS
from dask_starburst.plan.state import HEAD, SCHEDULER, WorkerState
from dask_starburst.plan.tasks import Place, place_of
from dask_starburst.settings import Settings

#: Seconds between two reports of the stand-in for Dask; the real one pushes.
_REPORT = 0.25


class StandIn:
    """A scheduler without Dask: who runs is a member, who is retired leaves and its container ends."""

    def __init__(self, local: LocalAWS) -> None:
        self._local = local
        self._places: dict[str, Place | None] = {}
        self._retired: set[str] = set()
        self.tasks: list[dict[str, Any]] = []
        self.up: dict[str, str] = {}

    def members(self) -> frozenset[str]:
        """Return the names of the processes that are up."""
        return frozenset(self.up)

    async def watch(self) -> None:
        """Follow what runs; none of this is an AWS call."""
        while True:
            self.tasks = await asyncio.to_thread(self._local.tasks)
            running = [t for t in self.tasks if t["status"] == "RUNNING" and t["id"] not in self._retired]
            self.up = {place.worker: t["id"] for t in running if (place := self.place(t))}
            await asyncio.sleep(_REPORT)

    def place(self, task: dict[str, Any]) -> Place | None:
        """Return which worker a task is."""
        if task["id"] not in self._places:
            self._places[task["id"]] = place_of(task["overrides"], task["containerInstanceArn"])
        return self._places[task["id"]]

    async def retire(self, name: str) -> None:
        """Close a worker: it holds nothing, and its process ends."""
        task = self.up.pop(name, None)
        if task is not None:
            self._retired.add(task)
            await asyncio.to_thread(self._local.end_task, task)

    async def forget(self, name: str) -> None:
        """Remove a worker."""
        self.up.pop(name, None)


class Phases:
    """Counts the calls of each phase."""

    def __init__(self, aws: AWS) -> None:
        self._aws = aws
        self.calls: dict[str, Counter[str]] = {}
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is called meanwhile."""
        before, start = Counter(self._aws.calls), time.time()
        yield
        self.calls[name] = self._aws.calls - before
        self.seconds[name] = time.time() - start


def ideal_seconds(dask: StandIn, wished: float, ordered: float, fleet: Fleet) -> float:
    """Return how long it had taken if each step had been performed when it became possible."""
    ours = {w.task.rpartition("/")[2] for w in fleet.workers.values() if w.task and w.group != HEAD}
    tasks = [t for t in dask.tasks if t["id"] in ours]
    late = ordered - wished
    ends = [float(t["started_at"] - (t["created_at"] - t["connected_at"])) for t in tasks]
    return max(ends) - late - wished


async def run(local: LocalAWS, workers: int) -> dict[str, Any]:
    """Start a pool, scale to `workers`, to none, and close."""
    settings = Settings.load(
        arch="arm64",
        endpoint_url=local.endpoint_url,
        image="benchmark",
        max_workers=max(500, workers),
        network={"caller": "127.0.0.1/32"},
        warm_timeout="0 s",
    )
    aws, events = AWS(endpoint_url=local.endpoint_url, session=local.session()), EventLog()
    session, dask, phases = Session(aws, blueprint(settings, "{}"), events), StandIn(local), Phases(aws)
    watch = asyncio.ensure_future(dask.watch())
    names = [str(n) for n in range(workers)]
    try:
        with phases.phase("start"):
            fleet = await session.start(dask, [])
            await fleet.until(lambda: fleet.workers[SCHEDULER].state is WorkerState.READY)
        wished = time.time()
        with phases.phase("up"):
            for name in names:
                fleet.want(name, session.worker_group)
            await fleet.until(lambda: all(w.state is WorkerState.READY for w in fleet.workers.values()))
        ready = time.time()
        orders = [e.time for e in events if e.kind == "capacity-ordered" and e.subject == session.worker_group]
        ideal = ideal_seconds(dask, wished, orders[0], fleet)
        with phases.phase("down"):
            for name in names:
                fleet.unwant(name)
            await fleet.until(lambda: len(fleet.workers) == 1 and not _instances(fleet, session.worker_group))
        with phases.phase("close"):
            await fleet.stop()
            left = await session.end()
    finally:
        watch.cancel()
        aws.close()
    seconds = {name: round(s, 1) for name, s in phases.seconds.items()}
    return {
        "workers": workers,
        "overhead_ratio": round((ready - wished) / ideal, 3),
        "calls_per_worker": round(phases.calls["up"].total() / workers, 3),
        "throttles": local.status().throttled,
        "simulated_seconds": seconds | {"up_ideal": round(ideal, 1)},
        "orders": len(orders),
        "calls": {name: dict(sorted(calls.items())) for name, calls in phases.calls.items()},
        "left": len(left),
    }


def _instances(fleet: Fleet, group: str) -> bool:
    return any(i.group == group for i in fleet.observed.instances.values())


def main() -> None:
    """Run once and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print the fleet's events")
    arguments = parser.parse_args()
    if arguments.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    with LocalAWS(timing="realistic", seed=arguments.seed, processes=False) as local:
        local.throttle(True)
        result = asyncio.run(run(local, arguments.workers))
    phases = list(result["calls"])
    print(f"{'calls':40}" + "".join(f"{phase:>8}" for phase in phases))
    for action in sorted({a for calls in result["calls"].values() for a in calls}):
        print(f"{action:40}" + "".join(f"{result['calls'][phase].get(action, 0):8}" for phase in phases))
    print(f"{'all':40}" + "".join(f"{sum(result['calls'][phase].values()):8}" for phase in phases))
    print(f"seconds, simulated: {result['simulated_seconds']}")
    print(json.dumps({"benchmark": "scale", "simulated": True, **result}))


if __name__ == "__main__":
    main()
