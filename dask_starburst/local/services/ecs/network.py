"""Network interfaces of tasks in network mode ``awsvpc``."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from typing import Any

from moto.ec2.models import ec2_backends

from dask_starburst.local.backend.account import partition
from dask_starburst.local.backend.backend import ACCOUNT
from dask_starburst.local.backend.state import Interface
from dask_starburst.local.http.protocols import Request
from dask_starburst.local.services.ecs.common import invalid

_MOST_SUBNETS = 16
_MOST_SECURITY_GROUPS = 5
_SHARED_ADDRESS = "127.0.0.1"


class Interfaces:
    """Creates and deletes the interfaces in moto's EC2, where EC2's API lists them.

    Parameters
    ----------
    region : str
        The region.
    aliases : bool
        Whether each has its own address. If not, all use 127.0.0.1.
    seed : int
        The seed for choosing subnets.
    """

    def __init__(self, region: str, aliases: bool, seed: int = 0) -> None:
        self._moto: Any = ec2_backends[ACCOUNT][region]
        self._aliases = aliases
        self._rng = random.Random(f"{seed}/subnets")

    def requested(self, document: Mapping[str, Any], request: Request, fargate: bool) -> dict[str, Any] | None:
        """Return the validated awsvpcConfiguration of a RunTask; None if the tasks have no interface.

        Raises
        ------
        ServiceError
            It is missing, not allowed, or refers to resources that do not exist.
        """
        requested = (request.get("networkConfiguration") or {}).get("awsvpcConfiguration")
        if document["networkMode"] != "awsvpc":
            if requested is not None:
                raise invalid("Network Configuration is not valid for the given networkMode of this task definition.")
            return None
        if requested is None:
            raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
        if requested.get("assignPublicIp") == "ENABLED" and not fargate:
            raise invalid("Assign public IP is not supported for this launch type.")
        self._check_names(requested.get("subnets") or [], requested.get("securityGroups") or [])
        return dict(requested)

    def zones(self, requested: Mapping[str, Any]) -> frozenset[str]:
        """Return the availability zones of the subnets."""
        return frozenset(self._subnet(name).availability_zone for name in requested["subnets"])

    def create(self, requested: Mapping[str, Any], zone: str | None = None) -> Interface:
        """Create an interface in one of the subnets, in `zone` if given."""
        subnets = [self._subnet(name) for name in requested["subnets"]]
        subnet = self._rng.choice([one for one in subnets if zone in (None, one.availability_zone)])
        attachment = str(uuid.uuid4())
        made = self._moto.create_network_interface(
            subnet,
            subnet.get_available_subnet_ip(None),
            group_ids=requested.get("securityGroups") or None,
            description=f"arn:{partition()}:ecs:{self._moto.region_name}:{ACCOUNT}:attachment/{attachment}",
        )
        made.status = "in-use"
        address = made.private_ip_address if self._aliases else _SHARED_ADDRESS
        if not self._aliases:
            made.private_ip_address = address
            made.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
        if requested.get("assignPublicIp") == "ENABLED":
            made.public_ip = address  # reachable here, like those of instances
        return Interface(made.id, attachment, subnet.id, subnet.availability_zone, address, made.mac_address)

    def delete(self, interface: Interface) -> None:
        """Delete an interface. No-op if it is deleted already."""
        if self._moto.enis.pop(interface.id, None) is not None:
            self._subnet(interface.subnet).del_subnet_ip(interface.private_ip)

    def _subnet(self, name: str) -> Any:
        return next(one for one in self._moto.describe_subnets() if one.id == name)

    def _check_names(self, subnets: list[str], groups: list[str]) -> None:
        if not subnets:
            raise invalid("subnets can not be empty.")
        if len(subnets) > _MOST_SUBNETS:
            raise invalid(f"subnets can have at most {_MOST_SUBNETS} items.")
        if len(groups) > _MOST_SECURITY_GROUPS:
            raise invalid(f"securityGroups can have at most {_MOST_SECURITY_GROUPS} items.")
        known = {one.id for one in self._moto.describe_subnets()}
        for name in subnets:
            if name not in known:
                raise _not_found("subnet", name, f"The subnet ID '{name}' does not exist", "InvalidSubnetID.NotFound")
        for name in groups:
            if self._moto.get_security_group_from_id(name) is None:
                message = f"The security group '{name}' does not exist"
                raise _not_found("security group", name, message, "InvalidGroup.NotFound")


def _not_found(kind: str, name: str, message: str, code: str) -> Exception:
    return invalid(f"Error retrieving {kind} information for [{name}]: {message} (ErrorCode: {code})")
