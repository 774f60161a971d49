"""The identity and the public address of the caller."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

from dask_starburst.aws.addresses import is_loopback
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError

#: The most bytes of an answer; an address has at most 15.
_MOST = 64


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity of the credentials: the account id, and the ARN of the user or assumed role."""

    account: str
    arn: str

    @property
    def partition(self) -> str:
        """The AWS partition of the account: ``aws``, ``aws-cn`` or ``aws-us-gov``."""
        return self.arn.split(":")[1]


async def caller(aws: AWS) -> Caller:
    """Return the caller's identity; as the first call it shows whether the credentials work."""
    answer = await aws.call("sts", "GetCallerIdentity")
    return Caller(str(answer["Account"]), str(answer["Arn"]))


async def caller_cidr(url: str) -> str:
    """Return the CIDR of this computer's public address.

    Parameters
    ----------
    url : str
        A page that returns the caller's address, such as AWS's checkip.

    Raises
    ------
    AWSError
        The page cannot be read or does not return an address.
    """
    try:
        return _admissible(await asyncio.to_thread(_read, url), url)
    except (OSError, HTTPException, ValueError) as error:
        raise AWSError(
            f"the public address of this computer could not be determined from {url} ({error}); give the range that may"
            ' reach the scheduler: network={"caller": "203.0.113.7/32"}.'
        ) from error


def _admissible(text: str, url: str) -> str:
    """Return the CIDR of one address, if it is a possible address of a client of this page."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # also a range: 0.0.0.0/0 would open the scheduler to the Internet
        raise ValueError(f"it answered {text!r:.80}, which is not an address") from None
    if address.version != 4:
        raise ValueError(f"it answered {address}, and the scheduler has an IPv4 address only")
    near = is_loopback(url)
    if address.is_multicast or not (address.is_loopback if near else address.is_global):
        raise ValueError(f"it answered {address}, which is not a {'loopback' if near else 'public'} address")
    return f"{address}/32"


def _read(url: str) -> str:
    # Never use HTTP_PROXY for a loopback URL.
    handlers = [ProxyHandler({})] if is_loopback(url) else []
    with build_opener(*handlers).open(url, timeout=10) as answer:
        body = answer.read(_MOST + 1)
    if len(body) > _MOST:
        raise ValueError(f"it answered more than {_MOST} bytes, {body[:40]!r}…, which is not an address")
    return str(body.decode("ascii")).strip()
