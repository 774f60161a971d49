"""The addresses that may reach the scheduler: an IPv4 range, and not half of the world."""

from __future__ import annotations

import ipaddress
from typing import Any

from dask_starburst.errors import BadArgument

#: The widest range: 10.0.0.0/8 is a company's network. Wider ones are a slip of the pen, or not the caller's.
WIDEST = 8
_EXAMPLE = "give your own address as '203.0.113.7/32', or your company's range as '203.0.113.0/24'"


def parse_caller(name: str, value: Any) -> str:
    """Return a range of addresses as EC2 writes it; a bare address is a range of one.

    Raises
    ------
    BadArgument
        It is not one, too wide, or one of IPv6.
    """
    try:
        network = ipaddress.ip_network(value.strip(), strict=False)
    except (ValueError, AttributeError):
        raise BadArgument(f"{name}={value!r:.200} is not an IPv4 address or range (CIDR); {_EXAMPLE}.") from None
    if network.version != 4:
        raise BadArgument(
            f"{name}={value!r} is IPv6, and the scheduler has an IPv4 address only; give the IPv4 address that you come"
            " from as '203.0.113.7/32', or leave it out to have it looked up."
        )
    if network.prefixlen < WIDEST:
        raise BadArgument(
            f"{name}={value!r} opens the scheduler to {network.num_addresses:,} addresses, much of the whole world;"
            f" {_EXAMPLE}."
        )
    if network.is_unspecified or network.is_multicast or network.is_reserved:
        raise BadArgument(f"{name}={value!r} contains no address that a client can have; {_EXAMPLE}.")
    return str(network)
