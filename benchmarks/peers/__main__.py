"""Compare StarburstCluster with dask-cloudprovider's FargateCluster, ECSCluster and EC2Cluster on the embedded AWS.

    python -m benchmarks.peers --seeds 0 --docs docs/explanation/beside-dask-cloudprovider

Each product runs alone on a new embedded AWS, with the same latency profile and seed, at time scale 1, with the same
latency of every call and AWS's documented request limits. Each runs the same script (`script.py`): the
constructor, N workers, a computation, M more workers, close. Containers run real Dask processes; AWS's latencies are
*simulated*.

dask-cloudprovider is unmodified, in a separate virtual environment, which is created in the temporary folder unless
--peer-python names one. Its prerequisites are created as a user would: an AMI and a security group called
``dask-default`` (EC2Cluster), a cluster with instances (ECSCluster). Its distributed is older than ours, because
2026.6.0 removed the commands ``dask-scheduler`` and ``dask-worker`` that its task definitions call.

Every AWS call is counted at the server, including retries and refused calls, from the constructor until the process has
ended. Leftovers are the resources that exist then and did not exist before, once nothing changes any more or after
--settle seconds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness.arguments import parser
from benchmarks.harness.cloud import Calls, limited_aws
from benchmarks.harness.report import finish
from benchmarks.peers import inventory
from benchmarks.peers.report import Run, draw, markdown
from benchmarks.peers.setup import ami, default_security_group, ecs_capacity
from dask_starburst.local import LocalAWS

SCRIPT = Path(__file__).with_name("script.py")
# EC2Cluster creates certificates with cryptography, which dask-cloudprovider does not require.
PEER_PACKAGES = ("dask-cloudprovider[aws]==2025.9.0", "dask==2026.3.0", "distributed==2026.3.0", "cryptography")
IMAGE = "daskdev/dask:2026.3.0"
LATENCY = (0.03, 0.08)
#: Every worker has 2 vCPUs and 4 GiB, or as much of them as an instance of that size provides.
TYPE = "c7i.large"


@dataclass(frozen=True)
class Product:
    """A product: its cluster class, and a function that returns its other arguments."""

    name: str
    cluster: str
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: bool = True


PRODUCTS = (
    Product(
        "StarburstCluster",
        "dask_starburst:StarburstCluster",
        {
            "arch": "x86_64",
            "worker": {"nthreads": 2},
            "instance_types": [TYPE],
            "spot": {"policy": "on-demand"},
            "image": "dask-starburst/benchmark",
            "network": {"caller": "127.0.0.1/32"},
            "quiet": True,
        },
        peer=False,
    ),
    Product(
        "FargateCluster",
        "dask_cloudprovider.aws:FargateCluster",
        {"image": IMAGE, "worker_cpu": 2048, "worker_mem": 4096, "scheduler_cpu": 1024, "scheduler_mem": 4096},
    ),
    Product(
        "ECSCluster",
        "dask_cloudprovider.aws:ECSCluster",
        {"image": IMAGE, "worker_cpu": 2048, "worker_mem": 3584, "scheduler_cpu": 1024, "scheduler_mem": 3584},
    ),
    Product(
        "EC2Cluster",
        "dask_cloudprovider.aws:EC2Cluster",
        {"docker_image": IMAGE, "instance_type": TYPE, "region": "us-east-1"},
    ),
)


def peer_python(given: str | None) -> str:
    """Return the Python of the peers' environment; create the environment if it does not exist."""
    if given:
        return given
    folder = Path(tempfile.gettempdir()) / "dask-starburst-peers"
    python = folder / "bin" / "python"
    stamp = folder / "packages"
    if not stamp.exists() or stamp.read_text() != "\n".join(PEER_PACKAGES):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
        stamp.write_text("\n".join(PEER_PACKAGES))
    return str(python)


class Stages:
    """The stages of one process, with the calls that were counted when each was reported."""

    def __init__(self, local: LocalAWS) -> None:
        self._local = local
        self._calls = Calls(local)
        self._throttled = local.status().throttled
        self.facts: dict[str, dict[str, Any]] = {}
        self.calls: dict[str, Counter[str]] = {}

    def note(self, stage: str, facts: dict[str, Any]) -> None:
        """Record a stage."""
        self.facts[stage] = facts
        self.calls[stage] = self._calls.so_far()

    @property
    def throttled(self) -> int:
        """The number of throttled calls so far."""
        return self._local.status().throttled - self._throttled


def follow(command: list[str], environment: Mapping[str, str], stages: Stages, log: Path) -> None:
    """Run the script and record its stages."""
    with log.open("wb") as errors, tempfile.TemporaryDirectory() as folder:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=pipe, stderr=errors, text=True)
        assert process.stdout is not None
        try:
            for line in process.stdout:
                facts = _parse(line)
                if facts is not None:
                    print(f"  {time.strftime('%H:%M:%S')} {facts['stage']}", flush=True)
                    stages.note(facts["stage"], facts)
            code = process.wait()
        finally:
            process.kill()
    stages.note("exited", {"time": time.time(), "code": code})
    if "closed" not in stages.facts:
        sys.exit(f"exit code {code}, {log}:\n{log.read_text()[-3000:]}")


def _parse(line: str) -> dict[str, Any] | None:
    try:
        facts = json.loads(line)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) and "stage" in facts else None


