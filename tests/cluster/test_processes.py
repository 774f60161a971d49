"""The processes of a cluster: the addresses they listen on, and that user code leaves none behind."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest
from distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import alive, wait_until


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere all instances share one address")
def test_processes_listen_on_their_instance_only_and_a_daemon_ends_with_its_worker(clean: LocalAWS) -> None:
    with (
        StarburstCluster(cloud="local", endpoint_url=clean.endpoint_url, n_workers=2, quiet=True) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(2, timeout=60)
        own = [_addresses(pid) for pid in clean.status().containers.values()]
        inside = clean.network.rsplit(".", 2)[0]
        assert all(len(addresses) == 1 for addresses in own), own
        assert len(set.union(*own)) == 3, own
        assert all(address.startswith(inside) for address in set.union(*own))
        # The HTTP servers of the scheduler and both workers listen there too.
        hosts = {info["host"] for info in client.scheduler_info(n_workers=-1)["workers"].values()}
        assert hosts < set.union(*own)
        daemon = client.submit(_daemon).result()
        assert alive(daemon)
    wait_until(lambda: not alive(daemon), 60, "the daemon ends with the container of its worker")


def _daemon() -> int:
    """Start a daemon with another session, no parent and no environment."""
    program = "(setsid env -i /bin/sleep 300 >/dev/null 2>&1 & echo $!)"
    return int(subprocess.run(["sh", "-c", program], check=True, capture_output=True).stdout)


def _addresses(pid: int) -> set[str]:
    """Return every address at which a process or one below it listens."""
    process = psutil.Process(pid)
    listening = [
        connection.laddr.ip
        for each in [process, *process.children(recursive=True)]
        for connection in each.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening
    return set(listening)
