"""Nothing is left running after a client exits in any way; the lease releases what the client could not."""

from __future__ import annotations

import signal
import subprocess
import time
from contextlib import AbstractContextManager

import pytest

from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import costs_nothing, leftovers, nothing_left, read_until, script_process, wait_until

LEASE = 120
#: The most seconds by which Auto Scaling delays a scheduled action (aws-facts finding 8).
LATE = 120

SCRIPT = """
import signal, time
from dask.distributed import Client
from dask_starburst import StarburstCluster

def slow(x):
    time.sleep(0.2)
    return x

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores SIGINT for background processes
    cluster = StarburstCluster(cloud="local", endpoint_url={url!r}, n_workers=1, keep={{"lease": {lease}}})
    client = Client(cluster)
    client.wait_for_workers(1)
    futures = client.map(slow, range(1_000))
    print("WORKING", flush=True)
    {end}
"""


def client_process(aws: LocalAWS, end: str = "time.sleep(600)") -> AbstractContextManager[subprocess.Popen[str]]:
    """Run a script that launches a worker, gives it work, and then does `end`."""
    return script_process(SCRIPT.format(url=aws.endpoint_url, lease=LEASE, end=end))


@pytest.mark.parametrize(
    ("end", "code"),
    [
        pytest.param("cluster.close()", 0, id="close"),
        pytest.param("pass", 0, id="interpreter-exit-without-close"),
        pytest.param("raise RuntimeError('the notebook fell over')", 1, id="exception", marks=pytest.mark.slow),
    ],
)
def test_a_client_that_exits_leaves_nothing(clean: LocalAWS, end: str, code: int) -> None:
    with client_process(clean, end) as process:
        read_until(process, "WORKING")
        output, _ = process.communicate(timeout=60)
        assert process.returncode == code, output
        assert nothing_left(clean), (leftovers(clean), output)


@pytest.mark.parametrize("moment", [": requested", "is booting", "WORKING"])
def test_ctrl_c_leaves_nothing(clean: LocalAWS, moment: str) -> None:
    with client_process(clean) as process:
        read_until(process, moment)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert "KeyboardInterrupt" in output
        assert nothing_left(clean), (leftovers(clean), output)


# A client killed at every stage of a start is in test_stages.
@pytest.mark.parametrize(
    "moment", [*(pytest.param(early, marks=pytest.mark.slow) for early in (": requested", "is booting")), "WORKING"]
)
def test_the_lease_empties_the_pool_when_the_client_is_killed(moment: str, new_aws: LocalAWS) -> None:
    with client_process(new_aws) as process:
        read_until(process, moment)
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: new_aws.status().instances_running >= 1, 60, "the requested instances are launched")
        time.sleep(1)
        assert not costs_nothing(new_aws), "the pool still runs without the client"
        new_aws.advance(LEASE + LATE)
        wait_until(lambda: costs_nothing(new_aws), 60, "the lease alone empties the pool")
