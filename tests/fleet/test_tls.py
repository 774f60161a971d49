"""Each cluster has its own certificate authority; a connection needs a certificate that it has issued."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from distributed.comm import CommClosedError, connect, listen
from distributed.security import Security

from dask_starburst.cluster.processes import SchedulerTask
from dask_starburst.errors import BadArgument, SchedulerFailed
from dask_starburst.fleet.controller.roster import Roster
from dask_starburst.fleet.tls import LARGEST_SECRET, Certificates, adopt, issue, refusal
from dask_starburst.plan.groups import HEAD_PLACEMENT
from dask_starburst.plan.loop.state import SCHEDULER, Limits, Worker, WorkerState


@pytest.fixture(scope="module")
def ours() -> Certificates:
    return issue("ours")


@pytest.fixture(scope="module")
def theirs() -> Certificates:
    return issue("theirs")


def node(certificates: Certificates) -> Security:
    """Return the security object that scheduler and workers make from the secret."""
    parts = json.loads(certificates.secret)
    return Security(
        require_encryption=True,
        tls_ca_file=parts["ca"],
        tls_scheduler_cert=parts["cert"],
        tls_scheduler_key=parts["key"],
        tls_worker_cert=parts["cert"],
        tls_worker_key=parts["key"],
    )


@asynccontextmanager
async def listening(security: Security) -> AsyncIterator[str]:
    """Yield the address of an echo server."""

    async def answer(comm: Any) -> None:
        await comm.write(await comm.read())
        await comm.close()

    arguments = security.get_listen_args("scheduler")
    async with await listen("tls://127.0.0.1:0", answer, deserialize=False, **arguments) as listener:
        yield listener.contact_address


async def ask(address: str, arguments: dict[str, Any]) -> Any:
    comm = await connect(address, timeout=5, **arguments)
    try:
        await comm.write("hello")
        return await comm.read()
    finally:
        comm.abort()


def test_the_client_and_the_nodes_talk_to_each_other(ours: Certificates):
    async def talk() -> list[Any]:
        async with listening(node(ours)) as address:
            callers = [ours.client.get_connection_args("client"), node(ours).get_connection_args("worker")]
            return [await ask(address, arguments) for arguments in callers]

    assert asyncio.run(talk()) == ["hello", "hello"]


def test_the_certificate_of_another_authority_is_refused(ours: Certificates, theirs: Certificates):
    async def intrude() -> None:
        async with listening(node(ours)) as address:
            await ask(address, theirs.client.get_connection_args("client"))

    with pytest.raises((OSError, CommClosedError)):
        asyncio.run(intrude())


def test_a_peer_that_trusts_the_authority_but_has_no_certificate_is_refused(ours: Certificates, theirs: Certificates):
    parts = json.loads(theirs.secret)
    stranger = Security(
        require_encryption=True,
        tls_ca_file=json.loads(ours.secret)["ca"],
        tls_client_cert=parts["cert"],
        tls_client_key=parts["key"],
    )

    async def intrude() -> None:
        async with listening(node(ours)) as address:
            await ask(address, stranger.get_connection_args("client"))

    with pytest.raises((OSError, CommClosedError)):
        asyncio.run(intrude())


def test_a_connection_without_encryption_is_refused(ours: Certificates):
    async def intrude() -> None:
        async with listening(node(ours)) as address:
            await ask(address.replace("tls://", "tcp://"), {})

    with pytest.raises((OSError, CommClosedError)):
        asyncio.run(intrude())


def test_the_client_does_not_connect_without_encryption(ours: Certificates):
    async def carelessly() -> None:
        await connect("tcp://127.0.0.1:1", timeout=1, **ours.client.get_connection_args("client"))

    with pytest.raises(RuntimeError, match="encryption required"):
        asyncio.run(carelessly())


def test_the_secret_fits_a_standard_parameter(ours: Certificates):
    assert len(issue("a name of any length " * 20).secret) < LARGEST_SECRET
    assert json.loads(ours.secret).keys() == {"ca", "cert", "key"}


def test_no_repr_shows_a_key(ours: Certificates):
    key = json.loads(ours.secret)["key"]
    body = key.splitlines()[1]
    for shown in (repr(ours), str(ours), repr(ours.client)):
        assert body not in shown
        assert "PRIVATE KEY" not in shown


def test_client_and_nodes_have_different_keys(ours: Certificates):
    assert ours.client.tls_client_key != json.loads(ours.secret)["key"]


def test_the_certificates_are_valid_for_a_month_and_cannot_sign_others(ours: Certificates):
    now = datetime.now(UTC)
    parts = json.loads(ours.secret)
    authority, leaf = (x509.load_pem_x509_certificate(parts[name].encode()) for name in ("ca", "cert"))
    for certificate, signs in ((authority, True), (leaf, False)):
        left = certificate.not_valid_after_utc - now
        assert timedelta(days=29) < left <= timedelta(days=30)
        assert certificate.not_valid_before_utc < now
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        assert constraints.value.ca is signs
    leaf.verify_directly_issued_by(authority)


def test_two_clusters_do_not_share_certificates_or_keys(ours: Certificates, theirs: Certificates):
    assert not set(json.loads(ours.secret).values()) & set(json.loads(theirs.secret).values())


@pytest.mark.parametrize("hours", [2, 26, -2])
def test_a_clock_that_is_wrong_by_hours_does_not_prevent_a_connection(hours: int):
    wrong = issue("wrong clock", datetime.now(UTC) + timedelta(hours=hours))

    async def talk() -> Any:
        async with listening(node(wrong)) as address:
            return await ask(address, wrong.client.get_connection_args("client"))

    assert asyncio.run(talk()) == "hello"


def test_the_client_certificate_cannot_be_used_by_a_scheduler_or_worker(ours: Certificates):
    client = ours.client
    disguised = Security(
        require_encryption=True,
        tls_ca_file=client.tls_ca_file,
        tls_scheduler_cert=client.tls_client_cert,
        tls_scheduler_key=client.tls_client_key,
    )

    async def fall_for_it(arguments: dict[str, Any]) -> None:
        async with listening(disguised) as address:
            await ask(address, arguments)

    for arguments in (client.get_connection_args("client"), node(ours).get_connection_args("worker")):
        with pytest.raises((OSError, CommClosedError)) as found:
            asyncio.run(fall_for_it(arguments))
        assert "unsuitable certificate purpose" in str(refusal(found.value)) or "unsupported" in str(found.value)


def test_certificates_have_the_right_extended_key_usage(ours: Certificates):
    assert ours.client.tls_client_cert is not None
    parts = {"client": ours.client.tls_client_cert, "node": json.loads(ours.secret)["cert"]}
    uses = {
        name: x509.load_pem_x509_certificate(text.encode()).extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        for name, text in parts.items()
    }
    assert set(uses["client"].value) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    assert set(uses["node"].value) == {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}
    assert all(use.critical for use in uses.values())


def test_the_certificates_pass_openssls_strict_verification(ours: Certificates):
    parts = json.loads(ours.secret)
    context = ssl.create_default_context(cadata=parts["ca"])
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.check_hostname = False
    security = node(ours)

    async def connect_strictly() -> None:
        async with listening(security) as address:
            host, port = address.removeprefix("tls://").rsplit(":", 1)
            _, writer = await asyncio.open_connection(host, int(port), ssl=context)
            writer.close()

    asyncio.run(connect_strictly())


# -- when certificates are not accepted -----------------------------------------------------------


@dataclass
class Playing:
    """The part of a controller that the start of a scheduler needs."""

    address: str
    state: WorkerState = WorkerState.STARTED
    error: None = None

    @property
    def capacity(self) -> Playing:
        return self

    @property
    def contact_address(self) -> str:
        return self.address

    @property
    def roster(self) -> Roster:
        return Roster(Limits(), lambda: 0.0, [Worker(SCHEDULER, HEAD_PLACEMENT, self.state)])


def start(server: Security, client: Certificates, state: WorkerState = WorkerState.STARTED, timeout: float = 60) -> str:
    """Return the error of a client with some certificates that connects to a scheduler with others."""

    async def begin() -> None:
        async with listening(server) as address:
            controller: Any = Playing(address, state)
            arguments = client.client.get_connection_args("client")
            await SchedulerTask(controller=controller, connection_args=arguments, timeout=timeout)._connect()

    with pytest.raises(SchedulerFailed) as found:
        asyncio.run(asyncio.wait_for(begin(), 30))
    return str(found.value)


def test_a_scheduler_with_foreign_certificates_fails_the_start_at_once(ours: Certificates, theirs: Certificates):
    said = start(node(theirs), ours)
    assert "do not accept each other's TLS certificates" in said
    assert "firewall" not in said


def test_a_scheduler_that_refuses_the_client_certificate_fails_the_start_at_once(
    ours: Certificates, theirs: Certificates
):
    parts, foreign = json.loads(ours.secret), theirs.client
    mixed = Certificates(
        Security(
            require_encryption=True,
            tls_ca_file=parts["ca"],
            tls_client_cert=foreign.tls_client_cert,
            tls_client_key=foreign.tls_client_key,
        ),
        "",
    )
    assert "do not accept each other's TLS certificates" in start(node(ours), mixed)


def test_the_error_for_a_certificate_that_is_not_valid_yet_mentions_the_clock():
    later = issue("later", datetime.now(UTC) + timedelta(days=30))
    assert "is the clock of this computer right?" in start(node(later), later)


def test_before_the_container_runs_another_scheduler_may_answer_at_its_address(
    ours: Certificates, theirs: Certificates
):
    assert "could not be reached" in start(node(theirs), ours, WorkerState.PLACED, timeout=0.2)


# -- user certificates ---------------------------------------------------------------------------------


def own(certificates: Certificates, **more: Any) -> Security:
    security = node(certificates)
    client = certificates.client
    return Security(
        require_encryption=True,
        tls_ca_file=security.tls_ca_file,
        tls_worker_cert=security.tls_worker_cert,
        tls_worker_key=security.tls_worker_key,
        **{"tls_client_cert": client.tls_client_cert, "tls_client_key": client.tls_client_key, **more},
    )


def test_the_users_own_certificates_are_used_as_they_are(ours: Certificates):
    security = own(ours)
    adopted = adopt(security)
    assert adopted.client is security
    assert adopted.secret == ours.secret


def test_the_users_own_certificates_may_be_files(ours: Certificates, tmp_path: Any):
    parts = json.loads(ours.secret)
    for name, text in parts.items():
        (tmp_path / name).write_text(text)
    security = Security(
        tls_ca_file=str(tmp_path / "ca"),
        tls_worker_cert=str(tmp_path / "cert"),
        tls_worker_key=str(tmp_path / "key"),
        tls_client_cert=str(tmp_path / "cert"),
        tls_client_key=str(tmp_path / "key"),
    )
    assert adopt(security).secret == ours.secret


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (True, "security=True is not a distributed.Security"),
        ("tls", "security='tls' is not a distributed.Security"),
        (Security(), "lacks TLS certificates"),
    ],
    ids=["True", "a string", "an empty one"],
)
def test_an_invalid_security_argument_is_refused_in_one_sentence(wrong: Any, sentence: str):
    with pytest.raises(BadArgument, match=sentence):
        adopt(wrong)


def test_a_client_without_a_certificate_is_refused(ours: Certificates):
    with pytest.raises(BadArgument, match="roles client and worker"):
        adopt(own(ours, tls_client_cert=None))


def test_certificates_that_do_not_fit_a_parameter_are_refused(ours: Certificates):
    large = Security(
        tls_ca_file=json.loads(ours.secret)["ca"] * 10,
        tls_worker_cert=ours.client.tls_client_cert,
        tls_worker_key=ours.client.tls_client_key,
        tls_client_cert=ours.client.tls_client_cert,
        tls_client_key=ours.client.tls_client_key,
    )
    with pytest.raises(BadArgument, match=r"have \d+ characters, and an SSM parameter holds at most 4096"):
        adopt(large)
