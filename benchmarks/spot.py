"""The cost of Spot interruptions: lost results, recomputed tasks and time, with and without the watch for notices.

Three jobs run on four workers: a persisted dataframe, of which each partition is held once, that is read repeatedly; a
shuffle; a bag of longer tasks. While a job runs, AWS interrupts 1, 3 or all 4 of its instances. Each run is compared
with the same job without interruptions. All of it runs on the embedded AWS with real Dask processes: launch times are
*simulated* (profile ``fast``), the rest is real and depends on this computer.

The clock runs at normal speed. Notices come two minutes before the interruption, as on AWS. With the watch off, neither
the nannies nor the client (through the draining of the instance) receive them: instances are terminated without a
notice.

``recomputed`` counts the tasks that were computed again, beyond those of the undisturbed run, because Dask releases
data that it does not need at the moment. ``results_lost`` counts the results without another copy when their worker was
removed. Both are read from Dask, not from our counters. An interrupted task is in neither count, but in the time.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import dask
from distributed import Client

from benchmarks.harness.arguments import parser
from benchmarks.harness.report import Table, finish
from benchmarks.workloads.interrupted import LONG, TASKS, Job, executions, jobs
from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS, faults

WORKERS, NTHREADS = 4, 2
PATIENCE = 300.0


@dataclass(frozen=True)
class Outcome:
    """One run of one job."""

    seconds: float
    lost: int
    recomputed: int


def recomputed(client: Client) -> int:
    """Return the number of recomputed tasks."""
    of = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["executions"].of)
    return sum(times - 1 for times in of.values())


def removed(client: Client) -> list[dict[str, Any]]:
    """Return Dask's event of each removed worker."""
    return [event for _, event in client.get_events("all") if event.get("action") == "remove-worker"]


def run(aws: LocalAWS, job: Job, taken: int, watch: bool, workers: int = WORKERS) -> tuple[Outcome, Any]:
    """Run one job on a new cluster."""
    with (
        StarburstCluster(
            cloud="local",
            endpoint_url=aws.endpoint_url,
            n_workers=workers,
            worker={"nthreads": NTHREADS},
            spot={"policy": "spot"},
            quiet=True,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(workers, timeout=PATIENCE)
        client.register_plugin(executions())
        kind = faults.Interrupt if watch else faults.HostDeath
        event = kind(count=taken, group="*-spot")
        begun = time.monotonic()
        result = job(client, lambda: aws.play([event] if taken else [], seed=taken))
        seconds = time.monotonic() - begun
        lost = removed(client)
        return Outcome(seconds, sum(map(results, lost)), recomputed(client)), result


def results(event: dict[str, Any]) -> int:
    """Return the number of results that were lost with a worker."""
    return len(event["lost-computed-tasks"]) + len(event["lost-scattered-tasks"])


def options() -> argparse.ArgumentParser:
    """Return the options."""
    made = parser(__doc__)
    made.add_argument("--job", choices=jobs(), action="append", help="only this one (may be repeated)")
    made.add_argument(
        "--taken", type=int, action="append", help="number of interrupted workers (by default 1, 3 and 4)"
    )
    made.add_argument("--watch", choices=("on", "off", "both"), default="both")
    made.add_argument("--shuffle", choices=("tasks", "p2p"), default="tasks", help="how Dask shuffles")
    made.add_argument("--early", action="store_true", help="notices come while the shuffle reads its input")
    return made


def main() -> None:
    """Run the chosen jobs, and print a table and one line of JSON."""
    chosen = options().parse_args()
    if chosen.smallest:
        chosen.job, chosen.taken, chosen.watch = ["bag"], [1], "on"
    workers, tasks, long = (1, 6, 0.2) if chosen.smallest else (WORKERS, TASKS, LONG)
    modes = {"on": (True,), "off": (False,), "both": (True, False)}[chosen.watch]
    found: dict[bool, list[tuple[Outcome, float]]] = {mode: [] for mode in modes}
    counts = {"taken": ">6", "watch": ">7", "lost": ">7", "again": ">7"}
    table = Table({"job": "<12", **counts, "s": ">8.1f", "ratio": ">7.2f"})
    with dask.config.set({"dataframe.shuffle.method": chosen.shuffle}), LocalAWS(fork=False) as aws:
        for name in chosen.job or jobs():
            job = jobs(chosen.early, tasks, long)[name]
            calm, expected = run(aws, job, 0, True, workers)
            table.row(name, 0, "", calm.lost, 0, calm.seconds, 1)
            for taken, mode in product(chosen.taken or (1, 3, 4), modes):
                outcome, result = run(aws, job, taken, mode, workers)
                assert result == expected, f"{name} with {taken} taken came to {result}, not {expected}"
                outcome = replace(outcome, recomputed=outcome.recomputed - calm.recomputed)
                ratio = outcome.seconds / calm.seconds
                found[mode].append((outcome, ratio))
                watch = "on" if mode else "off"
                table.row(name, taken, watch, outcome.lost, outcome.recomputed, outcome.seconds, ratio)
    finish("spot", simulated=True, **summary(found))


def summary(found: dict[bool, list[tuple[Outcome, float]]]) -> dict[str, Any]:
    """Return totals, and the worst ratio; keys of runs without the watch begin with ``off_``."""
    said: dict[str, Any] = {}
    for mode, runs in found.items():
        prefix = "" if mode else "off_"
        said[prefix + "results_lost"] = sum(outcome.lost for outcome, _ in runs)
        said[prefix + "recomputed"] = sum(outcome.recomputed for outcome, _ in runs)
        said[prefix + "time_ratio"] = round(max(ratio for _, ratio in runs), 2)
    return said


if __name__ == "__main__":
    main()
