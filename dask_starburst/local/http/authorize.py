"""Checks the signature of AWS calls, and the error of each protocol when it is not valid.

The error codes of each protocol: docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html (query),
docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html (JSON),
docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html and
docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from dask_starburst.local.backend.account import iam_backend, sts_backend
from dask_starburst.local.backend.keys import Credentials, Keys
from dask_starburst.local.http import signature as sigv4
from dask_starburst.local.http.protocols import Protocol, ServiceError
from dask_starburst.local.http.signature import IncompleteError, Signature

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment

Reason = Literal["missing", "incomplete", "unknown", "token", "expired", "mismatch", "late", "over", "content"]

_INVALID = "The security token included in the request is invalid."
_EXPIRED = "The security token included in the request is expired"
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key "
    "and signing method. Consult the service documentation for details."
)
_NOT_VALIDATED = ServiceError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
_REFUSALS: Mapping[Protocol, Mapping[Reason, ServiceError]] = {
    "json": {
        "missing": ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token"),
        "incomplete": ServiceError("IncompleteSignatureException", "{}"),
        "unknown": ServiceError("UnrecognizedClientException", _INVALID),
        "token": ServiceError("UnrecognizedClientException", _INVALID),
        "expired": ServiceError("ExpiredTokenException", _EXPIRED),
        "mismatch": ServiceError("InvalidSignatureException", _MISMATCH),
        "late": ServiceError("InvalidSignatureException", "{}"),
        "over": ServiceError("InvalidSignatureException", "{}"),
    },
    "query": {
        "missing": ServiceError("MissingAuthenticationToken", "Request is missing Authentication Token", 403),
        "incomplete": ServiceError("IncompleteSignature", "{}"),
        "unknown": ServiceError("InvalidClientTokenId", _INVALID, 403),
        "token": ServiceError("InvalidClientTokenId", _INVALID, 403),
        "expired": ServiceError("ExpiredToken", _EXPIRED, 403),
        "mismatch": ServiceError("SignatureDoesNotMatch", _MISMATCH, 403),
        "late": ServiceError("SignatureDoesNotMatch", "{}", 403),
        "over": ServiceError("SignatureDoesNotMatch", "{}", 403),
    },
    "ec2": {
        "missing": ServiceError("MissingAuthenticationToken", "Request is missing Authentication Token", 403),
        "incomplete": ServiceError("IncompleteSignature", "{}"),
        "unknown": _NOT_VALIDATED,
        "token": _NOT_VALIDATED,
        "expired": ServiceError("RequestExpired", "Request has expired."),
        "mismatch": _NOT_VALIDATED,
        "late": ServiceError("RequestExpired", "Request has expired."),
        "over": ServiceError("RequestExpired", "Request has expired."),
    },
    "s3": {
        "missing": ServiceError("AccessDenied", "Access Denied", 403),
        "incomplete": ServiceError("AuthorizationHeaderMalformed", "{}"),
        "unknown": ServiceError(
            "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", 403
        ),
        "token": ServiceError("InvalidToken", "The provided token is malformed or otherwise invalid."),
        "expired": ServiceError("ExpiredToken", "The provided token has expired."),
        "mismatch": ServiceError("SignatureDoesNotMatch", _MISMATCH.partition(" Consult")[0], 403),
        "late": ServiceError(
            "RequestTimeTooSkewed", "The difference between the request time and the current time is too large.", 403
        ),
        "over": ServiceError("AccessDenied", "Request has expired", 403),
        "content": ServiceError(
            "XAmzContentSHA256Mismatch",
            "The provided 'x-amz-content-sha256' header does not match what was computed.",
        ),
    },
}
#: Allowed clock skew of a signature in seconds: EC2 and S3 say 15 minutes, the others answer "- 5 min.".
_SKEW: Mapping[Protocol, float] = {"json": 300.0, "query": 300.0, "ec2": 900.0, "s3": 900.0}
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _RefusedError(Exception):
    def __init__(self, reason: Reason, message: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class Authorizer:
    """Authorizes every AWS call.

    Parameters
    ----------
    keys : Keys
        The credentials of the owner and of roles.
    now : callable
        Real time in seconds since 1970: clients sign with the real clock, not the virtual one.
    """

    def __init__(self, keys: Keys, now: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._now = now

    def refusal(
        self, protocol: Protocol, environ: WSGIEnvironment, body: bytes | None, *, unknown: bool = False
    ) -> ServiceError | None:
        """Return the error of a call that is refused; None if its signature is valid.

        Parameters
        ----------
        protocol : {"json", "query", "ec2", "s3"}
            The protocol of the service.
        environ : WSGIEnvironment
            The request.
        body : bytes, optional
            Its body; None for a streamed S3 upload whose hash is not signed.
        unknown : bool
            Whether all keys are unknown, as in a region that the account has not enabled.
        """
        if unknown:
            return _with_message(protocol, "unknown", "")
        try:
            self._check(protocol, environ, body)
        except IncompleteError as error:
            return _with_message(protocol, "incomplete", str(error))
        except _RefusedError as error:
            return _with_message(protocol, error.reason, str(error))
        return None

    def _check(self, protocol: Protocol, environ: WSGIEnvironment, body: bytes | None) -> None:
        signature = sigv4.read(environ)
        if signature is None:
            raise _RefusedError("missing")
        credentials = self._credentials(signature)
        self._check_time(protocol, signature)
        lacking = sigv4.unsigned_headers(environ, signature)
        if lacking:
            raise IncompleteError(f"'{lacking[0]}' must be a 'SignedHeader' in the AWS Authorization.")
        payload = _payload(protocol, environ, signature, body)
        right = sigv4.computed(environ, signature, credentials.secret_key, payload)
        if not hmac.compare_digest(signature.value.encode(), right.encode()):
            raise _RefusedError("mismatch")

    def _credentials(self, signature: Signature) -> Credentials:
        owner = self._keys.owner
        if signature.key == owner.access_key:
            if signature.token is not None:
                raise _RefusedError("token")
            return owner
        session = self._keys.session(signature.token) if signature.token else None
        if session is not None and session.credentials.access_key == signature.key:
            if self._now() >= session.until:
                raise _RefusedError("expired")
            return session.credentials
        return self._made_by_moto(signature)

    def _made_by_moto(self, signature: Signature) -> Credentials:
        """Return credentials made by CreateAccessKey or AssumeRole."""
        for role in sts_backend().assumed_roles:
            if role.access_key_id == signature.key:
                if not hmac.compare_digest(role.session_token.encode(), (signature.token or "").encode()):
                    raise _RefusedError("token")
                if self._now() >= role.expiration.timestamp():
                    raise _RefusedError("expired")
                return Credentials(role.access_key_id, role.secret_access_key, role.session_token)
        for user in iam_backend().users.values():
            for key in user.access_keys:
                if key.access_key_id == signature.key and key.status == "Active" and signature.token is None:
                    return Credentials(key.access_key_id, key.secret_access_key)
        raise _RefusedError("unknown")

    def _check_time(self, protocol: Protocol, signature: Signature) -> None:
        now, skew = self._now(), _SKEW[protocol]
        latest = signature.signed_at + (skew if signature.expires is None else signature.expires)
        if now > latest:
            message = f"Signature expired: {signature.stamp} is now earlier than {_stamp(now - skew)}"
            raise _RefusedError(
                "over" if signature.presigned else "late", f"{message} ({_stamp(now)} - {skew / 60:g} min.)"
            )
        if signature.signed_at > now + skew:
            message = f"Signature not yet current: {signature.stamp} is still later than {_stamp(now + skew)}"
            raise _RefusedError("late", f"{message} ({_stamp(now)} + {skew / 60:g} min.)")


def signs_body(environ: WSGIEnvironment) -> bool:
    """Return whether the body hash of an S3 upload is signed; for other services it always is."""
    return _SHA256.fullmatch(environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")) is not None


def _payload(protocol: Protocol, environ: WSGIEnvironment, signature: Signature, body: bytes | None) -> str:
    if protocol != "s3":
        return hashlib.sha256(body or b"").hexdigest()
    if signature.presigned:
        return str(environ.get("HTTP_X_AMZ_CONTENT_SHA256", sigv4.UNSIGNED))
    given = str(environ.get("HTTP_X_AMZ_CONTENT_SHA256", ""))
    if not given:
        raise IncompleteError("Missing required header for this request: x-amz-content-sha256")
    if body is not None and not hmac.compare_digest(given.encode(), hashlib.sha256(body).hexdigest().encode()):
        raise _RefusedError("content")
    return given


def _with_message(protocol: Protocol, reason: Reason, message: str) -> ServiceError:
    error = _REFUSALS[protocol][reason]
    return ServiceError(error.code, error.message.replace("{}", message), error.status)


def _stamp(seconds: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
