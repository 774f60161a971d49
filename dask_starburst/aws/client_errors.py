"""Translate boto3's exceptions into ours: AWS's message and the next step."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from dask_starburst.aws.codes import CLOCK
from dask_starburst.aws.faults import DENIED, EXPIRED, THROTTLED, UNAVAILABLE, code_of
from dask_starburst.aws.regions import is_opt_in
from dask_starburst.errors import (
    AWSError,
    AWSUnavailable,
    BadArgument,
    CredentialsExpired,
    NoCredentials,
    PermissionDenied,
    StarburstError,
    Throttled,
)

_HOW_TO_START = (
    "Configure AWS credentials (`aws configure`, or `aws sso login`), or try it without an account:"
    ' StarburstCluster(cloud="local").'
)
#: A wrong clock in the words of a code that has other meanings. EC2 says no more than ``RequestExpired``.
_NOT_NOW = re.compile(r"^Signature (?:expired|not yet current)\b")
#: Seconds. AWS accepts signatures of up to five minutes off, EC2 and S3 of fifteen.
_LEAST_SKEW = 240.0
#: AWS's errors for keys that a region does not know: they are wrong, or the region is not enabled.
_UNKNOWN_KEYS = frozenset({"InvalidClientTokenId", "UnrecognizedClientException", "AuthFailure", "InvalidAccessKeyId"})
_LOG_IN = "log in again (`aws sso login`, or new keys in `aws configure`)."


def explained(error: Exception, operation: str, region: str = "") -> StarburstError:
    """Translate an exception of boto3 into one of ours.

    Parameters
    ----------
    error : Exception
        A ``ClientError`` or a ``BotoCoreError``.
    operation : str
        The action as IAM writes it: ``"ecs:RunTask"``.
    region : str
        The region that was called.
    """
    if isinstance(error, ClientError):
        return _of_client_error(error, operation, region)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return NoCredentials(f"no AWS credentials were found. {_HOW_TO_START}")
    if isinstance(error, SSOError | TokenRetrievalError):
        return CredentialsExpired(f"the AWS login has expired ({error}); run `aws sso login`.")
    if isinstance(error, ProfileNotFound):
        return BadArgument(f"{error}; give one that `aws configure list-profiles` shows.")
    if isinstance(error, NoRegionError):
        return BadArgument('no AWS region is configured; give region="us-east-1", for example.')
    if isinstance(error, ConnectionError | HTTPClientError):
        return AWSUnavailable(f"{operation} cannot reach AWS: {error}", operation=operation)
    return AWSError(f"{operation} failed: {error}", operation=operation)


def _of_client_error(error: ClientError, operation: str, region: str) -> StarburstError:
    code, text = code_of(error), error.response.get("Error", {}).get("Message", "")
    facts: dict[str, Any] = {
        "code": code,
        "operation": operation,
        "request_id": error.response.get("ResponseMetadata", {}).get("RequestId"),
    }
    if code in DENIED:
        action = _denied_action(text) or operation
        facts["operation"] = action
        return PermissionDenied(
            f"AWS denies {action}: {text} ({code}). Ask your administrator to allow {action}.",
            **facts,
        )
    if code in EXPIRED | CLOCK:
        return CredentialsExpired(_refused(error, code, text, region), **facts)
    if code in THROTTLED:
        return Throttled(f"AWS throttles {operation}: {text} ({code}).", **facts)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = AWSUnavailable if code in UNAVAILABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR else AWSError
    return kind(f"{operation} failed: {text} ({code}).", **facts)


def _refused(error: ClientError, code: str, text: str, region: str) -> str:
    """Return why AWS refuses a signature, and what to do: set the clock, enable the region, or log in again."""
    skew = _skew(error)
    far = skew is not None and abs(skew) >= _LEAST_SKEW
    if (code == "RequestExpired" and far) or ((code in CLOCK or _NOT_NOW.search(text)) and (far or skew is None)):
        off = "wrong" if skew is None else f"{abs(skew):.0f} s {'behind' if skew > 0 else 'ahead of'} AWS's"
        return f"this computer's clock is {off}, so that AWS refuses its signatures: {text} ({code}). Set the clock."
    if code in _UNKNOWN_KEYS and is_opt_in(region):
        return (
            f"AWS refuses the credentials in {region}: {text} ({code}). An account has to enable this region first"
            f" (`aws account enable-region --region-name {region}`, which takes minutes); if it is enabled, {_LOG_IN}"
        )
    return f"AWS refuses the credentials: {text} ({code}). {_LOG_IN.capitalize()}"


def _skew(error: ClientError) -> float | None:
    """Return how many seconds this computer's clock is behind AWS's answer; None if the answer has no date."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return parsedate_to_datetime(headers["date"]).timestamp() - time.time()
    except (KeyError, ValueError):
        return None


def _denied_action(text: str) -> str | None:
    """Return the action in AWS's message; it can differ from the called one (PassRole)."""
    found = re.search(r"not authorized to perform: ([\w-]+:\w+)", text)
    return found.group(1) if found else None
