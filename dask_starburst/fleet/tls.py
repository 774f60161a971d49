"""A certificate authority for one cluster: whoever has no certificate of it gets no connection."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from distributed.security import Security

from dask_starburst.errors import BadArgument

#: A cluster that lives longer can start no new workers; one that is forgotten cannot be entered.
VALID_FOR = timedelta(days=30)
#: Clocks of laptops run ahead.
_EARLIER = timedelta(hours=1)
#: The size of a standard SSM parameter (aws-facts §1.5).
LARGEST_SECRET = 4096


@dataclass(frozen=True, slots=True)
class Certificates:
    """What the client connects with, and what scheduler and workers are sent."""

    client: Security
    secret: str = field(repr=False)


def issue(name: str) -> Certificates:
    """Make a new authority and two certificates of it: the client's, and the nodes'.

    The authority's own key is forgotten at once: nobody can add a third.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"dask-starburst {name}")
    authority = _certificate(subject, subject, key.public_key(), key, authority=True)
    ca = _pem(authority)
    client_cert, client_key = _leaf("client", subject, key)
    node_cert, node_key = _leaf("node", subject, key)
    client = Security(
        require_encryption=True,
        tls_ca_file=ca,
        tls_client_cert=client_cert,
        tls_client_key=client_key,
    )
    return Certificates(client, json.dumps({"ca": ca, "cert": node_cert, "key": node_key}))


def adopt(security: Any) -> Certificates:
    """Use the user's own certificates: those of the role ``worker`` go to scheduler and workers.

    Raises
    ------
    BadArgument
        `security` is no ``Security`` with certificates, or they do not fit an SSM parameter.
    """
    if not isinstance(security, Security):
        raise BadArgument(
            f"security={security!r} has to be a distributed.Security with TLS certificates, or be"
            " left out for a certificate authority of its own."
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
            f"the certificates of security= have {len(secret)} characters, an SSM parameter holds"
            f" {LARGEST_SECRET}; use elliptic-curve keys."
        )
    return Certificates(security, secret)


def _text(part: str) -> str:
    return part if "\n" in part else Path(part).read_text()


def _leaf(role: str, issuer: x509.Name, signer: ec.EllipticCurvePrivateKey) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(_name(role), issuer, key.public_key(), signer, authority=False)
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
    *,
    authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    constraints = x509.BasicConstraints(ca=authority, path_length=0 if authority else None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + VALID_FOR)
        .add_extension(constraints, critical=True)
        .sign(signer, hashes.SHA256())
    )


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
