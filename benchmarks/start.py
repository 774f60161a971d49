"""The time to the first worker, from an empty account and from a warm pool, on the embedded AWS: simulated.

Three processes create the same cluster, one after the other. The first starts in a new account and keeps its pool
warm; the second reuses it; the third starts in the account that is set up, with the empty pool. They are timed from the
constructor to the first worker that the client sees. AWS's latencies (capacity requests, boots, pulls) are drawn from
the latency model, profile ``realistic``, time scale 1; Python, Dask and our code are real and depend on this computer
and its load. An image stays in the instance's cache (``ECS_IMAGE_PULL_BEHAVIOR=prefer-cached``). Nothing here ran
on AWS.

For the new account and the one that is set up, the calls before the first capacity are counted, and those on the
critical path are printed: each of them waits for the one before.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from statistics import median

from benchmarks.harness.arguments import parser
from benchmarks.harness.compare import median_ratio
from benchmarks.harness.report import Table, finish
from benchmarks.harness.timeline import Span, before_capacity, critical_path
from dask_starburst.local import LocalAWS

CLUSTER = """
import json, time
from benchmarks.harness.timeline import Timeline
from dask.distributed import Client
from dask_starburst import StarburstCluster
timeline = Timeline()
begin = time.monotonic()
with StarburstCluster(
    cloud="local", endpoint_url={url!r}, n_workers={workers}, keep={{"warm_timeout": {warm}}}, quiet=True,
    hooks=[timeline],
) as cluster, Client(cluster) as client:
    client.wait_for_workers(1)
    print(json.dumps([time.monotonic() - begin, timeline.spans]))
    client.wait_for_workers({workers})
"""


@dataclass(frozen=True, slots=True)
class Start:
    """One start: the seconds to its first worker, and its calls up to the first request of capacity."""

    seconds: float
    calls: list[Span]


def start(aws: LocalAWS, workers: int, warm: float) -> Start:
    """Create a cluster in a separate process."""
    script = CLUSTER.format(url=aws.endpoint_url, workers=workers, warm=warm)
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    seconds, spans = json.loads(answer.stdout)
    return Start(seconds, before_capacity(Span(*span) for span in spans))


def starts(workers: int, seed: int, timing: str) -> tuple[Start, Start, Start]:
    """Start in a new account, with the warm instances of that cluster, and in the account that is set up."""
    with LocalAWS(timing=timing, seed=seed, fork=False) as aws:
        return start(aws, workers, 600), start(aws, workers, 0), start(aws, workers, 0)


def show_path(what: str, calls: list[Span]) -> None:
    """Print the calls on the critical path to the first capacity."""
    path = critical_path(calls)
    print(f"{what}: {len(calls)} calls up to the first capacity, {len(path)} on the critical path")
    for span in path:
        print(f"  {span.start - path[0].start:7.2f} s  {span.end - span.start:6.2f} s  {span.name}")


def main() -> None:
    """Print each pair, then the JSON line with the medians."""
    options = parser(__doc__, seeds=(0, 1, 2))
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    timing = "realistic"
    if chosen.smallest:
        chosen.workers, chosen.seeds, timing = 1, [0], "none"
    print(f"SIMULATED: {timing} latencies at time scale 1, real processes; seconds to the first worker")
    table = Table({"seed": ">4", "cold": ">8.1f", "warm": ">8.1f", "set up": ">8.1f", "ratio": ">8.2f"})
    colds, warms, prepared = [], [], []
    for seed in chosen.seeds:
        cold, warm, ready = starts(chosen.workers, seed, timing)
        table.row(seed, cold.seconds, warm.seconds, ready.seconds, warm.seconds / cold.seconds)
        colds.append(cold.seconds)
        warms.append(warm.seconds)
        prepared.append(ready.seconds)
    show_path("new account", cold.calls)
    show_path("account that is set up", ready.calls)
    finish(
        "start",
        simulated=True,
        timing=timing,
        workers=chosen.workers,
        pairs=len(colds),
        cold_seconds=round(median(colds), 2),
        warm_seconds=round(median(warms), 2),
        set_up_seconds=round(median(prepared), 2),
        calls_new_account=len(cold.calls),
        calls_set_up=len(ready.calls),
        critical_path_new_account=len(critical_path(cold.calls)),
        critical_path_set_up=len(critical_path(ready.calls)),
        ratio=round(median_ratio(warms, colds), 3),
    )


if __name__ == "__main__":
    main()
