"""Asking the instance metadata service (IMDSv2) about the instance that we run on."""

from __future__ import annotations

import os
from urllib.request import ProxyHandler, Request, build_opener

#: The link-local address of every instance's metadata service.
_DEFAULT = "http://169.254.169.254/"
_TOKEN_SECONDS = "300"
_TIMEOUT = 5

_opener = build_opener(ProxyHandler({}))  # never through a proxy


def own_address() -> str:
    """Return the private IPv4 address of this instance.

    In host mode it is the container's own. It has to be given to Dask, which would else listen
    everywhere and guess which address others can reach.
    """
    return read("latest/meta-data/local-ipv4")


def own_instance() -> str:
    """Return the EC2 id of this instance."""
    return read("latest/meta-data/instance-id")


def read(path: str) -> str:
    """Return one metadata value, with a fresh token as IMDSv2 wants it."""
    root = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _DEFAULT).rstrip("/") + "/"
    lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": _TOKEN_SECONDS}
    token = _open(Request(root + "latest/api/token", method="PUT", headers=lifetime))
    return _open(Request(root + path, headers={"X-aws-ec2-metadata-token": token}))


def _open(request: Request) -> str:
    with _opener.open(request, timeout=_TIMEOUT) as answer:
        return str(answer.read().decode())
