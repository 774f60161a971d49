"""Assertions of end-to-end tests: conditions that become true, and resources that a cluster leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psutil
from click.testing import CliRunner

from dask_starburst import StarburstCluster
from dask_starburst.cli import main
from dask_starburst.events import Event
from dask_starburst.local import LocalAWS

E = TypeVar("E", bound=Event)


def emitted(cluster: StarburstCluster, kind: type[E], since: int = 0) -> list[E]:
    """Return the events of a kind, without the first `since` events of the cluster."""
    return [event for event in list(cluster.events)[since:] if isinstance(event, kind)]


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Poll until the condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)  # each poll takes processor time of the server


def alive(pid: int) -> bool:
    """Whether a process runs. A zombie does not: a container may have no init process that reaps orphans."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def leftovers(aws: LocalAWS) -> dict[str, Any]:
    """Return the resources that clusters have left, by API and by process list; empty lists if there are none."""
    states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    reservations = aws.client("ec2").describe_instances(Filters=states)["Reservations"]
    groups = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    ecs = aws.client("ecs")
    instances = [i["InstanceId"] for r in reservations for i in r["Instances"]]
    return {
        "instances": instances,
        "tasks": [t for c in ecs.list_clusters()["clusterArns"] for t in ecs.list_tasks(cluster=c)["taskArns"]],
        "desired": [g["AutoScalingGroupName"] for g in groups if g["DesiredCapacity"] or _staying(g)],
        "parameters": _parameters(aws),
        "processes": _processes(aws, 0.0 if instances else 20.0),
    }


def _parameters(aws: LocalAWS) -> list[str]:
    """Return the secrets, and the claims that hold; a pool that is free keeps its freed claim."""
    pages = aws.client("ssm").get_paginator("get_parameters_by_path")
    answers = pages.paginate(Path="/starburst/", Recursive=True, WithDecryption=True)
    found = {p["Name"]: p["Value"] for page in answers for p in page["Parameters"]}
    return [name for name, value in found.items() if value != "-" and '"freed"' not in value]


def _staying(group: dict[str, Any]) -> bool:
    """Whether a group has an instance that is not terminating; terminating ones cost nothing."""
    return any(not i["LifecycleState"].startswith("Terminat") for i in group["Instances"])


def _processes(aws: LocalAWS, seconds: float) -> list[int]:
    """Return the processes that run as containers; wait for those on terminating instances."""
    deadline = time.monotonic() + seconds
    while True:
        running = [pid for pid in aws.status().containers.values() if alive(pid)]
        if not running or time.monotonic() > deadline:
            return running
        time.sleep(0.05)


def nothing_left(aws: LocalAWS) -> bool:
    return not _runs(aws) and not any(leftovers(aws).values())


def costs_nothing(aws: LocalAWS) -> bool:
    """Whether nothing is left that costs money; claims and secrets are free, and ``gc`` deletes them."""
    return not _runs(aws) and not any(left for name, left in leftovers(aws).items() if name != "parameters")


def _runs(aws: LocalAWS) -> bool:
    """Whether an instance runs: one cheap call, while `leftovers` creates boto3 clients and makes six calls."""
    return aws.status().instances_running > 0


def pools(aws: LocalAWS) -> list[str]:
    """Return the names of the pools that have groups."""
    groups = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    return sorted({t["Value"] for g in groups for t in g["Tags"] if t["Key"] == "starburst:pool"})


def objects(aws: LocalAWS) -> dict[str, list[str]]:
    """Return the resources of pools by kind, as their APIs return them."""
    ecs, ec2 = aws.client("ecs"), aws.client("ec2")
    tag = [{"Name": "tag-key", "Values": ["starburst:pool"]}]
    parameters = aws.client("ssm").get_parameters_by_path(Path="/starburst/", Recursive=True)["Parameters"]
    security_groups = ec2.describe_security_groups(Filters=tag)["SecurityGroups"]
    return {
        "groups": pools(aws),
        "clusters": ecs.list_clusters()["clusterArns"],
        "providers": [
            p["name"]
            for p in ecs.describe_capacity_providers()["capacityProviders"]
            if p["name"].startswith("starburst-")
        ],
        "definitions": ecs.list_task_definitions()["taskDefinitionArns"],
        "templates": ec2.describe_launch_templates(Filters=tag)["LaunchTemplates"],
        # Without the security group that all pools share.
        "security groups": [g["GroupName"] for g in security_groups if g["GroupName"] != "starburst"],
        "parameters": [p["Name"] for p in parameters],
    }


@contextmanager
def script_process(script: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in a separate Python process, and kill it at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def read_until(process: subprocess.Popen[str], part: str) -> str:
    """Read a script's output up to the line with `part`, and return that line."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if part in line:
            return line
    raise AssertionError(f"{part!r} was not printed:\n{''.join(lines)}")


def starburst(aws: LocalAWS, *words: str) -> str:
    """Run a ``starburst`` command in an account, and return its output."""
    result = CliRunner(env={**aws.environment, "COLUMNS": "200"}).invoke(main, words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output
