"""A pool in GovCloud and in China: ARNs, principals and endpoints are those of the partition."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from dask_starburst.aws.patience import Patience
from dask_starburst.aws.session import AWS
from dask_starburst.fleet.blueprint import available_types, blueprint
from dask_starburst.fleet.pool.account import Account, set_up
from dask_starburst.fleet.pool.pool import make
from dask_starburst.local import LocalAWS
from dask_starburst.plan.requests.pool import PoolNames
from dask_starburst.settings import Settings

PARTITIONS = {"cn-north-1": ("aws-cn", "amazonaws.com.cn"), "us-gov-west-1": ("aws-us-gov", "amazonaws.com")}


@pytest.fixture(scope="module", params=["cn-north-1", pytest.param("us-gov-west-1", marks=pytest.mark.slow)])
def local(request: pytest.FixtureRequest) -> Iterator[LocalAWS]:
    with LocalAWS(region=request.param, processes=False, timing="none") as running:
        yield running


@pytest.fixture(scope="module")
def made(local: LocalAWS) -> Account:
    """The account after a pool was made and its scheduler's instance has booted."""

    async def start() -> Account:
        aws = AWS(session=local.session())
        patience = Patience(60.0, lambda event: None)
        plan = blueprint(Settings.load(region=local.region, spot={"policy": "on-demand"}), "secret")
        account = await set_up(aws, plan.settings, plan.types, patience)
        spec = available_types(plan, account).spec(account)
        pool = await make(aws, spec, PoolNames(spec.pool_name(0)), "session", "127.0.0.1/32", (8786,), patience)
        await pool.open(1, aws.now() + 600, patience)
        await pool.set_desired(pool.placements[0], 1)
        while not local.instances() or local.instances()[0]["state"] != "running":
            await asyncio.sleep(0.02)
        aws.close()
        return account

    return asyncio.run(start())


def test_the_arns_are_those_of_the_partition(local: LocalAWS, made: Account) -> None:
    partition, _ = PARTITIONS[local.region]
    assert made.partition == partition
    roles = local.client("iam").list_roles()["Roles"]
    documents = [r["AssumeRolePolicyDocument"] for r in roles]
    for role in roles:
        for name in local.client("iam").list_role_policies(RoleName=role["RoleName"])["PolicyNames"]:
            shown = local.client("iam").get_role_policy(RoleName=role["RoleName"], PolicyName=name)
            documents.append(shown["PolicyDocument"])
    groups = local.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    clusters = local.client("ecs").describe_clusters(clusters=local.client("ecs").list_clusters()["clusterArns"])
    text = json.dumps([documents, groups, clusters["clusters"], roles], default=str)
    found = set(re.findall(r"arn:([\w-]+):", text))
    assert found == {partition}


def test_ec2_assumes_the_instance_role_as_the_partition_names_it(local: LocalAWS, made: Account) -> None:
    _, suffix = PARTITIONS[local.region]

    def principal(role: str) -> Any:
        document = local.client("iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        return document["Statement"][0]["Principal"]["Service"]

    assert principal("starburst-instance") == f"ec2.{suffix}"
    assert principal("starburst-execution") == "ecs-tasks.amazonaws.com"


def test_an_instance_reads_the_suffix_of_its_endpoints_from_its_metadata(local: LocalAWS, made: Account) -> None:
    base = f"{local.private_url('imds', local.instances()[0]['id'])}/latest"
    seconds = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    with urllib.request.urlopen(urllib.request.Request(f"{base}/api/token", method="PUT", headers=seconds)) as reply:
        token = reply.read().decode()
    headers = {"X-aws-ec2-metadata-token": token}
    with urllib.request.urlopen(urllib.request.Request(f"{base}/meta-data/services/domain", headers=headers)) as reply:
        assert reply.read().decode() == PARTITIONS[local.region][1]
