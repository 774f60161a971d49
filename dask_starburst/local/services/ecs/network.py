"""Network interfaces that tasks of network mode ``awsvpc`` have for themselves."""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping
from typing import Any

from moto.ec2.models import ec2_backends

from dask_starburst.local.backend.state import Interface
from dask_starburst.local.backend.world import ACCOUNT
from dask_starburst.local.http.protocols import Request
from dask_starburst.local.services.ecs.common import invalid

_MOST_SUBNETS = 16
_MOST_SECURITY_GROUPS = 5
_SHARED_ADDRESS = "127.0.0.1"


class Interfaces:
    """Makes them in moto's EC2, where everybody sees them, and deletes them.

    Parameters
    ----------
    region : str
        The region.
    aliases : bool
        Whether each has an address of its own. If not, all of them are at 127.0.0.1.
    seed : int
        What the choice of subnets starts from.
    """

    def __init__(self, region: str, aliases: bool, seed: int = 0) -> None:
        self._backend: Any = ec2_backends[ACCOUNT][region]
        self._aliases = aliases
        self._rng = random.Random(f"{seed}/subnets")

    def wanted(self, document: Mapping[str, Any], request: Request, fargate: bool) -> dict[str, Any] | None:
        """Return the awsvpcConfiguration of a RunTask, checked; None where tasks have no interface of their own.

        Raises
        ------
        ServiceError
            It is missing, superfluous, or names what does not exist.
        """
        wanted = (request.get("networkConfiguration") or {}).get("awsvpcConfiguration")
        if document["networkMode"] != "awsvpc":
            if wanted is not None:
                raise invalid("Network Configuration is not valid for the given networkMode of this task definition.")
            return None
        if wanted is None:
            raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
        if wanted.get("assignPublicIp") == "ENABLED" and not fargate:
            raise invalid("Assign public IP is not supported for this launch type.")
        self._check_names(wanted.get("subnets") or [], wanted.get("securityGroups") or [])
        return dict(wanted)

    def zones(self, wanted: Mapping[str, Any]) -> frozenset[str]:
        """Return the availability zones of the subnets."""
        return frozenset(self._subnet(name).availability_zone for name in wanted["subnets"])

    def create(self, wanted: Mapping[str, Any], zone: str | None = None) -> Interface:
        """Make an interface in one of the subnets, of a zone if one is given."""
        subnets = [self._subnet(name) for name in wanted["subnets"]]
        subnet = self._rng.choice([one for one in subnets if zone in (None, one.availability_zone)])
        attachment = str(uuid.uuid4())
        made = self._backend.create_network_interface(
            subnet,
            subnet.get_available_subnet_ip(None),
            group_ids=wanted.get("securityGroups") or None,
            description=f"arn:aws:ecs:{self._backend.region_name}:{ACCOUNT}:attachment/{attachment}",
        )
        made.status = "in-use"
        address = made.private_ip_address if self._aliases else _SHARED_ADDRESS
        if not self._aliases:
            made.private_ip_address = address
            made.private_ip_addresses = [{"Primary": True, "PrivateIpAddress": address}]
        if wanted.get("assignPublicIp") == "ENABLED":
            made.public_ip = address  # which can be reached here, as that of instances
        return Interface(made.id, attachment, subnet.id, subnet.availability_zone, address, made.mac_address)

    def delete(self, interface: Interface) -> None:
        """Delete an interface. Nothing happens if somebody has done so."""
        if self._backend.enis.pop(interface.id, None) is not None:
            self._subnet(interface.subnet).del_subnet_ip(interface.private_ip)

    def _subnet(self, name: str) -> Any:
        return next(one for one in self._backend.describe_subnets() if one.id == name)

    def _check_names(self, subnets: list[str], groups: list[str]) -> None:
        if not subnets:
            raise invalid("subnets can not be empty.")
        if len(subnets) > _MOST_SUBNETS:
            raise invalid(f"subnets can have at most {_MOST_SUBNETS} items.")
        if len(groups) > _MOST_SECURITY_GROUPS:
            raise invalid(f"securityGroups can have at most {_MOST_SECURITY_GROUPS} items.")
        known = {one.id for one in self._backend.describe_subnets()}
        for name in subnets:
            if name not in known:
                raise _not_found("subnet", name, f"The subnet ID '{name}' does not exist", "InvalidSubnetID.NotFound")
        for name in groups:
            if self._backend.get_security_group_from_id(name) is None:
                message = f"The security group '{name}' does not exist"
                raise _not_found("security group", name, message, "InvalidGroup.NotFound")


def _not_found(kind: str, name: str, message: str, code: str) -> Exception:
    return invalid(f"Error retrieving {kind} information for [{name}]: {message} (ErrorCode: {code})")
