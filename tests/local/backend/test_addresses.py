"""Two embedded AWSes on one computer never share an address."""

from __future__ import annotations

import ipaddress
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from dask_starburst.errors import LocalAWSError
from dask_starburst.local.backend.addresses import Network, claim_network


def bindable(host: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


needs_aliases = pytest.mark.skipif(not bindable("127.77.1.2"), reason="only 127.0.0.1 is a loopback address here")


@pytest.fixture
def network() -> Iterator[Network]:
    claimed = claim_network()
    yield claimed
    claimed.release()


def test_the_default_is_what_this_computer_supports(network: Network) -> None:
    assert network.aliases is bindable("127.77.1.2")


@needs_aliases
def test_every_address_of_the_network_can_be_bound(network: Network) -> None:
    block = ipaddress.IPv4Network(network.cidr)
    assert block.prefixlen == 16
    assert block.subnet_of(ipaddress.IPv4Network("127.0.0.0/8"))
    with socket.create_server((str(block[4]), network.scheduler_port)) as server:
        assert server.getsockname()[0] == str(block[4])


@needs_aliases
def test_concurrent_claims_get_different_networks() -> None:
    claims = [claim_network(aliases=True) for _ in range(20)]
    assert len({claim.cidr for claim in claims}) == 20
    for claim in claims:
        claim.release()


@needs_aliases
def test_a_claim_excludes_other_processes_and_ends_with_its_own() -> None:
    program = (
        "from dask_starburst.local.backend.addresses import claim_network as c\n"
        "claims = [c(True) for _ in range(187)]\n"
        "print(len({claim.cidr for claim in claims}), flush=True)\n"
        "input()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as other:
        assert other.stdout is not None
        # Other tests may hold some of the 187 networks, and then the process fails with an error and ends.
        if other.stdout.readline() == "187\n":
            with pytest.raises(LocalAWSError, match="too many embedded AWSes"):
                claim_network(aliases=True)
        other.kill()
    claim_network(aliases=True).release()


def test_a_released_network_can_be_claimed_again(network: Network) -> None:
    network.release()
    network.release()


def test_instances_share_one_address_without_aliases() -> None:
    first, second = claim_network(aliases=False), claim_network(aliases=False)
    assert not first.aliases
    assert first.cidr == "127.0.0.0/16"
    assert first.scheduler_port != second.scheduler_port
    for claim in (first, second):
        with socket.create_server(("127.0.0.1", claim.scheduler_port)):
            claim.release()


@needs_aliases
def test_the_scheduler_port_changes_if_the_user_runs_a_scheduler() -> None:
    with socket.socket() as theirs:
        try:
            theirs.bind(("0.0.0.0", 8786))
        except OSError:
            pytest.skip("port 8786 is in use on this computer")
        theirs.listen()
        network = claim_network(aliases=True)
    assert network.scheduler_port != 8786
    network.release()
