"""Jobs that AWS interrupts: a persisted dataframe that is read repeatedly, a shuffle, and a bag of longer tasks.

Each calls back when it is under way, and returns a result to check. Inner functions are pickled by value, as workers
cannot import benchmarks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from distributed import Client, futures_of
from distributed.diagnostics.plugin import SchedulerPlugin

PARTITIONS, ROWS = 32, 20_000
#: Seconds of work in one task of a dataframe, and of the bag.
NAP, LONG = 0.25, 2.0
TASKS = 64

Job = Callable[[Client, Callable[[], None]], Any]


def jobs(early: bool = False, tasks: int = TASKS, long: float = LONG) -> dict[str, Job]:
    """Return the jobs by name.

    Parameters
    ----------
    early : bool
        A shuffle is under way when a quarter of its input is computed, otherwise when a quarter of its output is.
    tasks : int
        The size of the bag.
    long : float
        The seconds of one of its tasks.
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
