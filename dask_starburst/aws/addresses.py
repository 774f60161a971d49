"""Loopback URLs and proxies."""

from __future__ import annotations

import ipaddress
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
