"""How a subnet reaches the Internet."""

from __future__ import annotations

from typing import Any

import pytest

from dask_starburst.plan.requests.routes import (
    ENDPOINTS,
    Access,
    WayOut,
    lacking_endpoints,
    unreachable,
    way_out,
    why_not,
)

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


GATEWAY, NAT, TRANSIT, NONE = (
    WayOut("internet gateway", "igw-1"),
    WayOut("NAT", "nat-1"),
    WayOut("other", "tgw-1"),
    WayOut("none"),
)


@pytest.mark.parametrize(
    ("way", "lacking", "access", "holds"),
    [
        (GATEWAY, ENDPOINTS, "public", ""),
        (NAT, (), "public", "no route to an Internet gateway"),
        (NONE, (), "public", "no route to an Internet gateway"),
        (NAT, ENDPOINTS, "private", ""),
        (TRANSIT, ENDPOINTS, "private", ""),
        (GATEWAY, ENDPOINTS, "private", "no way out but an Internet gateway"),
        (GATEWAY, (), "private", ""),
        (NONE, (), "private", ""),
        (NONE, ("ecs",), "private", "no endpoints for ecs"),
    ],
)
def test_a_subnet_needs_a_way_that_fits_its_addresses(
    way: WayOut, lacking: tuple[str, ...], access: Access, holds: str
):
    why = why_not(way, lacking, access)
    assert holds in why
    assert bool(why) is bool(holds)


def test_subnets_with_the_same_lack_are_named_together():
    text = unreachable({"subnet-1": "no way out", "subnet-2": "no way out", "subnet-3": "a fault"}, "private")
    assert "subnet-1, subnet-2 have no way out; subnet-3 has a fault." in text
    assert 'network={"access": "private", "subnets": ["subnet-…"]}' in text
