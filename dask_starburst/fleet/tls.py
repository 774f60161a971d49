"""A certificate authority for one cluster: a connection needs a certificate that it has issued.

There are two certificates, with the extended key usages (RFC 5280 §4.2.1.12) that OpenSSL checks at both ends. The
client's is for TLS clients only: the key on a laptop cannot be used to impersonate a scheduler or a worker. The one of
the scheduler and the workers is for servers and for clients, because workers connect to the scheduler and to each
other, and tasks that use `get_client` are Dask clients in a worker. So TLS does not distinguish a worker from a client;
the security group does: only the caller's address reaches the scheduler from outside of the pool.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from distributed.security import Security

from dask_starburst.errors import BadArgument

#: A cluster that lives longer cannot start new workers; nothing can connect to a forgotten one.
VALID_FOR = timedelta(days=30)
#: Valid from this long before now: a laptop's clock may be ahead of the instances', by hours if its time zone is wrong.
_EARLIER = timedelta(days=7)
_AS_CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
_AS_NODE = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
#: Errors of a connection that was cut, not of a certificate that was refused.
_PASSING = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
#: OpenSSL's codes for a certificate that is not valid yet, and for one that is not valid any more.
_BY_CLOCK = (9, 10)
#: The size of a standard SSM parameter (aws-facts §1.5).
LARGEST_SECRET = 4096


@dataclass(frozen=True, slots=True)
class Certificates:
    """The client's security object, and the secret that is sent to the scheduler and the workers."""

    client: Security
    secret: str = field(repr=False)


def issue(name: str, now: datetime | None = None) -> Certificates:
    """Create an authority and two certificates that it issues: the client's, and the nodes'.

    The authority's private key is discarded, so that no further certificate can be issued.

    Parameters
    ----------
    name : str
        Name of the cluster.
    now : datetime, optional
        The current time; this computer's clock by default.
    """
    now = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"dask-starburst {name}")
    authority = _certificate(subject, subject, key.public_key(), key, now)
    ca = _pem(authority)
    client_cert, client_key = _leaf("client", subject, key, now, _AS_CLIENT)
    node_cert, node_key = _leaf("node", subject, key, now, _AS_NODE)
    client = Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=client_cert,
        tls_client_key=client_key,
    )
    return Certificates(client, json.dumps({"ca": ca, "cert": node_cert, "key": node_key}))


def adopt(security: Any) -> Certificates:
    """Use the user's certificates: those of the role ``worker`` go to the scheduler and the workers.

    Raises
    ------
    BadArgument
        `security` is not a ``Security`` with certificates, or they do not fit in an SSM parameter.
    """
    if not isinstance(security, Security):
        raise BadArgument(
            f"security={security!r} is not a distributed.Security with TLS certificates; leave it out, and the"
            " cluster creates its own certificate authority."
        )
    worker = security.get_tls_config_for_role("worker")
    parts = {"ca": worker["ca_file"], "cert": worker["cert"], "key": worker["key"]}
    missing = [name for name, part in parts.items() if not part]
    if missing or not security.tls_client_cert:
        raise BadArgument(
            "security= lacks TLS certificates for the roles client and worker; leave it out, or use"
            " Security.temporary()."
        )
    secret = json.dumps({name: _text(part) for name, part in parts.items()})
    if len(secret) > LARGEST_SECRET:
        raise BadArgument(
            f"the certificates of security= have {len(secret)} characters, and an SSM parameter holds at most"
            f" {LARGEST_SECRET}; use elliptic-curve keys."
        )
    return Certificates(security, secret)


def _text(part: str) -> str:
    return part if "\n" in part else Path(part).read_text()


def _leaf(
    role: str, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey, now: datetime, usage: x509.ExtendedKeyUsage
) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(_name(role), issuer, key.public_key(), signer, now, usage)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return _pem(certificate), private.decode()


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signer: ec.EllipticCurvePrivateKey,
    now: datetime,
    usage: x509.ExtendedKeyUsage | None = None,
) -> x509.Certificate:
    """Return a certificate; without a `usage`, the authority's own."""
    authority = usage is None
    constraints = x509.BasicConstraints(ca=authority, path_length=0 if authority else None)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + VALID_FOR)
        .add_extension(constraints, critical=True)
        .add_extension(_key_usage(authority=authority), critical=True)
        # Python 3.13 wants both (VERIFY_X509_STRICT).
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return (made if usage is None else made.add_extension(usage, critical=True)).sign(signer, hashes.SHA256())


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    others = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign")
    never = dict.fromkeys((*others, "encipher_only", "decipher_only"), False)
    return x509.KeyUsage(digital_signature=not authority, key_cert_sign=authority, **never)


def refusal(error: BaseException) -> str | None:
    """Return why the two ends do not accept each other's certificates; None if the error has another reason.

    A server that does not listen yet and a connection that is closed on the way are worth a retry.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _PASSING):
            return _in_words(cause)
        # Tornado keeps the original error in an attribute.
        cause = getattr(cause, "real_error", None) or cause.__cause__ or cause.__context__
    return None


def _in_words(error: ssl.SSLError) -> str:
    said = getattr(error, "verify_message", "") or (error.reason or str(error)).replace("_", " ").lower()
    if getattr(error, "verify_code", 0) in _BY_CLOCK or "expired" in said:
        return f"{said}; is the clock of this computer right?"
    return said


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
