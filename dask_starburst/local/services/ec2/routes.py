"""The way of an instance without a public address to ECS: by NAT, or by endpoints in its VPC."""

from __future__ import annotations

from typing import Any

#: What an ECS agent calls ("Amazon ECS interface VPC endpoints", ECS developer guide).
_ENDPOINTS = ("ecs", "ecs-agent", "ecs-telemetry")


def has_way_out(moto: Any, subnet: str, vpc: str) -> bool:
    """Return whether a subnet has a default route other than to an Internet gateway, or its VPC has the endpoints.

    Parameters
    ----------
    moto : EC2Backend
        The EC2 of the region.
    subnet, vpc : str
        Their ids.
    """
    own = moto.describe_route_tables(filters={"association.subnet-id": [subnet]})
    main = {"vpc-id": vpc, "association.main": "true"}
    for table in own or moto.describe_route_tables(filters=main):
        for route in table.routes:
            if route.destination_cidr_block == "0.0.0.0/0" and route.gateway is None:
                return True
    services = {endpoint.service_name for endpoint in moto.vpc_end_points.values() if endpoint.vpc_id == vpc}
    return all(any(name.endswith(f".{each}") for name in services) for each in _ENDPOINTS)
