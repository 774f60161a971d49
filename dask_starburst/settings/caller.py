"""The IPv4 addresses that may reach the scheduler."""

from __future__ import annotations

import ipaddress
from typing import Any

from dask_starburst.errors import BadArgument

#: The widest range: 10.0.0.0/8 is a company's network. Wider ranges are a mistake.
WIDEST = 8
_EXAMPLE = "give your own address as '203.0.113.7/32', or your company's range as '203.0.113.0/24'"


def parse_caller(name: str, value: Any) -> str:
    """Parse an IPv4 address or range (CIDR); a single address becomes a /32 range.

    Raises
    ------
    BadArgument
        The value is not a valid range, is too wide, or is IPv6.
    """
    try:
        network = ipaddress.ip_network(value.strip(), strict=False)
    except (ValueError, AttributeError):
        raise BadArgument(f"{name}={value!r:.200} is not an IPv4 address or range (CIDR); {_EXAMPLE}.") from None
    if network.version != 4:
        raise BadArgument(
            f"{name}={value!r} is IPv6, but the scheduler has only an IPv4 address; give your public IPv4 address"
            " as '203.0.113.7/32', or leave it out to look it up."
        )
    if network.prefixlen < WIDEST:
        raise BadArgument(f"{name}={value!r} opens the scheduler to {network.num_addresses:,} addresses; {_EXAMPLE}.")
    if network.is_unspecified or network.is_multicast or network.is_reserved:
        raise BadArgument(f"{name}={value!r} contains no valid client address; {_EXAMPLE}.")
    return str(network)
