"""Run one cluster manager through its stages, and print when each stage was reached.

    python script.py --cluster dask_cloudprovider.aws:FargateCluster --options '{"image": "…"}'

`benchmarks.peers` runs it in an environment that may lack dask_starburst, so it does not import it. Each line is a
JSON object: ``stage``, ``time`` (seconds since 1970), and further facts. A worker's time is when the scheduler added
it, according to the scheduler's event log, so that a constructor that waits for its workers does not hide it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import sys
import time
from typing import Any

_PATIENCE = 600.0  # seconds that a stage may take


def say(stage: str, **facts: Any) -> None:
    """Report a stage."""
    print(json.dumps({"stage": stage, "time": time.time(), **facts}), flush=True)


def joined(client: Any) -> list[float]:
    """Return the times at which the scheduler added the workers, in order."""
    events = client.get_events("all")
    return sorted(when for when, event in events if isinstance(event, dict) and event.get("action") == "add-worker")


def versions() -> dict[str, str]:
    """Return the versions of the relevant packages."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("dask-cloudprovider", "dask-starburst", "distributed", "aiobotocore", "boto3", "botocore"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def live(cluster_class: Any, options: dict[str, Any], workers: int, more: int) -> None:
    """Start, compute, scale up, close."""
    from dask.distributed import Client

    say("begin", versions=versions())
    cluster = cluster_class(n_workers=workers, **options)
    say("constructed")
    client = Client(cluster)
    client.wait_for_workers(workers, timeout=_PATIENCE)
    say("ready", joined=joined(client))
    squares = client.gather(client.map(lambda number: number * number, range(100), pure=False))
    if squares != [number * number for number in range(100)]:
        sys.exit(f"wrong results: {squares}")
    say("grow")
    cluster.scale(workers + more)
    client.wait_for_workers(workers + more, timeout=_PATIENCE)
    say("grown", joined=joined(client))
    client.close()
    cluster.close()
    say("closed")


def main() -> None:
    """Run all stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cluster", required=True, help="module:class")
    parser.add_argument("--options", type=json.loads, default={}, help="keyword arguments, JSON")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--more", type=int, default=2)
    arguments = parser.parse_args()
    module, name = arguments.cluster.split(":")
    cluster_class = getattr(importlib.import_module(module), name)
    live(cluster_class, arguments.options, arguments.workers, arguments.more)


if __name__ == "__main__":
    main()
