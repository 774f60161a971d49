"""The state of the embedded AWS does not grow over many days."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any

#: The server runs in a separate process, because moto's state is global, and measures its own state.
PROGRAM = Path(__file__)
DAYS = 6
#: Collections with a maximum length rather than an expiry: past instances, and activities of a group.
BOUNDED = ("history", "activities")


def test_the_state_of_the_embedded_aws_does_not_grow_with_the_days() -> None:
    command = [sys.executable, "-m", "tests.local.test_month"]
    done = subprocess.run(command, cwd=PROGRAM.parents[2], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    early, late = json.loads(done.stdout.splitlines()[-1])
    assert early
    grown = {path: (early.get(path, 0), size) for path, size in late.items() if size > early.get(path, 0)}
    assert not [path for path in grown if not any(word in path for word in BOUNDED)], grown


def churn(server: Any, clients: dict[str, Any], days: int) -> None:
    """Run an instance and a task on it twice a day."""
    from tests.local.conftest import wait_for

    backend, autoscaling, ecs = server.backend, clients["autoscaling"], clients["ecs"]
    for _ in range(2 * days):
        autoscaling.set_desired_capacity(AutoScalingGroupName="group", DesiredCapacity=1)
        wait_for(lambda: any(each.connected for each in backend.registered.values()), "an instance registers")
        token = f"token-{backend.now()}"
        ecs.run_task(cluster="cluster", taskDefinition="task", clientToken=token)
        wait_for(lambda: {task.status for task in backend.tasks.values()} == {"RUNNING"}, "the task runs")
        for identity in backend.tasks:
            server._containers.end(f"{identity}/main", 0)
        wait_for(lambda: {task.status for task in backend.tasks.values()} == {"STOPPED"}, "the task is stopped")
        autoscaling.set_desired_capacity(AutoScalingGroupName="group", DesiredCapacity=0)
        wait_for(lambda: not backend.registered, "the instance deregisters")
        clients["ecr"].get_authorization_token()
        backend.clock.advance(12 * 3600.0)
        wait_for(lambda: not backend.ec2_instances and not backend.tasks, "EC2 and ECS remove them")


def make(clients: dict[str, Any]) -> None:
    import base64

    from tests.local.conftest import ARM

    image = clients["ssm"].get_parameter(Name=ARM)["Parameter"]["Value"]
    [subnet, *_] = [each["SubnetId"] for each in clients["ec2"].describe_subnets()["Subnets"]]
    user_data = base64.b64encode(b"#!/bin/bash\necho ECS_CLUSTER=cluster >> /etc/ecs/ecs.config\n").decode()
    data = {"ImageId": image, "InstanceType": "c7g.large", "UserData": user_data}
    clients["ec2"].create_launch_template(LaunchTemplateName="template", LaunchTemplateData=data)
    clients["autoscaling"].create_auto_scaling_group(
        AutoScalingGroupName="group",
        MinSize=0,
        MaxSize=1,
        VPCZoneIdentifier=subnet,
        LaunchTemplate={"LaunchTemplateName": "template"},
    )
    clients["ecs"].create_cluster(clusterName="cluster")
    clients["logs"].create_log_group(logGroupName="logs")
    clients["logs"].put_retention_policy(logGroupName="logs", retentionInDays=1)
    options = {"awslogs-group": "logs", "awslogs-region": "us-east-1", "awslogs-stream-prefix": "p"}
    container = {"name": "main", "image": "any", "memory": 64, "command": ["true"]}
    container["logConfiguration"] = {"logDriver": "awslogs", "options": options}
    clients["ecs"].register_task_definition(family="task", networkMode="host", containerDefinitions=[container])


def sizes(roots: dict[str, Any]) -> dict[str, int]:
    """Return the sizes of all collections by path."""
    found: dict[str, int] = {}
    seen: set[int] = set()

    def walk(thing: Any, path: str) -> None:
        if id(thing) in seen or path.count(".") > 12:
            return
        seen.add(id(thing))
        if isinstance(thing, dict):
            found[path] = found.get(path, 0) + len(thing)
            for part in list(thing.values()):
                walk(part, f"{path}{{}}")
        elif isinstance(thing, list | tuple | set | frozenset | deque):
            found[path] = found.get(path, 0) + len(thing)
            for part in list(thing):
                walk(part, f"{path}[]")
        elif type(thing).__module__.startswith(("dask_starburst", "moto")) and hasattr(thing, "__dict__"):
            for name, part in list(vars(thing).items()):
                walk(part, f"{path}.{name}")

    for name, root in roots.items():
        walk(root, name)
    return found


def main() -> None:
    import boto3
    from moto.ec2.models import ec2_backends
    from moto.logs.models import logs_backends

    from dask_starburst.local.backend.backend import ACCOUNT
    from dask_starburst.local.server import LocalServer, Options

    server = LocalServer(Options(timing="none", processes=False))
    server.serve()
    owner = server.backend.keys.owner
    session = boto3.Session(owner.access_key, owner.secret_key, region_name="us-east-1")
    names = ("autoscaling", "ec2", "ecr", "ecs", "logs", "ssm")
    clients = {name: session.client(name, endpoint_url=server.endpoint_url) for name in names}
    make(clients)
    roots = {"server": server, "ec2": ec2_backends[ACCOUNT]["us-east-1"], "logs": logs_backends[ACCOUNT]["us-east-1"]}
    churn(server, clients, DAYS // 3)
    early = sizes(roots)
    churn(server, clients, DAYS)
    print(json.dumps([early, sizes(roots)]))
    server.close()


if __name__ == "__main__":
    main()
