"""A running cluster as boto3 and the AWS CLI show it, as in the how-to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dask.distributed import Client

from dask_starburst import StarburstCluster
from dask_starburst.local import LocalAWS
from tests.support.cluster_asserts import wait_until

AWS_CLI = Path(sys.executable).with_name("aws")


@pytest.fixture(scope="module")
def pool(aws: LocalAWS) -> Iterator[str]:
    with (
        StarburstCluster(
            cloud="local", endpoint_url=aws.endpoint_url, n_workers=1, quiet=True, tags={"team": "research"}
        ) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(1, timeout=60)
        client.run(lambda: print("seen from outside", flush=True))
        assert cluster._session is not None
        assert cluster._session.pool is not None
        yield cluster._session.pool.name


def messages(events: dict[str, Any]) -> str:
    return "\n".join(event["message"] for event in events["events"])


def test_boto3_reads_the_pool_the_tasks_and_the_logs(aws: LocalAWS, pool: str) -> None:
    ecs, logs = aws.client("ecs"), aws.client("logs")
    [cluster] = ecs.describe_clusters(clusters=[pool])["clusters"]
    assert cluster["runningTasksCount"] == 2
    tasks = ecs.describe_tasks(cluster=pool, tasks=ecs.list_tasks(cluster=pool)["taskArns"], include=["TAGS"])["tasks"]
    assert {t["lastStatus"] for t in tasks} == {"RUNNING"}
    assert all({"key": "team", "value": "research"} in t["tags"] for t in tasks)
    groups = aws.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert {g["AutoScalingGroupName"]: g["DesiredCapacity"] for g in groups} == {f"{pool}-head": 1, f"{pool}-spot": 1}
    request = {"logGroupName": "/starburst", "logStreamNamePrefix": f"{pool}/worker/"}
    wait_until(lambda: "seen from outside" in messages(logs.filter_log_events(**request)), 60, "the line is shipped")


def test_managed_scaling_is_off_and_every_instance_is_closed_by_default(aws: LocalAWS, pool: str) -> None:
    ec2 = aws.client("ec2")
    providers = aws.client("ecs").describe_capacity_providers(capacityProviders=[f"{pool}-spot", f"{pool}-head"])
    for provider in providers["capacityProviders"]:
        managed = provider["autoScalingGroupProvider"]
        assert managed["managedScaling"]["status"] == "DISABLED"
        assert managed["managedTerminationProtection"] == managed["managedDraining"] == "DISABLED"
    reservations = ec2.describe_instances(Filters=[{"Name": "instance-state-name", "Values": ["running"]}])
    instances = [i for r in reservations["Reservations"] for i in r["Instances"]]
    markets = sorted(i.get("InstanceLifecycle", "on-demand") for i in instances)
    assert markets == ["on-demand", "spot"]
    groups = {g["GroupId"] for i in instances for g in i["SecurityGroups"]}
    rules = [
        p for g in ec2.describe_security_groups(GroupIds=sorted(groups))["SecurityGroups"] for p in g["IpPermissions"]
    ]
    admitted = {r["CidrIp"] for p in rules for r in p.get("IpRanges", [])}
    assert admitted == {"127.0.0.1/32"}
    assert {p["FromPort"] for p in rules if p.get("IpRanges")} == {8786, 8787}
    for version in ec2.describe_launch_templates()["LaunchTemplates"]:
        described = ec2.describe_launch_template_versions(LaunchTemplateId=version["LaunchTemplateId"])
        data = described["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True


def cli(aws: LocalAWS, *words: str) -> Any:
    env = {**os.environ, **aws.environment, "AWS_PAGER": "", "AWS_CONFIG_FILE": "/dev/null"}
    done = subprocess.run([AWS_CLI, *words, "--output", "json"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.skipif(not AWS_CLI.exists(), reason="the AWS CLI is not installed: pip install awscli")
def test_the_aws_cli_reads_the_same(aws: LocalAWS, pool: str) -> None:
    assert len(cli(aws, "ecs", "list-tasks", "--cluster", pool)["taskArns"]) == 2
    shown = cli(aws, "autoscaling", "describe-auto-scaling-groups", "--auto-scaling-group-names", f"{pool}-spot")
    assert shown["AutoScalingGroups"][0]["DesiredCapacity"] == 1
    streams = cli(aws, "logs", "describe-log-streams", "--log-group-name", "/starburst")["logStreams"]
    assert any(s["logStreamName"].startswith(f"{pool}/scheduler/") for s in streams)