def run(product: Product, python: str, seed: int, arguments: argparse.Namespace) -> Run:
    """Run the script with one product."""
    workers, more, timing = arguments.workers, arguments.more, arguments.timing
    latency = (0.0, 0.0) if arguments.smallest else LATENCY
    print(f"{time.strftime('%H:%M:%S')} {product.name}, seed {seed}", flush=True)
    with limited_aws(timing, seed, latency=latency, images={"daskdev/": python}) as local:
        options, waited = _prepared(product, local, workers, more)
        before = inventory.take(local)
        stages = Stages(local)
        interpreter = python if product.peer else sys.executable
        command = [interpreter, "-P", str(SCRIPT), "--cluster", product.cluster, "--options", json.dumps(options)]
        command += ["--workers", str(workers), "--more", str(more)]
        log = Path(tempfile.gettempdir()) / f"peers-{product.name}.log"
        follow(command, _environment(local), stages, log)
        calls, throttled = dict(stages.calls["exited"]), stages.throttled
        after, settled = _settled(local, before, arguments.settle)
        return Run(
            product=product.name,
            seed=seed,
            workers=workers,
            more=more,
            seconds=_seconds(stages.facts, workers, more),
            calls=calls,
            calls_until={stage: counted.total() for stage, counted in stages.calls.items()},
            throttled=throttled,
            left=inventory.left(before, after),
            settled_seconds=settled,
            waited=waited,
            versions=stages.facts["begin"]["versions"],
            load=os.getloadavg()[1],
        )


def _prepared(product: Product, local: LocalAWS, workers: int, more: int) -> tuple[dict[str, Any], dict[str, float]]:
    """Create the product's prerequisites; return its arguments, and the launch time of instances."""
    options = dict(product.options)
    waited: dict[str, float] = {}
    if product.name == "EC2Cluster":
        default_security_group(local)
        options["ami"] = ami(local)
    if product.name == "ECSCluster":
        options["cluster_arn"], waited = ecs_capacity(local, TYPE, workers, more)
    return options, waited


def _environment(local: LocalAWS) -> dict[str, str]:
    """Return an environment without the user's AWS configuration, and without dask_starburst on Python's path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "DASK_", "PYTHON"))}
    nowhere = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
    return {**kept, **local.environment, **nowhere}


def _seconds(facts: Mapping[str, dict[str, Any]], workers: int, more: int) -> dict[str, float]:
    begin, grow = facts["begin"]["time"], facts["grow"]["time"]
    joined = facts["grown"]["joined"]
    grown = facts["ready"]["joined"]
    return {
        "constructor": facts["constructed"]["time"] - begin,
        "first worker": grown[0] - begin,
        "ready": max(grown[workers - 1], facts["constructed"]["time"]) - begin,
        "more": joined[workers + more - 1] - grow,
        "close": facts["closed"]["time"] - facts["grown"]["time"],
        "exit": facts["exited"]["time"] - facts["closed"]["time"],
    }


def _settled(local: LocalAWS, before: inventory.Inventory, patience: float) -> tuple[inventory.Inventory, float]:
    begin = time.monotonic()
    while True:
        after = inventory.take(local)
        waited = time.monotonic() - begin
        if inventory.is_settled(before, after) or waited > patience:
            return after, waited
        time.sleep(1.0)


def _all(arguments: argparse.Namespace) -> Iterator[Run]:
    peers = any(product.peer for product in PRODUCTS if product.name in arguments.products)
    python = peer_python(arguments.peer_python) if peers else sys.executable
    for seed in arguments.seeds:
        for product in PRODUCTS:
            if product.name in arguments.products:
                yield run(product, python, seed, arguments)


def _document(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all products; write the results after each run, because all of them take long."""
    today = datetime.now(UTC).date().isoformat()
    document: dict[str, Any] = {"benchmark": "peers", "simulated": True, "date": today, "timing": arguments.timing}
    document["runs"] = []
    for one in _all(arguments):
        document["runs"].append(one.as_dict())
        if arguments.docs:
            (arguments.docs / "results.json").write_text(json.dumps(document, indent=1) + "\n")
    return document


def _options() -> argparse.ArgumentParser:
    names = [product.name for product in PRODUCTS]
    made = parser(__doc__, seeds=(0,))
    made.add_argument("--products", nargs="+", choices=names, default=names)
    made.add_argument("--workers", type=int, default=4)
    made.add_argument("--more", type=int, default=2)
    made.add_argument("--timing", choices=("realistic", "fast", "none"), default="realistic")
    made.add_argument(
        "--settle", type=float, default=180.0, help="seconds to wait until leftovers do not change any more"
    )
    made.add_argument("--peer-python", help="a Python that has dask-cloudprovider")
    made.add_argument("--docs", type=Path, help="folder for results, tables and the plot (needs matplotlib)")
    made.add_argument("--results", type=Path, help="draw and print results of an earlier run")
    return made


def main() -> None:
    """Run all products, and print the results."""
    arguments = _options().parse_args()
    if arguments.smallest:  # without the peers, which need a separate environment
        arguments.products, arguments.timing = ["StarburstCluster"], "none"
        arguments.workers, arguments.more = 1, 1
    document = json.loads(arguments.results.read_text()) if arguments.results else _document(arguments)
    runs = [Run(**one) for one in document["runs"]]
    print(markdown(runs))
    if arguments.docs:
        (arguments.docs / "tables.md").write_text(markdown(runs) + "\n")
        draw(runs, arguments.docs / "times-and-calls.svg")
    finish(**document)


if __name__ == "__main__":
    main()
