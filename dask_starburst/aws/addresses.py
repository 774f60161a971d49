"""Where a URL leads: to this computer itself, or away from it."""

from __future__ import annotations

import ipaddress
from typing import Any
from urllib.parse import urlsplit


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this computer itself."""
    host = (urlsplit(url).hostname or "").lower()
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def past_proxies(url: str | None) -> dict[str, Any]:
    """Return botocore's configuration that keeps HTTP_PROXY from being asked for this computer itself."""
    return {"proxies": {}} if url and is_loopback(url) else {}
