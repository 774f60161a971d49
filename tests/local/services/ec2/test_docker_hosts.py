"""Instances without ECS that run a container from their user data, and images with their own Python."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dask_starburst.local import LocalAWS
from dask_starburst.local.containers.images import Images
from dask_starburst.local.services.ec2.cloud_init import parse
from tests.local.conftest import ARM, Clients, wait_for

TEMPLATE = """#cloud-config
runcmd:
  - apt-get install -y docker-ce
  - 'docker run --net=host -e A="1 2" --rm some/image:1 {command}'
  - shutdown -h now
"""


def launch(clients: Clients, command: str) -> str:
    image = clients.ssm.get_parameter(Name=ARM)["Parameter"]["Value"]
    reply = clients.ec2.run_instances(
        ImageId=image,
        InstanceType="c7g.large",
        MinCount=1,
        MaxCount=1,
        UserData=TEMPLATE.format(command=command),
    )
    found: str = reply["Instances"][0]["InstanceId"]
    return found


def state(clients: Clients, instance: str) -> Any:
    reservations = clients.ec2.describe_instances(InstanceIds=[instance])["Reservations"]
    return reservations[0]["Instances"][0]["State"]["Name"]


def test_an_instance_runs_its_container_and_shuts_down_after_it(clients: Clients) -> None:
    instance = launch(clients, "python -c pass")
    wait_for(lambda: state(clients, instance) == "terminated")


def test_a_container_ends_with_its_instance(aws: LocalAWS, clients: Clients) -> None:
    instance = launch(clients, 'python -c "import time; time.sleep(600)"')
    wait_for(lambda: f"{instance}/1" in aws.status().containers, "the container")
    clients.ec2.terminate_instances(InstanceIds=[instance])
    wait_for(lambda: f"{instance}/1" not in aws.status().containers, "its end")


def test_user_data_is_parsed_like_cloud_init() -> None:
    boot = parse(TEMPLATE.format(command='env B=2 python -c "1 + 1"'))
    assert boot is not None
    (run,) = boot.runs
    assert (run.image, run.environment) == ("some/image:1", {"A": "1 2"})
    assert run.argv == ("env", "B=2", "python", "-c", "1 + 1")
    assert (boot.installs_docker, boot.shuts_down) == (True, True)


def test_user_data_without_containers_is_ignored() -> None:
    assert parse("") is None
    assert parse("#!/bin/bash\ndocker run any") is None
    assert parse("#cloud-config\nruncmd: [ls]") is None
    assert parse("#cloud-config\nruncmd: [") is None
    assert parse("#cloud-config\n") is None


def test_another_image_runs_in_its_own_python_with_its_address_as_an_option() -> None:
    images = Images({"daskdev/": sys.executable})
    argv = ["env", "B=2", "python", "-m", "distributed.cli.dask_scheduler"]
    environment = {"PATH": "/bin", "PYTHONPATH": "/ours"}
    words, own = images.dress("daskdev/dask:1", argv, environment, "127.9.0.4")
    folder = str(Path(sys.executable).parent)
    told = ["--host", "127.9.0.4", "--dashboard-address", "127.9.0.4:8787"]
    assert words == [f"{folder}/python", "-m", "distributed.cli.dask_scheduler", *told]
    assert own == {"PATH": f"{folder}:/bin", "B": "2"}


def test_a_worker_from_a_specification_gets_its_address_too() -> None:
    argv = ["python", "-m", "distributed.cli.dask_spec", "tls://x", "--spec", '{"cls": "a.B", "opts": {"name": "n"}}']
    words, _ = Images({"daskdev/": sys.executable}).dress("daskdev/dask:1", argv, {}, "127.9.0.4")
    told = {"host": "127.9.0.4", "dashboard_address": "127.9.0.4:0"}
    assert json.loads(words[-1]) == {"cls": "a.B", "opts": {"name": "n", **told}}


def test_other_commands_and_commands_with_an_address_are_unchanged() -> None:
    images = Images({"daskdev/": sys.executable})
    addressed = ["dask-worker", "tcp://x", "--host", "127.1.2.3", "--dashboard-address", "127.1.2.3:0"]
    for argv in (addressed, ["no-such", "dask"]):
        assert images.dress("daskdev/dask:1", argv, {}, "127.9.0.4")[0] == argv


def test_unmapped_images_run_in_the_python_of_the_embedded_aws() -> None:
    images = Images({"daskdev/": sys.executable})
    assert images.dress("ours", ["dask-worker"], {"PYTHONPATH": "a"}, "x") == (["dask-worker"], {"PYTHONPATH": "a"})
