"""Loopback URLs, proxies and this computer's own addresses."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Return whether the host of a URL is a loopback address."""
    host = (urlsplit(url).hostname or "").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def past_proxies(url: str | None) -> dict[str, Any]:
    """Return the botocore configuration that bypasses HTTP_PROXY for loopback URLs."""
    return {"proxies": {}} if url and is_loopback(url) else {}


def local_address(towards: str) -> str:
    """Return this computer's address on the route to another one; empty if there is no route. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])
