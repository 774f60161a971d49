"""AWS's error codes, in one table, and the sentences that they become."""

from __future__ import annotations

import re
from typing import Any

from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from dask_starburst.errors import (
    AWSError,
    BadArgument,
    CredentialsExpired,
    NoCredentials,
    PermissionDenied,
    StarburstError,
    Throttled,
)
from dask_starburst.plan.offerings import Refusal

DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess"})
EXPIRED = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "InvalidAccessKeyId",
        "AuthFailure",
        "SignatureDoesNotMatch",
    }
)
THROTTLED = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"})
#: It is there already: what an idempotent "make it" wants to hear.
EXISTS = frozenset(
    {
        "EntityAlreadyExists",
        "EntityAlreadyExistsException",
        "AlreadyExists",
        "AlreadyExistsFault",
        "ResourceAlreadyExistsException",
        "InvalidGroup.Duplicate",
        "InvalidPermission.Duplicate",
        "InvalidLaunchTemplateName.AlreadyExistsException",
        "ParameterAlreadyExists",
        "RepositoryAlreadyExistsException",
        "ImageAlreadyExistsException",
        "ImageTagAlreadyExistsException",
    }
)
#: It is gone already: what an idempotent "remove it" wants to hear.
MISSING = frozenset(
    {
        "NoSuchEntity",
        "ParameterNotFound",
        "ResourceNotFoundException",
        "ClusterNotFoundException",
        "InvalidGroup.NotFound",
        "InvalidPermission.NotFound",
        "InvalidLaunchTemplateName.NotFoundException",
        "InvalidLaunchTemplateId.NotFound",
        "RepositoryNotFoundException",
        "LifecyclePolicyNotFoundException",
        "NoSuchResourceException",
    }
)
#: AWS is still busy with what was asked before: try again (aws-facts §3.3).
BUSY = frozenset(
    {
        "ClusterContainsContainerInstancesException",
        "ClusterContainsTasksException",
        "ClusterContainsCapacityProviderException",
        "DependencyViolation",
        "ResourceInUse",
        "ResourceInUseException",
        "ScalingActivityInProgress",
        "UpdateInProgressException",
    }
)

#: What Auto Scaling's words about a failed launch contain when AWS has no instance to give just now.
_NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "sufficient",
    "UnfulfillableCapacity",
    "Unable to fulfill capacity",
    "no Spot capacity available",
    "capacity-not-available",
    "not supported in your requested Availability Zone",
    "SpotInstanceTermination",
    "InternalError",  # this and what follows passes by itself too
    "RequestLimitExceeded",
)
#: And when the account may have no more (aws-facts §1.6).
_NO_QUOTA = ("VcpuLimitExceeded", "MaxSpotInstanceCountExceeded", "InstanceLimitExceeded", "vCPU", "Max spot instance")
_INSTANCE_TYPE = re.compile(r"\b[a-z]+\d+[a-z-]*\.(?:\d*x?large|medium|small|micro|nano|metal[\w-]*)\b")

_HOW_TO_START = (
    "Configure AWS credentials (`aws configure`, or `aws sso login`), or try it without an account:"
    ' StarburstCluster(cloud="local").'
)


def code_of(error: BaseException | None) -> str:
    """Return AWS's code of an error, of boto3 or of ours; empty when it has none."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return (getattr(error, "code", None) or "") if isinstance(error, StarburstError) else ""


def launch_refusal(group: str, text: str, at: float) -> Refusal:
    """Return what Auto Scaling's text about a failed launch means; it has no code of its own."""
    if any(words in text for words in _NO_QUOTA):
        return Refusal(group, "quota", text, at)
    if any(words in text for words in _NO_CAPACITY):
        named = _INSTANCE_TYPE.search(text)
        return Refusal(group, "capacity", text, at, named.group() if named else "")
    return Refusal(group, "fault", text, at)


def explained(error: Exception, operation: str) -> StarburstError:
    """Turn what boto3 raised into one of our errors.

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
    if isinstance(error, EndpointConnectionError):
        return AWSError(f"{operation} cannot reach AWS: {error}", operation=operation)
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
    return AWSError(f"{operation} failed: {text} ({code}).", **facts)


def _denied_action(text: str) -> str | None:
    """Return the action that AWS's text names: it can be another than the one called (PassRole)."""
    found = re.search(r"not authorized to perform: ([\w-]+:\w+)", text)
    return found.group(1) if found else None
