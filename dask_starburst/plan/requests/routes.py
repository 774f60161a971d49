"""How a subnet reaches the Internet, from its route table: a pure decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: Services whose endpoints a subnet without a way out needs: the ECS agent, images, logs, secrets, and the lease
#: ("Amazon ECS interface VPC endpoints", ECS Developer Guide; "Amazon ECR interface VPC endpoints", ECR User Guide).
ENDPOINTS = ("ecs", "ecs-agent", "ecs-telemetry", "ecr.api", "ecr.dkr", "s3", "logs", "ssm", "autoscaling")
#: ``public``: instances have public addresses and reach AWS through an Internet gateway. ``private``: they have private
#: addresses only, and reach AWS through NAT or VPC endpoints.
Access = Literal["public", "private"]
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


def why_not(way: WayOut, lacking: Sequence[str], access: Access) -> str:
    """Return what a subnet lacks for instances to reach AWS with this access; empty if they can.

    Parameters
    ----------
    way : WayOut
        The subnet's way out.
    lacking : sequence of str
        The services that its VPC has no endpoints for.
    access : {"public", "private"}
        Whether instances have public addresses.
    """
    if access == "public":
        found = way.kind == "internet gateway"
        return "" if found else "no route to an Internet gateway, which public addresses need"
    if way.kind in ("NAT", "other") or not lacking:
        return ""
    only = " but an Internet gateway, which needs public addresses" if way.kind == "internet gateway" else ""
    return f"no way out{only}, and the VPC has no endpoints for {', '.join(lacking)}"


def unreachable(why: Mapping[str, str], access: Access) -> str:
    """Return the sentence about subnets none of which has a way out, with what to give."""
    alike: dict[str, list[str]] = {}
    for subnet, reason in why.items():
        alike.setdefault(reason, []).append(subnet)
    found = "; ".join(
        f"{', '.join(names)} {'have' if len(names) > 1 else 'has'} {reason}" for reason, names in alike.items()
    )
    if access == "public":
        advice = 'network={"access": "private"} if your computer is in the VPC, or a public subnet'
    else:
        advice = 'a subnet with a route to NAT: network={"access": "private", "subnets": ["subnet-…"]}'
    return f"instances could not reach AWS: {found}. Give {advice}."
