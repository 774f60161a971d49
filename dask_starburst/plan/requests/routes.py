"""How a subnet reaches the Internet, from its route table: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: Services whose endpoints a subnet without a way out needs: the ECS agent, images, logs and secrets ("Amazon ECS
#: interface VPC endpoints", ECS Developer Guide; "Amazon ECR interface VPC endpoints", ECR User Guide).
ENDPOINTS = ("ecs", "ecs-agent", "ecs-telemetry", "ecr.api", "ecr.dkr", "s3", "logs", "ssm")
_EVERYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class WayOut:
    """The target of a subnet's default route.

    Attributes
    ----------
    kind : str
        ``internet gateway``: instances with a public address reach the Internet and can be reached; ``NAT``: they reach
        it; ``other``: a transit gateway, a peering or an appliance; ``none``.
    target : str
        The id of the gateway; empty for ``none``.
    """

    kind: Literal["internet gateway", "NAT", "other", "none"]
    target: str = ""


def way_out(tables: Iterable[Mapping[str, Any]], subnet: str) -> WayOut:
    """Return where the default route of a subnet leads.

    Parameters
    ----------
    tables : iterable of mapping
        The route tables of its VPC, as DescribeRouteTables returns them. A subnet without a table of its own has the
        main one ("Subnet route tables", VPC User Guide).
    subnet : str
        Its id.
    """
    found = tuple(tables)
    own = [table for table in found if any(each.get("SubnetId") == subnet for each in _associations(table))]
    main = [table for table in found if any(each.get("Main") for each in _associations(table))]
    for route in (route for table in (own or main)[:1] for route in table.get("Routes", [])):
        if route.get("DestinationCidrBlock") == _EVERYWHERE and route.get("State") != "blackhole":
            return _way(route)
    return WayOut("none")


def _associations(table: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    found: Iterable[Mapping[str, Any]] = table.get("Associations", [])
    return found


def _way(route: Mapping[str, Any]) -> WayOut:
    if str(route.get("GatewayId", "")).startswith("igw-"):
        return WayOut("internet gateway", route["GatewayId"])
    if route.get("NatGatewayId"):
        return WayOut("NAT", route["NatGatewayId"])
    keys = ("GatewayId", "TransitGatewayId", "VpcPeeringConnectionId", "NetworkInterfaceId", "InstanceId")
    return WayOut("other", next((str(route[key]) for key in keys if route.get(key)), "unknown"))


def lacking_endpoints(names: Iterable[str]) -> tuple[str, ...]:
    """Return the services that none of these VPC endpoints leads to.

    `names` are service names such as ``com.amazonaws.us-east-1.ecr.api``.
    """
    # com.amazonaws.REGION.SERVICE, in China cn.com.amazonaws.REGION.SERVICE
    known = {name.partition("amazonaws.")[2].partition(".")[2] for name in names}
    return tuple(each for each in ENDPOINTS if each not in known)
