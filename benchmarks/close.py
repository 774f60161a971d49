"""The time that ``close()`` takes beyond the last billed moment, and its calls, for 2, 50 and 300 workers.

    python benchmarks/close.py

The embedded AWS runs in the latency profile ``realistic``, at time scale 1, with the documented token buckets of ECS
on; boto3 and HTTP are real. Up to 20 workers a `StarburstCluster` runs, whose scheduler and workers are processes. With
more workers the real fleet loop runs with a stand-in for the Dask scheduler, and containers without processes. All of
AWS's latencies are *simulated*.

``seconds_over_billed`` is the time from the last billed moment until ``close()`` has returned: EC2 bills an
instance until it is ``shutting-down`` (EC2 User Guide, "Amazon EC2 instance state changes"). ``calls_per_worker``
counts every call of ``close()`` that reached AWS, retries included. The last line is one JSON object, with the worst
``seconds_over_billed`` of all sizes and the ``calls_per_worker`` of the largest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import time
from collections import Counter
from typing import Any

from benchmarks.stand_in import StandIn
from dask_starburst import StarburstCluster
from dask_starburst.aws.session import AWS
from dask_starburst.cost.ledger import Ledger
from dask_starburst.cost.price_book import PriceBook
from dask_starburst.cost.updater import LedgerUpdater
from dask_starburst.events import EventLog
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.session import Session
from dask_starburst.local import LocalAWS
from dask_starburst.plan.loop.state import WorkerState
from dask_starburst.settings import Settings

#: The most workers that run as processes.
REAL = 20
SIZES = (2, 50, 300)
_PATIENCE = 1200.0
_BILLED = ("pending", "running", "stopping", "stopped")


class Closing:
    """Measures one close, from before its first call until it has returned.

    Parameters
    ----------
    local : LocalAWS
        On which it happens.
    workers : int
        How many there are.
    """

    def __init__(self, local: LocalAWS, workers: int) -> None:
        self._local = local
        self._workers = workers
        self._before: Counter[str] = Counter()
        self._began = self._returned = 0.0

    def __enter__(self) -> Closing:
        status = self._local.status()
        self._before, self._began = Counter(status.calls), status.now
        return self

    def __exit__(self, *error: object) -> None:
        self._returned = self._local.now()

    def result(self) -> dict[str, Any]:
        """Return all figures."""
        calls = Counter(self._local.status().calls) - self._before
        instances = self._local.instances()
        ends = [instance["ended_at"] or self._returned for instance in instances]
        return {
            "workers": self._workers,
            "seconds": round(self._returned - self._began, 2),
            "billed_seconds": round(max(ends) - self._began, 2),
            "seconds_over_billed": round(self._returned - max(ends), 2),
            "calls_per_worker": round(calls.total() / self._workers, 3),
            "still_billed": sum(instance["state"] in _BILLED for instance in instances),
            "processes": self._workers <= REAL,
            "calls": dict(sorted(calls.items())),
        }


def close_processes(local: LocalAWS, workers: int) -> dict[str, Any]:
    """Close a cluster as a user does."""
    os.environ.update(local.environment)  # as an account, with its poll interval and timeouts
    cluster = StarburstCluster(
        n_workers=workers,
        image="benchmark",
        endpoint_url=local.endpoint_url,
        network={"caller": "127.0.0.1/32"},
        scheduler={"dashboard": False},
        quiet=True,
    )
    cluster.wait_for_workers(workers, timeout=_PATIENCE)
    with Closing(local, workers) as closing:
        cluster.close()
    return closing.result()


async def close_played(local: LocalAWS, workers: int) -> dict[str, Any]:
    """Close the parts of a cluster without Dask's."""
    settings = Settings.load(
        arch="arm64",
        endpoint_url=local.endpoint_url,
        image="benchmark",
        max_workers=max(500, workers),
        network={"caller": "127.0.0.1/32"},
    )
    aws = AWS(endpoint_url=local.endpoint_url, session=local.session())
    events = EventLog(now=aws.now)
    plan = blueprint(settings, "{}")
    book = PriceBook(aws.region, now=aws.now)
    ledger = Ledger(book, settings.storage.volume_size, simulated=True)
    events.listen(ledger.note)
    updater = LedgerUpdater(aws, book, ledger)
    session, dask = Session(aws, plan, events.emit, ledger), StandIn(local)
    watch = asyncio.ensure_future(dask.watch())
    try:
        await updater.begin()
        fleet = await session.start(dask, range(workers))
        await fleet.until(lambda: all(w.state is WorkerState.READY for w in fleet.workers.values()))
        with Closing(local, workers) as closing:
            await fleet.stop()
            watch.cancel()  # its queries of the embedded AWS are not calls of a cluster
            # The scheduler's container ends with its instance; the stand-in does not change the pool.
            await session.end(ended=lambda: True)
            await updater.stop()
            await updater.close()
        return closing.result()
    finally:
        watch.cancel()
        aws.close()


def measure(workers: int, timing: str, seed: int) -> dict[str, Any]:
    """Launch, wait, close, and return what that took."""
    processes = workers <= REAL
    with LocalAWS(timing=timing, seed=seed, processes=processes) as local:
        local.throttle(True)
        return close_processes(local, workers) if processes else asyncio.run(close_played(local, workers))


def main() -> None:
    """Run the sizes one after another and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=SIZES)
    parser.add_argument("--timing", choices=("fast", "realistic"), default="realistic")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smallest", action="store_true", help="21 workers without processes, in the profile fast")
    parser.add_argument("--verbose", action="store_true", help="print the cluster's events")
    arguments = parser.parse_args()
    if arguments.verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    sizes, timing = ((REAL + 1,), "fast") if arguments.smallest else (arguments.workers, arguments.timing)
    runs = []
    for workers in sizes:
        began = time.monotonic()
        runs.append(measure(workers, timing, arguments.seed))
        print(json.dumps(runs[-1]), f"({time.monotonic() - began:.0f} s in all)", flush=True)
    print(
        json.dumps(
            {
                "benchmark": "close",
                "simulated": True,
                "timing": timing,
                "workers": [run["workers"] for run in runs],
                "seconds": [run["seconds"] for run in runs],
                "seconds_over_billed": max(run["seconds_over_billed"] for run in runs),
                "calls_per_worker": runs[-1]["calls_per_worker"],
                "still_billed": sum(run["still_billed"] for run in runs),
            }
        )
    )


if __name__ == "__main__":
    main()
