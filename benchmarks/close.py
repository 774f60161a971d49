"""The time that ``close()`` takes beyond the last billed moment, and its calls, for 2, 50 and 300 workers.

    python benchmarks/close.py

The embedded AWS runs in the latency profile ``realistic``, at time scale 1, with the documented token buckets of ECS
on; boto3 and HTTP are real. Up to 20 workers a `StarburstCluster` runs, whose scheduler and workers are processes. With
more workers the real control loop runs with a stand-in for the Dask scheduler, and containers without processes. All of
AWS's latencies are *simulated*.

``seconds_over_billed`` is the time from the last billed moment until ``close()`` has returned: EC2 bills an
instance until it is ``shutting-down`` (EC2 User Guide, "Amazon EC2 instance state changes"). ``calls_per_worker``
counts every call of ``close()`` that reached AWS, retries included. The last line is one JSON object, with the worst
``seconds_over_billed`` of all sizes and the ``calls_per_worker`` of the largest.
"""

from __future__ import annotations

import asyncio
import json
import time
from itertools import product
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
from benchmarks.harness.report import finish
from benchmarks.harness.stand_in import StandIn
from dask_starburst.cost.ledger import Ledger
from dask_starburst.cost.price_book import PriceBook
from dask_starburst.cost.updater import LedgerUpdater
from dask_starburst.events import EventLog
from dask_starburst.fleet.blueprint import blueprint
from dask_starburst.fleet.session import Session
from dask_starburst.local import LocalAWS
from dask_starburst.plan.groups import DEFAULT
from dask_starburst.plan.loop.state import WorkerState

SIZES = (2, 50, 300)
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
        self._calls = Calls(local)
        self._began = self._returned = 0.0

    def __enter__(self) -> Closing:
        self._began = self._local.now()
        return self

    def __exit__(self, *error: object) -> None:
        self._returned = self._local.now()

    def result(self) -> dict[str, Any]:
        """Return all figures."""
        calls = self._calls.so_far()
        instances = self._local.instances()
        ends = [instance["ended_at"] or self._returned for instance in instances]
        return {
            "workers": self._workers,
            "seconds": round(self._returned - self._began, 2),
            "billed_seconds": round(max(ends) - self._began, 2),
            "seconds_over_billed": round(self._returned - max(ends), 2),
            "calls_per_worker": round(calls.total() / self._workers, 3),
            "still_billed": sum(instance["state"] in _BILLED for instance in instances),
            "processes": self._workers <= MOST_PROCESSES,
            "calls": dict(sorted(calls.items())),
        }


def close_processes(local: LocalAWS, workers: int) -> dict[str, Any]:
    """Close a cluster as a user does."""
    cluster = cluster_as_in_an_account(local, workers, scheduler={"dashboard": False})
    cluster.wait_for_workers(workers, timeout=PATIENCE)
    with Closing(local, workers) as closing:
        cluster.close()
    return closing.result()


async def close_played(local: LocalAWS, workers: int) -> dict[str, Any]:
    """Close the parts of a cluster without Dask's."""
    settings = controller_settings(local, workers)
    with account(local) as aws:
        events = EventLog(now=aws.now)
        book = PriceBook(aws.region, now=aws.now)
        ledger = Ledger(book, settings.storage.volume_size, simulated=True)
        events.listen(ledger.note)
        updater = LedgerUpdater(aws, book, ledger)
        session = Session(aws, blueprint(settings, "{}"), events.emit, ledger)
        async with StandIn(local) as dask:
            await updater.begin()
            controller = await session.start(dask, dict.fromkeys(range(workers), DEFAULT))
            await controller.until(
                lambda: all(w.state is WorkerState.READY for w in controller.roster.workers.values())
            )
            with Closing(local, workers) as closing:
                await controller.stop()
                dask.stop()  # its queries of the embedded AWS are not calls of a cluster
                # The scheduler's container ends with its instance; the stand-in does not change the pool.
                await session.end(ended=lambda: True)
                await updater.stop()
                await updater.close()
            return closing.result()


def measure(workers: int, timing: str, seed: int) -> dict[str, Any]:
    """Launch, wait, close, and return what that took."""
    processes = workers <= MOST_PROCESSES
    with limited_aws(timing, seed, processes=processes) as local:
        return close_processes(local, workers) if processes else asyncio.run(close_played(local, workers))


def main() -> None:
    """Run the sizes one after another and print what they took."""
    options = parser(__doc__, seeds=(0,), verbose=True)
    options.add_argument("--workers", type=int, nargs="+", default=SIZES)
    options.add_argument("--timing", choices=("fast", "realistic"), default="realistic")
    chosen = options.parse_args()
    if chosen.smallest:  # the fewest workers without processes
        chosen.workers, chosen.timing, chosen.seeds = [MOST_PROCESSES + 1], "fast", [0]
    runs = []
    for workers, seed in product(chosen.workers, chosen.seeds):
        began = time.monotonic()
        runs.append(measure(workers, chosen.timing, seed))
        print(json.dumps(runs[-1]), f"({time.monotonic() - began:.0f} s in all)", flush=True)
    largest = [run for run in runs if run["workers"] == runs[-1]["workers"]]
    finish(
        "close",
        simulated=True,
        timing=chosen.timing,
        workers=[run["workers"] for run in runs],
        seconds=[run["seconds"] for run in runs],
        seconds_over_billed=max(run["seconds_over_billed"] for run in runs),
        calls_per_worker=max(run["calls_per_worker"] for run in largest),
        still_billed=sum(run["still_billed"] for run in runs),
    )


if __name__ == "__main__":
    main()
