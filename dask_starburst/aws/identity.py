"""Who calls, and from where."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from http.client import HTTPException
from urllib.request import ProxyHandler, build_opener

from dask_starburst.aws.addresses import is_loopback
from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError

#: Bytes of an answer; an address has 15 at the most.
_MOST = 64


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose credentials these are: the account's number, and the ARN of the user or the assumed role."""

    account: str
    arn: str


async def caller(aws: AWS) -> Caller:
    """Return who calls; the first call, which shows whether credentials work."""
    answer = await aws.call("sts", "GetCallerIdentity")
    return Caller(str(answer["Account"]), str(answer["Arn"]))


async def caller_cidr(url: str) -> str:
    """Return the CIDR of the address that this computer has on the Internet.

    Parameters
    ----------
    url : str
        A page that answers with the caller's address, such as AWS's checkip.

    Raises
    ------
    AWSError
        The page cannot be read or holds no address.
    """
    try:
        return _admissible(await asyncio.to_thread(_read, url), url)
    except (OSError, HTTPException, ValueError) as error:
        raise AWSError(
            f"your own address could not be found out at {url} ({error}); give the range that may"
            ' reach the scheduler: network={"caller": "203.0.113.7/32"}.'
        ) from error


def _admissible(text: str, url: str) -> str:
    """Return the range of one address, if it can be that of a client of this page."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:  # a range, too: a page that answers 0.0.0.0/0 would open the scheduler to everybody
        raise ValueError(f"it answered {text!r:.80}, which is not an address") from None
    if address.version != 4:
        raise ValueError(f"it answered {address}, and the scheduler has an IPv4 address only")
    near = is_loopback(url)
    if address.is_multicast or not (address.is_loopback if near else address.is_global):
        raise ValueError(f"it answered {address}, which is not an address of the Internet")
    return f"{address}/32"


def _read(url: str) -> str:
    # The computer itself is never reached through a proxy, whatever HTTP_PROXY says.
    handlers = [ProxyHandler({})] if is_loopback(url) else []
    with build_opener(*handlers).open(url, timeout=10) as answer:
        body = answer.read(_MOST + 1)
    if len(body) > _MOST:
        raise ValueError(f"it answered more than {_MOST} bytes, {body[:40]!r}…, which is not an address")
    return str(body.decode("ascii")).strip()
