"""The certificates are removed from the environment before anything else runs in a container."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from dask_starburst.fleet.tls import issue
from dask_starburst.plan.requests.tasks import TLS_VARIABLE

#: What a container does first, and then everything that user code could look at.
PROGRAM = """
import os, subprocess, sys
from dask_starburst.runtime.__main__ import take_secrets
take_secrets()
import dask.config
print("environment", dict(os.environ))
print("child", subprocess.check_output(["env"], text=True))
print("encrypted", dask.config.get("distributed.comm.require-encryption"))
from distributed.security import Security
for role in ("scheduler", "worker", "client"):
    config = Security().get_tls_config_for_role(role)
    print(role, sorted(name for name, value in config.items() if value and "-----BEGIN" in str(value)))
"""


def run(command: list[str], secret: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != TLS_VARIABLE}
    if secret is not None:
        environment[TLS_VARIABLE] = secret
    return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)


def test_neither_the_process_nor_its_children_have_the_key_in_their_environment():
    secret = issue("test").secret
    done = run(["-c", PROGRAM], secret)
    assert done.returncode == 0, done.stderr
    body = json.loads(secret)["key"].splitlines()[1]
    assert body not in done.stdout + done.stderr
    assert "PRIVATE KEY" not in done.stdout
    assert TLS_VARIABLE not in done.stdout
    assert "encrypted True" in done.stdout
    for role in ("scheduler", "worker", "client"):
        assert f"{role} ['ca_file', 'cert', 'key']" in done.stdout


@pytest.mark.parametrize("secret", [None, ""], ids=["missing", "empty"])
def test_without_certificates_a_container_ends_with_a_sentence(secret: str | None):
    done = run(["-m", "dask_starburst.runtime", "scheduler", "--port", "0", "--dashboard-port", "0"], secret)
    assert done.returncode == 1
    assert done.stderr.strip().endswith(
        "STARBURST_TLS is missing: run this only as an ECS task that dask_starburst has started"
    )
    assert "Traceback" not in done.stderr
