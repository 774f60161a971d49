"""Signature Version 4: parsed from a request and recomputed, as AWS does for every call.

The algorithm: docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html; for S3:
docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html and sigv4-query-string-auth.html.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from botocore.utils import normalize_url_path

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
_STAMP = re.compile(r"\d{8}T\d{6}Z")
_SCOPE = re.compile(r"(?P<key>[^/\s]+)/(?P<date>\d{8})/(?P<region>[^/\s]+)/(?P<service>[^/\s]+)/aws4_request")
_UNRESERVED = "-_.~"


class IncompleteError(Exception):
    """A signature with a missing part. The message is AWS's."""


@dataclass(frozen=True)
class Signature:
    """The signature of a request.

    Attributes
    ----------
    key, region, service, date : str
        The parts of its credential scope.
    stamp : str
        The signing time, as ``20301231T235959Z``.
    headers : tuple of str
        The names of the headers that are signed.
    value : str
        The signature itself, in hexadecimal digits.
    token : str or None
        The session token.
    expires : int or None
        Its lifetime in seconds; only in a presigned URL.
    """

    key: str
    date: str
    region: str
    service: str
    stamp: str
    headers: tuple[str, ...]
    value: str
    token: str | None
    expires: int | None = None

    @property
    def presigned(self) -> bool:
        """Whether it is in the URL."""
        return self.expires is not None

    @property
    def signed_at(self) -> float:
        """Seconds since 1970."""
        return float(calendar.timegm(time.strptime(self.stamp, "%Y%m%dT%H%M%SZ")))


def read(environ: WSGIEnvironment) -> Signature | None:
    """Return the signature of a request; None if it has none.

    Raises
    ------
    IncompleteError
        A part of the signature is missing.
    """
    header = environ.get("HTTP_AUTHORIZATION", "")
    if header.startswith(ALGORITHM):
        return _from_header(environ, header.removeprefix(ALGORITHM))
    query = parameters(environ.get("QUERY_STRING", ""))
    if query.get("X-Amz-Algorithm") == ALGORITHM:
        return _from_query(query)
    return None


def computed(environ: WSGIEnvironment, signature: Signature, secret: str, payload: str) -> str:
    """Return the expected signature.

    Parameters
    ----------
    environ : WSGIEnvironment
        The request; its path is the raw one, from ``REQUEST_URI``.
    signature : Signature
        The signature of the request.
    secret : str
        The secret key.
    payload : str
        SHA-256 of its body, or a placeholder for it.
    """
    path, _, query = str(environ["REQUEST_URI"]).partition("?")
    if signature.service != "s3":
        path = quote(normalize_url_path(path), safe="/~")
    lines = [f"{name}:{_header(environ, name)}\n" for name in signature.headers]
    names = ";".join(signature.headers)
    request = "\n".join((environ["REQUEST_METHOD"], path, _canonical(query), "".join(lines), names, payload))
    scope = (signature.date, signature.region, signature.service, "aws4_request")
    text = "\n".join((ALGORITHM, signature.stamp, "/".join(scope), hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{secret}".encode()
    for part in (*scope, text):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def unsigned_headers(environ: WSGIEnvironment, signature: Signature) -> list[str]:
    """Return the unsigned headers that must be signed: ``Host`` and all of AWS's own."""
    present = {"host", *(n[5:].lower().replace("_", "-") for n in environ if n.startswith("HTTP_X_AMZ_"))}
    return sorted(present - set(signature.headers))


def parameters(query: str) -> dict[str, str]:
    """Return the parameters of a query string."""
    pairs = (word.partition("=") for word in query.split("&") if word)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _from_header(environ: WSGIEnvironment, header: str) -> Signature:
    given = {name.strip(): value.strip() for name, _, value in (part.partition("=") for part in header.split(","))}
    for name in ("Credential", "Signature", "SignedHeaders"):
        if not given.get(name):
            raise IncompleteError(f"Authorization header requires '{name}' parameter. Authorization={ALGORITHM}")
    stamp = environ.get("HTTP_X_AMZ_DATE", "")
    if not stamp:
        raise IncompleteError(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. "
            f"Authorization={ALGORITHM}"
        )
    return _signature(given, stamp, environ.get("HTTP_X_AMZ_SECURITY_TOKEN"), None)


def _from_query(query: Mapping[str, str]) -> Signature:
    for name in ("Credential", "Signature", "SignedHeaders", "Date"):
        if not query.get(f"X-Amz-{name}"):
            raise IncompleteError(f"AWS query-string parameters must include 'X-Amz-{name}'. Re-examine the request.")
    expires = query.get("X-Amz-Expires", "")
    # A week at most: docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html.
    if not (expires.isascii() and expires.isdigit() and 1 <= int(expires) <= 604_800):
        raise IncompleteError("X-Amz-Expires must be a number of seconds from 1 to 604800")
    given = {name: query[f"X-Amz-{name}"] for name in ("Credential", "Signature", "SignedHeaders")}
    return _signature(given, query["X-Amz-Date"], query.get("X-Amz-Security-Token"), int(expires))


def _signature(given: Mapping[str, str], stamp: str, token: str | None, expires: int | None) -> Signature:
    scope = _SCOPE.fullmatch(given["Credential"])
    if scope is None:
        raise IncompleteError(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, "
            f"got '{given['Credential']}'"
        )
    try:
        if not _STAMP.fullmatch(stamp):
            raise ValueError(stamp)
        time.strptime(stamp, "%Y%m%dT%H%M%SZ")
    except ValueError as error:
        raise IncompleteError(
            f"Date must be in ISO-8601 'basic format'. Got '{stamp}'. See http://en.wikipedia.org/wiki/ISO_8601"
        ) from error
    if scope["date"] != stamp[:8]:
        message = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP"
        raise IncompleteError(f"{message}: '{scope['date']}' != '{stamp[:8]}', from '{stamp}'.")
    headers = tuple(given["SignedHeaders"].lower().split(";"))
    key, date, region, service = scope.groups()
    return Signature(key, date, region, service, stamp, headers, given["Signature"], token, expires)


def _canonical(query: str) -> str:
    pairs = (word.partition("=") for word in query.split("&") if word)
    encoded = ((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in sorted(encoded) if name != "X-Amz-Signature")


def _encoded(text: str) -> str:
    return quote(unquote(text), safe=_UNRESERVED)


def _header(environ: WSGIEnvironment, name: str) -> str:
    key = name.upper().replace("-", "_")
    value = environ.get(key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}", "")
    return " ".join(str(value).split())
