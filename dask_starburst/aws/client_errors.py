"""Translate boto3's exceptions into ours: AWS's message and the next step."""

from __future__ import annotations

import re
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

from dask_starburst.aws.faults import DENIED, EXPIRED, THROTTLED, UNAVAILABLE, code_of
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


def explained(error: Exception, operation: str) -> StarburstError:
    """Translate an exception of boto3 into one of ours.

    Parameters
    ----------
    error : Exception
        A ``ClientError`` or a ``BotoCoreError``.
    operation : str
        The action as IAM writes it: ``"ecs:RunTask"``.
    """
    if isinstance(error, ClientError):
        return _of_client_error(error, operation)
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


def _of_client_error(error: ClientError, operation: str) -> StarburstError:
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
    if code in EXPIRED:
        return CredentialsExpired(
            f"AWS refuses the credentials: {text} ({code}). Log in again (`aws sso login`, or new"
            " keys in `aws configure`).",
            **facts,
        )
    if code in THROTTLED:
        return Throttled(f"AWS throttles {operation}: {text} ({code}).", **facts)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    kind = AWSUnavailable if code in UNAVAILABLE or status >= HTTPStatus.INTERNAL_SERVER_ERROR else AWSError
    return kind(f"{operation} failed: {text} ({code}).", **facts)


def _denied_action(text: str) -> str | None:
    """Return the action in AWS's message; it can differ from the called one (PassRole)."""
    found = re.search(r"not authorized to perform: ([\w-]+:\w+)", text)
    return found.group(1) if found else None
