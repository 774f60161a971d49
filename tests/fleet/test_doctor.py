"""``starburst doctor`` finds what would keep a launch from working, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from dask_starburst.fleet.doctor import Finding, examine, healthy
from dask_starburst.local import LocalAWS, faults
from dask_starburst.settings import Settings
from tests.support.furnished import ask, furnish


@pytest.fixture(scope="module")
def account(embedded: LocalAWS) -> LocalAWS:
    embedded.reset()
    furnish(embedded)
    return embedded


@pytest.fixture(autouse=True)
def without_faults(account: LocalAWS) -> Iterator[None]:
    yield
    account.play([faults.Clear()])


def findings(account: LocalAWS, **settings: Any) -> dict[str, Finding]:
    found = ask(account, lambda aws: examine(aws, Settings.load(region=aws.region, arch="arm64", **settings)))
    return {each.name: each for each in found}


def test_an_account_that_is_set_up_is_healthy(account: LocalAWS) -> None:
    before = account.status().calls
    found = findings(account)
    assert {name: one for name, one in found.items() if one.state != "ok"} == {}
    assert "123456789012" in found["credentials"].text
    assert "igw-" in found["way out"].text
    assert "vCPUs free" in found["quotas"].text
    changes = {name for name, count in account.status().calls.items() if count > before.get(name, 0)}
    assert not [name for name in changes if not name.partition(":")[2].startswith(("Describe", "List", "Get"))]


def test_a_denied_check_is_a_warning_and_the_others_go_on(account: LocalAWS) -> None:
    denied = "You are not authorized to perform this operation."
    account.inject("ec2:DescribeRegions", "UnauthorizedOperation", denied, status=403)
    found = findings(account)
    assert found["region"].state == "warning"
    assert "ec2:DescribeRegions" in found["region"].text
    assert {one.state for name, one in found.items() if name != "region"} == {"ok"}


def test_refused_credentials_end_the_examination(account: LocalAWS) -> None:
    account.inject("sts:GetCallerIdentity", "ExpiredToken", "The security token is expired", status=403)
    found = findings(account)
    assert found["credentials"].state == "failed"
    assert "Log in again" in found["credentials"].text
    assert found.keys() == {"credentials", "clock", "versions"}


def test_a_quota_that_no_worker_fits_in_fails_and_one_for_some_workers_warns(account: LocalAWS) -> None:
    account.play([faults.Quota(market="spot", vcpus=4)])
    assert findings(account)["quotas"].state == "ok"
    assert findings(account, n_workers=3)["quotas"].state == "warning"
    account.play([faults.Quota(market="spot", vcpus=0)])
    found = findings(account, n_workers=3)
    assert found["quotas"].state == "failed"
    assert not healthy(found.values())


def test_the_way_out_of_the_subnet_is_judged(account: LocalAWS) -> None:
    ec2 = account.client("ec2")
    [table] = ec2.describe_route_tables()["RouteTables"]
    [gateway] = [route["GatewayId"] for route in table["Routes"] if route["GatewayId"].startswith("igw-")]
    default = {"RouteTableId": table["RouteTableId"], "DestinationCidrBlock": "0.0.0.0/0"}
    ec2.delete_route(**default)
    try:
        closed = findings(account)["way out"]
        assert closed.state == "failed"
        assert "private" in closed.fix
        shut = findings(account, network={"access": "private"})["network"]
        assert shut.state == "failed"
        assert "ecr.dkr" in shut.text
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        nat = ec2.create_nat_gateway(SubnetId=subnet, ConnectivityType="private")["NatGateway"]["NatGatewayId"]
        ec2.create_route(**default, NatGatewayId=nat)
        assert findings(account)["way out"].state == "failed", "public addresses need an Internet gateway"
        behind = findings(account, network={"access": "private"})["way out"]
        assert behind.state == "warning"
        assert nat in behind.text
        assert "S3" in behind.fix
        ec2.delete_route(**default)
    finally:
        ec2.create_route(**default, GatewayId=gateway)


def test_a_subnet_that_does_not_exist_fails(account: LocalAWS) -> None:
    network = replace(Settings().network, subnet="subnet-0123456789abcdef0")
    found = ask(account, lambda aws: examine(aws, replace(Settings.load(region=aws.region), network=network)))
    [failed] = [each for each in found if each.state == "failed"]
    assert failed.name == "network"
    assert "subnet-0123456789abcdef0" in failed.text


def test_missing_roles_expired_pools_and_a_wrong_clock_are_named(account: LocalAWS) -> None:
    used = furnish(account, in_use=True)
    in_use = findings(account)["leftovers"]
    assert in_use.state == "ok"
    account.advance(4000)
    found = findings(account)
    assert found["leftovers"].state == "warning"
    assert used in found["leftovers"].text
    assert "gc" in found["leftovers"].fix
    assert found["clock"].state == "failed"
    assert "behind" in found["clock"].text
    account.client("iam").delete_role_policy(RoleName="starburst-execution", PolicyName="starburst-execution")
    account.client("iam").delete_role(RoleName="starburst-execution")
    roles = findings(account)["roles"]
    assert roles.state == "warning"
    assert "starburst-execution" in roles.text
