"""A cluster behind a proxy that is down, and the secrets that other processes can see."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SCRIPT = """
import json, os
from dask.distributed import Client
from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS

def seen():
    return os.getpid(), os.getppid(), dict(os.environ)

def environ(pid):
    with open(f"/proc/{pid}/environ", "rb") as file:
        return file.read().decode(errors="replace")

# A forked container shows the environment of the fork server, which has no secret.
aws = LocalAWS(fork=False).start()
url = aws.endpoint_url
with StarburstCluster(cloud="local", endpoint_url=url, n_workers=1, quiet=True) as cluster, Client(cluster) as client:
    answer = client.submit(sum, [1, 2, 3]).result(60)
    (worker, nanny, inside), = client.run(seen).values()
    scheduler, _, _ = client.run_on_scheduler(seen)
    names = {"worker": worker, "nanny": nanny, "scheduler": scheduler}
    told = {name: environ(pid) for name, pid in names.items()}
    secret = json.loads(cluster._certificates.secret)
aws.stop()
print(json.dumps({"answer": answer, "told": told, "inside": inside, "key": secret["key"]}))
"""


def test_a_local_cluster_ignores_the_proxy_and_keeps_its_key_out_of_the_environment() -> None:
    # Port 9 is closed, and NO_PROXY does not list this computer.
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    env = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"} | proxies
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["answer"] == 6
    lines = [line for line in found["key"].splitlines() if "PRIVATE KEY" not in line]
    assert lines
    for process, environment in found["told"].items():
        assert "STARBURST" in environment, f"the environment of the {process} was not read"
        assert not [line for line in lines if line in environment], process
        assert "PRIVATE KEY" not in environment, process
    assert "STARBURST_TLS" not in found["inside"]
