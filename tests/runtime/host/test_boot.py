"""The boot script: within AWS's size limit, valid, and with the files that systemd needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dask_starburst.fleet.pool.pool import boot_script
from dask_starburst.plan.requests.pool import PlacementSpec, PoolSpec, host_idle_limit, user_data
from dask_starburst.runtime.host import reaper
from tests.support.placements import SPOT
from tests.support.reaper_fixtures import INTERVAL, UNITS, command, install, unit

#: Before base64 (docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-add-user-data.html).
NOTICE_SECONDS = 16 * 1024
SPEC = PoolSpec(
    region="us-east-1",
    subnet="subnet-1",
    vpc="vpc-1",
    parts=(PlacementSpec(SPOT, "ami-1", ("c7g.xlarge",)),),
    volume_gib=30,
    security_group="sg-1",
    instance_profile="starburst-instance",
    boot_script=boot_script(),
    tags={},
    host_idle_limit=1020,
)
SCRIPT = user_data(SPEC, "starburst-01234567-0", SPOT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return install(SCRIPT, tmp_path)


def test_it_is_a_boothook_and_fits_into_user_data():
    assert SCRIPT.startswith("#cloud-boothook\n#!/bin/sh\n")
    assert len(SCRIPT.encode()) <= NOTICE_SECONDS
    assert not re.findall(r"@[A-Z_]+@", SCRIPT), "everything is filled in"


def test_the_ecs_config_names_the_cluster(root: Path):
    assert "ECS_CLUSTER=starburst-01234567-0\n" in (root / "etc/ecs/ecs.config").read_text()


def test_it_installs_the_reaper_as_it_is(root: Path):
    assert (root / "opt/starburst/reaper.py").read_text() == Path(reaper.__file__).read_text()
    usage = subprocess.run([*command(root), "--help"], check=True, capture_output=True, text=True)
    assert "--idle-limit" in usage.stdout


def test_systemd_starts_it_every_thirty_seconds_with_the_limit_of_the_pool(root: Path):
    service, timer = unit(root, "starburst-reaper.service"), unit(root, "starburst-reaper.timer")
    assert service["Service"]["ExecStart"].endswith("reaper.py --idle-limit 1020 --group starburst-01234567-0-spot")
    assert timer["Timer"]["OnBootSec"] == timer["Timer"]["OnUnitInactiveSec"] == f"{INTERVAL}s"
    assert (root / "systemctl").read_text() == "enable --now --no-block starburst-reaper.timer\n"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="only where there is systemd")
def test_systemd_takes_the_units(root: Path):
    units = [str(root / UNITS / f"starburst-reaper.{kind}") for kind in ("service", "timer")]
    said = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True)
    assert "starburst" not in said.stderr


def test_it_brings_no_packages_and_asks_no_network():
    before_the_reaper, _, rest = SCRIPT.partition("<<'REAPER'\n")
    commands = before_the_reaper + rest.partition("\nREAPER\n")[2]
    assert not re.search(r"\b(dnf|yum|curl|wget|pip|aws) ", commands)


def test_the_idle_limit_is_part_of_the_pool_specification():
    other = PoolSpec(**{name: getattr(SPEC, name) for name in SPEC.__slots__} | {"host_idle_limit": 300})
    assert other.digest != SPEC.digest


@pytest.mark.parametrize(
    ("waits", "limit"), [((), 300), ((0.0, 180.0), 300), ((900.0, 180.0), 1020), ((0, 200.5), 321)]
)
def test_the_limit_is_longer_than_any_wait_of_ours(waits: tuple[float, ...], limit: int):
    assert host_idle_limit(*waits) == limit
