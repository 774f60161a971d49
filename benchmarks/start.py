"""The time to the first worker, from an empty account and from a warm pool, on the embedded AWS: simulated.

Two processes create the same cluster, one after the other. The first starts without a pool and keeps its pool warm; the
second reuses it. Both are timed from the constructor to the first worker that the client sees. AWS's latencies
(capacity requests, boots, pulls) are drawn from the latency model, profile ``realistic``, time scale 1; Python, Dask
and our code are real and depend on this computer and its load. An image stays in the instance's cache
(``ECS_IMAGE_PULL_BEHAVIOR=prefer-cached``). Nothing here ran on AWS.
"""

from __future__ import annotations

import subprocess
import sys
from statistics import median

from benchmarks.harness.arguments import parser
from benchmarks.harness.compare import median_ratio
from benchmarks.harness.report import Table, finish
from dask_starburst.local import LocalAWS

CLUSTER = """
import time
from dask.distributed import Client
from dask_starburst import StarburstCluster
begin = time.monotonic()
with StarburstCluster(
    cloud="local", endpoint_url={url!r}, n_workers={workers}, keep={{"warm_timeout": {warm}}}, quiet=True
) as cluster, Client(cluster) as client:
    client.wait_for_workers(1)
    print(time.monotonic() - begin)
    client.wait_for_workers({workers})
"""


def start(aws: LocalAWS, workers: int, warm: float) -> float:
    """Create a cluster in a separate process; return the seconds to its first worker."""
    script = CLUSTER.format(url=aws.endpoint_url, workers=workers, warm=warm)
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(answer.stdout)


def cold_and_warm(workers: int, seed: int, timing: str) -> tuple[float, float]:
    """Start twice on a new embedded AWS: first without instances, then with those of the first cluster."""
    with LocalAWS(timing=timing, seed=seed) as aws:
        return start(aws, workers, 600), start(aws, workers, 0)


def main() -> None:
    """Print each pair, then the JSON line with the medians."""
    options = parser(__doc__, seeds=(0, 1, 2))
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    timing = "realistic"
    if chosen.smallest:
        chosen.workers, chosen.seeds, timing = 1, [0], "none"
    print(f"SIMULATED: {timing} latencies at time scale 1, real processes; seconds to the first worker")
    table = Table({"seed": ">4", "cold": ">8.1f", "warm": ">8.1f", "ratio": ">8.2f"})
    colds, warms = [], []
    for seed in chosen.seeds:
        cold, warm = cold_and_warm(chosen.workers, seed, timing)
        table.row(seed, cold, warm, warm / cold)
        colds.append(cold)
        warms.append(warm)
    finish(
        "start",
        simulated=True,
        timing=timing,
        workers=chosen.workers,
        pairs=len(colds),
        cold_seconds=round(median(colds), 2),
        warm_seconds=round(median(warms), 2),
        ratio=round(median_ratio(warms, colds), 3),
    )


if __name__ == "__main__":
    main()
