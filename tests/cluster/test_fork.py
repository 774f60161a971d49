"""A forked child has a copy of the cluster object, but does not close the cluster of its parent."""

from __future__ import annotations

import pytest

from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import script_process

SCRIPT = """
import multiprocessing, os, sys
from dask.distributed import Client
from dask_starburst import StarburstCluster

def child(end):
    pid = os.fork()
    if pid == 0:
        end()
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    print("CHILD", os.waitstatus_to_exitcode(status), flush=True)

def told():
    try:
        cluster.get_logs()
    except RuntimeError as error:
        assert "forked from" in str(error), error

if __name__ == "__main__":
    cluster = StarburstCluster(cloud="local", endpoint_url={url!r}, n_workers=0, quiet=True)
    client = Client(cluster)
    child(lambda: None)
    child(lambda: cluster.close())
    child(lambda: client.close())
    child(told)
    process = multiprocessing.get_context("fork").Process(target=lambda: None)
    process.start()
    process.join()
    print("CHILD", process.exitcode, flush=True)
    print("STATUS", cluster.status.name, client.scheduler_info()["id"] != "", flush=True)
    assert "Scheduler at" in cluster.get_logs()["Scheduler"]
    with cluster, client:
        child(lambda: None)  # leaves both blocks
    print("END", flush=True)
"""


def test_a_forked_child_exits_at_once_and_does_not_close_the_cluster(clean: LocalAWS) -> None:
    with script_process(SCRIPT.format(url=clean.endpoint_url)) as process:
        output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert output.count("CHILD 0\n") == 6, output
    assert "STATUS running True" in output
    assert output.endswith("END\n")


ASYNCHRONOUS = """
import asyncio, os, sys
from dask_starburst import StarburstCluster

async def main():
    async with StarburstCluster(
        cloud="local", endpoint_url={url!r}, n_workers=0, quiet=True, asynchronous=True
    ) as cluster:
        pid = os.fork()
        if pid == 0:
            await cluster.close()
            os._exit(3)
        _, status = os.waitpid(pid, 0)
        print("CHILD", os.waitstatus_to_exitcode(status), cluster.status.name, flush=True)
        print("LOG", "Scheduler at" in (await cluster.get_logs())["Scheduler"], flush=True)

asyncio.run(main())
"""


@pytest.mark.slow
def test_a_child_forked_in_the_loop_of_an_asynchronous_cluster_closes_nothing(clean: LocalAWS) -> None:
    with script_process(ASYNCHRONOUS.format(url=clean.endpoint_url)) as process:
        output, _ = process.communicate(timeout=100)
    assert "CHILD 3 running" in output, output
    assert "LOG True" in output
