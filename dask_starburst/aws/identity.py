"""Who calls, and from where."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from urllib.request import urlopen

from dask_starburst.aws.session import AWS
from dask_starburst.errors import AWSError


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
        text = await asyncio.to_thread(_read, url)
        return str(ipaddress.ip_network(text))
    except (OSError, ValueError) as error:
        raise AWSError(
            f"your own address could not be found out at {url} ({error}); give the range that may"
            ' reach the scheduler: network={"caller": "203.0.113.7/32"}.'
        ) from error


def _read(url: str) -> str:
    with urlopen(url, timeout=10) as answer:
        return str(answer.read(64).decode()).strip()
