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
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import dask
from distributed import Client, futures_of
from distributed.diagnostics.plugin import SchedulerPlugin

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS, faults

WORKERS, NTHREADS = 4, 2
PARTITIONS, ROWS = 32, 20_000
#: Seconds of work in one task of a dataframe, and of the bag.
NAP, LONG = 0.25, 2.0
TASKS = 64
PATIENCE = 300.0


@dataclass(frozen=True)
class Outcome:
    """One run of one job."""

    seconds: float
    lost: int
    recomputed: int


def jobs(
    early: bool = False, tasks: int = TASKS, long: float = LONG
) -> dict[str, Callable[[Client, Callable[[], None]], Any]]:
    """Return the jobs by name. Each calls back when it is under way, and returns a result to check.

    Inner functions are pickled by value, as workers cannot import benchmarks. An `early` shuffle is under way when a
    quarter of its input is computed, otherwise when a quarter of its output is.
    """

    def partition(seed: int) -> Any:
        import numpy as np
        import pandas as pd

        time.sleep(NAP)
        random = np.random.default_rng(seed)
        return pd.DataFrame({"key": random.integers(0, 1000, ROWS), "value": random.integers(0, 9, ROWS)})

    def slowly(part: Any, turn: int) -> Any:
        time.sleep(NAP)
        return part

    def task(x: int) -> int:
        time.sleep(long)
        return x * x

    def frame() -> Any:
        import dask.dataframe as dd

        return dd.from_map(partition, range(PARTITIONS), meta=partition(0))

    def persisted(client: Client, under_way: Callable[[], None]) -> Any:
        held = frame().persist()
        wait_for_some(held, 1.0)
        under_way()
        turns = (held.map_partitions(slowly, turn, meta=held._meta) for turn in range(8))
        return [int(turn.value.sum().compute()) for turn in turns]

    def shuffle(client: Client, under_way: Callable[[], None]) -> Any:
        moved = frame().shuffle("key").map_partitions(slowly, 0).persist()
        if early:
            wait_for_executions(client, PARTITIONS // 4)
        else:
            wait_for_some(moved, 0.25)
        under_way()
        return int(moved.value.sum().compute()), int(moved.key.nunique().compute())

    def bag(client: Client, under_way: Callable[[], None]) -> Any:
        futures = client.map(task, range(tasks), pure=False)
        wait_for_some(futures, 0.25)
        under_way()
        return sum(client.gather(futures))

    return {"persisted": persisted, "shuffle": shuffle, "bag": bag}


def wait_for_some(collection: Any, part: float) -> None:
    """Wait until a part of the futures is done."""
    futures = futures_of(collection)
    while sum(future.done() for future in futures) < part * len(futures):
        time.sleep(0.05)


def wait_for_executions(client: Client, number: int) -> None:
    """Wait until this number of tasks has completed."""
    while client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.plugins["executions"].of)) < number:
        time.sleep(0.05)


def executions() -> SchedulerPlugin:
    """Return a plugin that counts how often each task has completed."""

    class Executions(SchedulerPlugin):  # type: ignore[misc]  # a class without types; local, so that it is pickled by value
        name = "executions"

        def __init__(self) -> None:
            self.of: dict[Any, int] = {}

        def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
            if (start, finish) == ("processing", "memory"):
                self.of[key] = self.of.get(key, 0) + 1

    return Executions()


def recomputed(client: Client) -> int:
    """Return the number of recomputed tasks."""
    of = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.plugins["executions"].of)
    return sum(times - 1 for times in of.values())


def removed(client: Client) -> list[dict[str, Any]]:
    """Return Dask's event of each removed worker."""
    return [event for _, event in client.get_events("all") if event.get("action") == "remove-worker"]


def run(aws: LocalAWS, job: Callable[..., Any], taken: int, watch: bool, workers: int = WORKERS) -> tuple[Outcome, Any]:
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


def main() -> None:
    """Run the chosen jobs, and print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--job", choices=jobs(), action="append", help="only this one (may be repeated)")
    parser.add_argument(
        "--taken", type=int, action="append", help="number of interrupted workers (by default 1, 3 and 4)"
    )
    parser.add_argument("--watch", choices=("on", "off", "both"), default="both")
    parser.add_argument("--shuffle", choices=("tasks", "p2p"), default="tasks", help="how Dask shuffles")
    parser.add_argument("--early", action="store_true", help="notices come while the shuffle reads its input")
    parser.add_argument("--smallest", action="store_true", help="run the smallest size, as a test")
    chosen = parser.parse_args()
    if chosen.smallest:
        chosen.job, chosen.taken, chosen.watch = ["bag"], [1], "on"
    workers, tasks, long = (1, 6, 0.2) if chosen.smallest else (WORKERS, TASKS, LONG)
    modes = {"on": (True,), "off": (False,), "both": (True, False)}[chosen.watch]
    found: dict[bool, list[tuple[Outcome, float]]] = {mode: [] for mode in modes}
    print(f"{'job':<12}{'taken':>6}{'watch':>7}{'lost':>7}{'again':>7}{'s':>8}{'ratio':>7}")
    with dask.config.set({"dataframe.shuffle.method": chosen.shuffle}), LocalAWS() as aws:
        for name in chosen.job or jobs():
            job = jobs(chosen.early, tasks, long)[name]
            calm, expected = run(aws, job, 0, True, workers)
            print(f"{name:<12}{0:>6}{'':>7}{calm.lost:>7}{0:>7}{calm.seconds:>8.1f}{1:>7.2f}", flush=True)
            for taken in chosen.taken or (1, 3, 4):
                for mode in modes:
                    outcome, result = run(aws, job, taken, mode, workers)
                    assert result == expected, f"{name} with {taken} taken came to {result}, not {expected}"
                    outcome = replace(outcome, recomputed=outcome.recomputed - calm.recomputed)
                    ratio = outcome.seconds / calm.seconds
                    found[mode].append((outcome, ratio))
                    row = f"{name:<12}{taken:>6}{'on' if mode else 'off':>7}{outcome.lost:>7}{outcome.recomputed:>7}"
                    print(f"{row}{outcome.seconds:>8.1f}{ratio:>7.2f}", flush=True)
    print(json.dumps(summary(found)))


def summary(found: dict[bool, list[tuple[Outcome, float]]]) -> dict[str, Any]:
    """Return totals, and the worst ratio; keys of runs without the watch begin with ``off_``."""
    said: dict[str, Any] = {"benchmark": "spot", "simulated": True}
    for mode, runs in found.items():
        prefix = "" if mode else "off_"
        said[prefix + "results_lost"] = sum(outcome.lost for outcome, _ in runs)
        said[prefix + "recomputed"] = sum(outcome.recomputed for outcome, _ in runs)
        said[prefix + "time_ratio"] = round(max(ratio for _, ratio in runs), 2)
    return said


if __name__ == "__main__":
    main()
