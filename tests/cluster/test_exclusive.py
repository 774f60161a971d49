"""Two clusters that are started at the same instant by two processes never share a pool."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import pools, read_until, script_process

CLAIMS = """
import asyncio, sys, uuid
from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.fleet.pool import claims
from dask_starburst.fleet.pool.reuse import claim_best
from dask_starburst.local import LocalAWS
from dask_starburst.plan.groups import HEAD_PLACEMENT
from dask_starburst.plan.requests.pool import PlacementSpec, PoolNames, PoolSpec

parts = (PlacementSpec(HEAD_PLACEMENT, "ami-1", ("m7g.medium",)),)
spec = PoolSpec("us-east-1", "subnet-1", "vpc-1", parts, 30, "sg-1", "profile", "", {{}})
account = LocalAWS.connect({url!r}).session()
print("SAYS READY", flush=True)
for line in sys.stdin:
    aws = AWS(session=account)  # every cluster has its own, with unused rate limits
    found = asyncio.run(claim_best(aws, spec, 1, uuid.uuid4().hex, "", Patience(60.0, print), lambda names: None))
    print("SAYS", found.name, flush=True)
    sys.stdin.readline()
    asyncio.run(claims.free(aws, PoolNames(found.name)))
    aws.close()
    print("SAYS BACK", flush=True)
"""

CLUSTERS = """
import sys
from dask.distributed import Client
from dask_starburst import StarburstCluster

if __name__ == "__main__":
    print("SAYS READY", flush=True)
    for line in sys.stdin:
        with StarburstCluster(cloud="local", endpoint_url={url!r}, n_workers=1, quiet=True) as cluster:
            print("SAYS", next(e.subject for e in cluster.events if e.kind == "pool-claimed"), flush=True)
            with Client(cluster) as client:
                assert client.submit(sum, [1, 2]).result(timeout=60) == 3
            sys.stdin.readline()
        print("SAYS BACK", flush=True)
"""


@contextmanager
def two(script: str) -> Iterator[list[subprocess.Popen[str]]]:
    with ExitStack() as stack:
        both = [stack.enter_context(script_process(script)) for _ in range(2)]
        assert answers(both) == ["READY", "READY"]
        yield both


def answers(processes: list[subprocess.Popen[str]]) -> list[str]:
    return [read_until(process, "SAYS ").removeprefix("SAYS ").strip() for process in processes]


def say(processes: list[subprocess.Popen[str]]) -> list[str]:
    """Continue both at the same moment, and return what they print."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return answers(processes)


@pytest.mark.parametrize("tries", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_two_checkouts_at_the_same_instant_get_different_pools(aws: LocalAWS, tries: int) -> None:
    refused = aws.status().calls
    with two(CLAIMS.format(url=aws.endpoint_url)) as both:
        for _ in range(tries):
            first, second = say(both)
            assert first.startswith("starburst-")
            assert second.startswith("starburst-")
            assert first != second
            assert say(both) == ["BACK", "BACK"]
    claims = aws.status().calls["ssm:PutParameter"] - refused.get("ssm:PutParameter", 0)
    assert claims > 4 * tries, "sometimes both tried to claim the same pool, and one succeeded"


@pytest.mark.slow
def test_two_clusters_that_start_at_the_same_instant_use_different_pools(clean: LocalAWS) -> None:
    with two(CLUSTERS.format(url=clean.endpoint_url)) as both:
        for _ in range(2):
            names = say(both)
            assert sorted(names) == pools(clean), "two pools, reused each time"
            assert say(both) == ["BACK", "BACK"]
