"""Client and scheduler are dead, and the lease is long: the instances terminate themselves."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import costs_nothing, read_until, script_process, wait_until
from tests.support.reaper_fixtures import INTERVAL, Reapers

SCRIPT = """
import time
from dask_starburst import StarburstCluster

if __name__ == "__main__":
    cluster = StarburstCluster(cloud="local", endpoint_url={url!r}, n_workers=1, lease="30 minutes", quiet=True)
    cluster.wait_for_workers(1, timeout=60)
    print("READY", flush=True)
    time.sleep(600)
"""
LIMIT = 300


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()


def test_without_client_and_scheduler_every_instance_terminates_itself_long_before_the_lease(
    tmp_path: Path, new_aws: LocalAWS
) -> None:
    with script_process(SCRIPT.format(url=new_aws.endpoint_url)) as process:
        read_until(process, "READY")
        reapers = Reapers(new_aws, tmp_path)
        assert set(reapers.after(INTERVAL).values()) == {""}, "all of them work"
        process.send_signal(signal.SIGSTOP)  # otherwise it would notice the scheduler's end, and clean up
        [scheduler] = [pid for name, pid in new_aws.status().containers.items() if "scheduler" in name]
        os.killpg(os.getpgid(scheduler), signal.SIGKILL)
        kill(process)
        wait_until(lambda: new_aws.status().tasks_running == 0, 90, "the workers end without their scheduler")
        before = new_aws.now()
        assert set(reapers.look().values()) == {""}, "the tasks have only just ended"
        said = reapers.after(LIMIT)
        assert len(said) == 2
        assert all("terminating this instance" in text for text in said.values())
        wait_until(lambda: costs_nothing(new_aws), 60, "the pool is empty before the lease ends")
        assert new_aws.now() - before < LIMIT + 2 * INTERVAL
