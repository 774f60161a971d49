"""How a subnet reaches the Internet."""

from __future__ import annotations

from typing import Any

import pytest

from dask_starburst.plan.requests.routes import ENDPOINTS, WayOut, lacking_endpoints, way_out

LOCAL = {"DestinationCidrBlock": "172.31.0.0/16", "GatewayId": "local", "State": "active"}


def table(*routes: dict[str, Any], subnet: str = "", main: bool = False) -> dict[str, Any]:
    association = {"Main": True} if main else {"SubnetId": subnet, "Main": False}
    return {"Associations": [association], "Routes": [LOCAL, *routes]}


def default(**target: str) -> dict[str, Any]:
    return {"DestinationCidrBlock": "0.0.0.0/0", "State": "active", **target}


@pytest.mark.parametrize(
    ("route", "way"),
    [
        (default(GatewayId="igw-1"), WayOut("internet gateway", "igw-1")),
        (default(NatGatewayId="nat-1"), WayOut("NAT", "nat-1")),
        (default(TransitGatewayId="tgw-1"), WayOut("other", "tgw-1")),
        (default(NetworkInterfaceId="eni-1"), WayOut("other", "eni-1")),
        (default(NatGatewayId="nat-1", State="blackhole"), WayOut("none")),
        ({"DestinationIpv6CidrBlock": "::/0", "GatewayId": "igw-1"}, WayOut("none")),
    ],
)
def test_the_default_route_of_the_subnets_own_table_counts(route, way):
    main = table(default(GatewayId="igw-main"), main=True)
    assert way_out([main, table(route, subnet="subnet-1")], "subnet-1") == way
    assert way_out([main, table(route, subnet="subnet-2")], "subnet-1") == WayOut("internet gateway", "igw-main")


def test_without_a_table_there_is_no_way():
    assert way_out([], "subnet-1") == WayOut("none")


@pytest.mark.parametrize("prefix", ["com.amazonaws.eu-west-1", "cn.com.amazonaws.cn-north-1"])
def test_missing_endpoints_are_named(prefix):
    there = [f"{prefix}.{name}" for name in ENDPOINTS]
    assert lacking_endpoints(there) == ()
    assert lacking_endpoints(there[1:]) == ENDPOINTS[:1]
    assert lacking_endpoints([]) == ENDPOINTS
