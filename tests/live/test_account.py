"""The main job and the verification on a real account: ``STARBURST_LIVE=1 make test-live``. It costs less than $5."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.aws.session import AWS
from dask_starburst.cli import main
from dask_starburst.fleet.pool import discovery

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.environ.get("STARBURST_LIVE") != "1", reason="needs an AWS account: set STARBURST_LIVE=1"),
]
#: US dollars: the caps of the two tests together are the $5 that the docs name.
JOB, VERIFICATION = 2.0, 3.0


def test_a_job_runs_and_no_instance_is_left():
    with StarburstCluster(n_workers=2, money={"max_total_cost": JOB}) as cluster, Client(cluster) as client:
        assert client.gather(client.map(lambda n: n * n, range(100))) == [n * n for n in range(100)]
        pool, cost = cluster.report().pool, cluster.cost
    assert cost.usd <= JOB
    found = {each.name: each for each in asyncio.run(discovery.find(AWS()))}
    assert found[pool].running == 0


def test_the_account_answers_as_assumed(tmp_path: Path):
    path = tmp_path / "report.json"
    done = CliRunner().invoke(main, ["verify", "--max-cost", str(VERIFICATION), "--yes", "--report", str(path)])
    wrong = [answer for answer in json.loads(path.read_text())["answers"] if answer["as_assumed"] is False]
    assert not wrong, json.dumps(wrong, indent=2)
    assert done.exit_code == 0, done.output
