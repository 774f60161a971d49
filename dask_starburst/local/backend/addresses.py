"""Addresses of the embedded AWS: a network of the loopback interface that no other process on this computer uses.

Every instance has its own address where the whole of 127.0.0.0/8 can be bound on the loopback
interface (Linux). Where only 127.0.0.1 can be bound (macOS), all instances share it and differ by port.
"""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from dask_starburst.errors import LocalAWSError

# Two embedded AWSes that share addresses mix their clusters: workers of one join the scheduler of the other.
# The claim is a listening socket, so the kernel releases it when the process ends. Its port is above Linux's
# ephemeral ones.
_CLAIM_PORT = 64_786
_SECOND_BYTES = range(64, 251)

_DASK_PORT = 8786
# Below the ephemeral ports of Linux and macOS. The port above the scheduler's is the claim.
_SHARED_PORTS = range(21_000, 31_000, 2)


@dataclass(frozen=True)
class Network:
    """A claimed network.

    Attributes
    ----------
    cidr : str
        The network, a /16 inside of 127.0.0.0/8.
    aliases : bool
        Whether every address in it can be bound. If not, every instance has the address 127.0.0.1.
    scheduler_port : int
        The port for a Dask scheduler: 8786, unless that port is in use or all instances share one
        address.
    """

    cidr: str
    aliases: bool
    scheduler_port: int
    _claim: socket.socket

    def release(self) -> None:
        """Release the claim. Idempotent."""
        self._claim.close()


def claim_network(aliases: bool | None = None) -> Network:
    """Claim a network until it is released or this process ends.

    Parameters
    ----------
    aliases : bool, optional
        True for one address an instance, False for 127.0.0.1 only. By default, whatever this computer supports.

    Raises
    ------
    LocalAWSError
        ``aliases=True`` and only 127.0.0.1 can be bound here, or every network is claimed.
    """
    can = aliases is not False and _can_bind("127.64.0.4", 0)
    if aliases and not can:
        raise LocalAWSError(
            "Only 127.0.0.1 can be bound on this computer, so instances cannot have their own addresses. "
            "Leave out aliases=True to make them share 127.0.0.1."
        )
    network = _claim_addresses() if can else _claim_ports()
    if network is None:
        raise LocalAWSError(
            "No loopback network is free: too many embedded AWSes run on this computer. Stop one or more."
        )
    return network


def _claim_addresses() -> Network | None:
    for byte in _from_a_random_start(_SECOND_BYTES):
        host = f"127.{byte}.255.254"
        claim = _listen(host, _CLAIM_PORT)
        if claim is not None:
            return Network(f"127.{byte}.0.0/16", True, _scheduler_port(host), claim)
    return None


def _claim_ports() -> Network | None:
    for port in _from_a_random_start(_SHARED_PORTS):
        claim = _listen("127.0.0.1", port + 1)
        if claim is None:
            continue
        if _can_bind("127.0.0.1", port):
            return Network("127.0.0.0/16", False, port, claim)
        claim.close()
    return None


def _scheduler_port(host: str) -> int:
    # A `dask scheduler` that the user runs binds Dask's default port on every address.
    ports = (_DASK_PORT, *_from_a_random_start(_SHARED_PORTS))
    return next((port for port in ports if _can_bind(host, port)), _DASK_PORT)


def _from_a_random_start(values: range) -> Iterator[int]:
    start = random.randrange(len(values))
    yield from values[start:]
    yield from values[:start]


def _listen(host: str, port: int) -> socket.socket | None:
    claim = socket.socket()
    try:
        # Without SO_REUSEADDR, so that a second claim of the same address fails.
        claim.bind((host, port))
        claim.listen(1)
    except OSError as error:
        claim.close()
        if error.errno in (errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES):
            return None
        raise
    return claim


def _can_bind(host: str, port: int) -> bool:
    claim = _listen(host, port)
    if claim is None:
        return False
    claim.close()
    return True
