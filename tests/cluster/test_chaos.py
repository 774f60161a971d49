"""Random faults: kills, interruptions, no capacity, throttling, lost responses; every result must be right.

The script is seeded, its times are virtual; processes, HTTP and boto3 are real. ``make soak`` runs longer ones.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import pytest
from dask.distributed import Client, wait

from dask_starburst import StarburstCluster
from dask_starburst.fleet.controller.loop import Controller
from dask_starburst.local import LocalAWS, faults
from dask_starburst.plan.loop.state import Limits, Observed, Worker, WorkerState
from dask_starburst.settings.arguments import TimeoutsDict
from tests.plan.loop.test_reconcile import check
from tests.support.cluster_asserts import leftovers, wait_until
from tests.support.placements import HEAD

#: Virtual seconds in a real second: a minute of faults takes three seconds, and a worker process starts in two.
SPEED = 10.0
#: The time that real processes take, in virtual seconds: timeouts grow with the speed.
PATIENCE: TimeoutsDict = {"connect": "30 minutes", "retire": "10 minutes"}
SOAK_MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
SOAK_SEEDS = [int(seed) for seed in os.environ.get("SOAK_SEEDS", "1 2 3").split()]


@dataclass
class Watcher:
    """Checks every decision of a controller against the invariants; an assertion in its loop would only be logged."""

    decisions: int = 0
    broken: list[str] = field(default_factory=list)

    def __call__(
        self, actions: tuple[Any, ...], workers: tuple[Worker, ...], observed: Observed, now: float, limits: Limits
    ) -> None:
        self.decisions += 1
        try:
            check(actions, workers, observed, now, limits)
        except AssertionError as error:
            self.broken.append(f"{error!r}: {actions}")


def part(x: int, seconds: float) -> int:
    import time

    time.sleep(seconds)
    return x * x


def rounds(client: Client, until: Any) -> int:
    """Compute trees of tasks until the end, and check each result; return their number."""
    done = 0
    while done < 2 or not until():
        parts = client.map(part, range(300), seconds=0.05, pure=False)
        sums = [client.submit(sum, parts[i : i + 30], pure=False) for i in range(0, 300, 30)]
        total = client.submit(sum, sums, pure=False)
        assert total.result(timeout=240) == sum(x * x for x in range(300))
        wait(parts, timeout=240)
        assert client.gather(parts) == [x * x for x in range(300)]
        done += 1
    return done


def running(cluster: StarburstCluster) -> tuple[Controller, LocalAWS]:
    assert cluster._session is not None
    assert cluster._cloud is not None
    assert cluster._session.controller is not None
    assert cluster._cloud.local is not None
    return cluster._session.controller, cluster._cloud.local


def exactly(cluster: StarburstCluster, n: int) -> bool:
    """Whether exactly the requested workers exist, according to the controller and to AWS."""
    controller, aws = running(cluster)
    workers = [w for w in controller.roster.workers.values() if w.placement != HEAD]
    ready = len(workers) == n and all(w.state is WorkerState.READY and w.requested for w in workers)
    status = aws.status()
    counts = (status.instances_running, status.instances_pending, status.tasks_running, status.desired)
    return ready and counts == (n + 1, 0, n + 1, n + 1) and len(status.containers) == n + 1


def live_through(aws: LocalAWS, seed: int, minutes: float, workers: int = 20, decisions: int = 50) -> None:
    """Run a cluster through a script of faults; then exactly the requested workers must exist."""
    watcher = Watcher()
    with StarburstCluster(
        cloud="local",
        endpoint_url=aws.endpoint_url,
        n_workers=workers,
        quiet=True,
        worker={"nthreads": 1},
        spot={"policy": "spot_with_fallback"},
        timeouts=PATIENCE,
        keep={"lease": "5 hours"},
    ) as cluster:
        running(cluster)[0].decided = watcher
        with Client(cluster) as client:
            client.wait_for_workers(workers, timeout=120)
            aws.set_speed(SPEED)
            script = faults.Scenario.random(seed, minutes)
            aws.play(script.events, seed=script.seed)
            end = aws.now() + minutes * 60
            # The loop runs less often on a busy computer: continue until there were enough decisions to check.
            assert rounds(client, lambda: aws.now() >= end and watcher.decisions > decisions) >= 2
            wait_until(lambda: exactly(cluster, workers), 120, "the requested workers and nothing else")
            assert rounds(client, lambda: True) == 2
            aws.set_speed(1.0)
            cluster.scale(0)
            wait_until(lambda: exactly(cluster, 0), 60, "no workers and nothing else")
    assert watcher.decisions > decisions
    assert watcher.broken == []
    assert leftovers(aws) == {kind: [] for kind in leftovers(aws)}


@pytest.mark.timeout(300)
def test_three_workers_survive_a_minute_of_faults(new_aws: LocalAWS) -> None:
    live_through(new_aws, seed=1, minutes=1, workers=3, decisions=20)


@pytest.mark.timeout(600)
@pytest.mark.slow
def test_twenty_workers_survive_ten_minutes_of_faults(new_aws: LocalAWS) -> None:
    live_through(new_aws, seed=1, minutes=10)


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", SOAK_SEEDS)
def test_twenty_workers_survive_hours_of_faults(new_aws: LocalAWS, seed: int) -> None:
    live_through(new_aws, seed, SOAK_MINUTES)
