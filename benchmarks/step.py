"""The processor time of decisions for 100 to 10,000 workers: `step`, and `track` over all workers.

There are three situations: every worker is up; every worker waits for an instance that has just connected; half of the
workers are leaving. Measured on this computer: processor time, so that other programs do not count, and the minimum of
several runs. The last line is one JSON object.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from typing import Any

from benchmarks.harness.arguments import parser
from benchmarks.harness.report import Table, finish
from dask_starburst.catalog.markets import Market
from dask_starburst.plan.groups import DEFAULT, Placement
from dask_starburst.plan.loop.reconcile import step, unconfirmed
from dask_starburst.plan.loop.state import Instance, Limits, Observed, ScalingGroup, Task, Worker, WorkerState
from dask_starburst.plan.loop.worker import track

SIZES = (100, 300, 1000, 3000, 10_000)
NOW = 1000.0
S = WorkerState
SPOT = Placement(DEFAULT, Market.SPOT)


def up(size: int) -> tuple[list[Worker], Observed]:
    """Return workers that are all up."""
    workers = [Worker(str(n), SPOT, S.READY, NOW - 60, task=f"t{n}", instance=f"arn:{n}") for n in range(size)]
    return workers, _observed(size, tasks=True)


def waiting(size: int) -> tuple[list[Worker], Observed]:
    """Return workers that all wait, each with a free instance."""
    return [Worker(str(n), SPOT, S.CAPACITY, NOW - 40) for n in range(size)], _observed(size, tasks=False)


def half_to_go(size: int) -> tuple[list[Worker], Observed]:
    """Return workers of which every other one is retiring or has left a surplus instance."""
    workers, observed = up(size)
    kept = workers[::2] + [
        Worker(w.name, SPOT, S.RETIRING, NOW, requested=False, task=w.task, instance=w.instance) for w in workers[1::4]
    ]
    live = {w.task for w in kept}
    tasks = {arn: task for arn, task in observed.tasks.items() if arn in live}
    return kept, Observed(observed.groups, observed.instances, tasks, observed.members)


def _observed(size: int, tasks: bool) -> Observed:
    instances = [Instance(f"i-{n}", SPOT, "c7g.xlarge", f"arn:{n}", True, True, launched=NOW - 90) for n in range(size)]
    up = [Task(f"t{n}", str(n), 0, "RUNNING", f"arn:{n}") for n in range(size if tasks else 0)]
    return Observed(
        {SPOT: ScalingGroup(SPOT, size)},
        {i.id: i for i in instances},
        {t.arn: t for t in up},
        frozenset(t.worker for t in up),
    )


def milliseconds(run: Callable[[], object], repeat: int) -> float:
    """Return the minimum of several times."""
    times = []
    for _ in range(repeat):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times) * 1000


def measure(make: Callable[[int], tuple[list[Worker], Observed]], size: int, repeat: int) -> dict[str, float]:
    """Time one tick's decisions; the indexes of the observed state are rebuilt each time, as in a tick."""
    workers, seen = make(size)

    def fresh() -> Observed:
        return Observed(seen.groups, seen.instances, seen.tasks, seen.members, seen.in_flight)

    def follow() -> None:
        observed = fresh()
        for worker in workers:
            track(worker, observed, NOW, Limits())

    asked = dict.fromkeys(step(workers, seen, NOW, Limits()), NOW)
    return {
        "step_ms": milliseconds(lambda: step(workers, fresh(), NOW, Limits()), repeat),
        "track_ms": milliseconds(follow, repeat),
        "settle_ms": milliseconds(lambda: unconfirmed(asked, fresh()), repeat),
        "actions": len(asked),
    }


def main() -> None:
    """Print a table, and one JSON object."""
    chosen = parser(__doc__, repeat=7).parse_args()
    sizes = SIZES[:1] if chosen.smallest else SIZES
    times = {"step ms": ">10.2f", "track ms": ">10.2f", "settle ms": ">11.2f"}
    table = Table({"situation": "<12", "workers": ">9", **times, "actions": ">9.0f"})
    rows: list[dict[str, Any]] = []
    for make, size in product((up, waiting, half_to_go), sizes):
        rows.append({"situation": make.__name__, "workers": size, **measure(make, size, chosen.repeat)})
        table.row(*rows[-1].values())
    largest = [r for r in rows if r["workers"] == sizes[-1]]
    worst = {what: round(max(row[what] for row in largest), 1) for what in ("step_ms", "track_ms", "settle_ms")}
    finish("step", simulated=False, workers=sizes[-1], **worst, rows=rows)


if __name__ == "__main__":
    main()
