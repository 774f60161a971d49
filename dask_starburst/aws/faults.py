"""The table of AWS's errors, by code and whole phrase, with the messages for the user."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import Literal

from dask_starburst.aws.codes import (
    BUSY as BUSY,
)
from dask_starburst.aws.codes import (
    DENIED as DENIED,
)
from dask_starburst.aws.codes import (
    EXISTS as EXISTS,
)
from dask_starburst.aws.codes import (
    EXPIRED as EXPIRED,
)
from dask_starburst.aws.codes import (
    MISSING as MISSING,
)
from dask_starburst.aws.codes import (
    THROTTLED as THROTTLED,
)
from dask_starburst.aws.codes import (
    UNAVAILABLE as UNAVAILABLE,
)
from dask_starburst.errors import AWSUnavailable, CredentialsExpired, NoCredentials, StarburstError, Throttled
from dask_starburst.plan.groups import Placement
from dask_starburst.plan.loop.offerings import Refusal

#: Classes of errors.
#:
#: - ``passing``: a temporary fault of AWS (throttling, a 5xx, a failed host); it does not count against the worker.
#: - ``capacity``, ``quota``: AWS has no capacity, or the account's quota is used up.
#: - ``fault``: an error in the request or in the account; waiting does not help.
#: - ``network``: an instance could not reach a registry; temporary, or due to its subnet.
#: - ``start``: the container could not be started; the next one most likely fails too.
Kind = Literal["passing", "capacity", "quota", "fault", "network", "start"]


@dataclass(frozen=True, slots=True)
class Meaning:
    """A row of the table: AWS's codes and phrases, their class, and the next step.

    Codes match whole words, case-sensitive; phrases match at word boundaries, in any case.
    """

    kind: Kind
    advice: str
    codes: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()

    def fits(self, text: str) -> bool:
        """Return whether a message of AWS matches."""
        return any(_whole(code).search(text) for code in self.codes) or _says(text, *self.phrases)


@cache
def _whole(words: str, flags: int = 0) -> re.Pattern[str]:
    """Match whole words only: ``InternalError`` does not match in ``Client.InternalError``."""
    return re.compile(rf"(?<![\w.]){re.escape(words)}(?!\w)", flags)


_CAPACITY = (
    "Allow more types with instance_types=[…], or on-demand ones with spot={'policy': 'spot_with_fallback'} or"
    " spot={'policy': 'on-demand'}."
)
_QUOTA = (
    "Check `starburst quota status`, and request a higher vCPU quota of EC2 in Service Quotas with"
    " `starburst quota request`; or use smaller or fewer workers."
)
_FAULT = "This is an error in the request or in the account; waiting does not help."
_PASSING = "This is a temporary fault of AWS; it is retried automatically."
_IMAGE = (
    "Check image= and that the execution role may pull it. ECR deletes expired images:"
    " `starburst image list` shows the existing ones."
)
_HOST = (
    "The container could not be started on its instance. If this persists, give other instance_types=[…] or a larger"
    " storage.volume_size."
)

#: The messages of scaling activities, stopped tasks and containers. The first matching row wins,
#: so more specific rows come first. Sources: "Troubleshoot Amazon EC2 Auto Scaling: EC2 instance launch failures";
#: "Error codes for the Amazon EC2 API"; "Amazon ECS stopped tasks error messages".
TABLE: tuple[Meaning, ...] = (
    Meaning(
        "passing",
        _PASSING,
        codes=(
            "RequestLimitExceeded",
            "Throttling",
            "ThrottlingException",
            "TooManyRequestsException",
            "InternalFailure",
            "InternalError",
            "Server.InternalError",
            "InternalServerError",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "Unavailable",
            "toomanyrequests",
        ),
        phrases=(
            "Rate exceeded",
            "Request limit exceeded",
            "Internal error on launch",
            "An internal error has occurred",
        ),
    ),
    Meaning(
        "passing",
        "AWS validates a new account or region before the first launch, which takes up to four hours.",
        codes=("PendingVerification",),
        phrases=("is being validated, and you will not be able to launch additional resources",),
    ),
    Meaning(
        "passing",
        "AWS reclaimed the instance, or it failed; another one is used.",
        codes=("SpotInterruption", "SpotInstanceTermination", "Server.SpotInstanceTermination", "HostTerminated"),
        phrases=("Host EC2",),
    ),
    Meaning(
        "fault",
        'The subnet has no free addresses: give another one with network={"subnet": "subnet-…"}.',
        codes=("InsufficientFreeAddressesInSubnet",),
        phrases=("not enough free addresses in subnet", "insufficient free addresses"),
    ),
    Meaning(
        "fault",
        "The account's default EBS key is a customer managed key that Auto Scaling may not use: grant it to"
        " AWSServiceRoleForAutoScaling in KMS.",
        codes=("Client.InternalError", "Client.InvalidKMSKey.InvalidState"),
        phrases=("Client error on launch",),
    ),
    Meaning(
        "start",
        "The execution role must be allowed ssm:GetParameters on /starburst/*.",
        phrases=("unable to pull secrets", "unable to retrieve secrets from ssm", "ssm:GetParameters"),
    ),
    Meaning(
        "network",
        "The instance could not reach the registry, or got no answer. If this persists, check that the subnet can"
        " reach it (a public subnet, NAT or endpoints).",
        phrases=(
            "i/o timeout",
            "context deadline exceeded",
            "connection reset by peer",
            "connection refused",
            "TLS handshake timeout",
            "Client.Timeout exceeded while awaiting headers",
            "request canceled while waiting for connection",
            "no such host",
            "502 Bad Gateway",
            "503 Service Unavailable",
            "504 Gateway Timeout",
        ),
    ),
    Meaning(
        "start",
        _IMAGE,
        codes=(
            "CannotPullContainerError",
            "CannotPullECRContainerError",
            "CannotPullImageManifestError",
            "CannotPullContainer",
        ),
        phrases=("unable to pull registry auth",),
    ),
    Meaning(
        "start",
        "The image is built for another architecture: give arch= of the image, or build it for both.",
        phrases=("exec format error", "does not match the specified platform", "no matching manifest for linux"),
    ),
    Meaning(
        "start",
        "The container was killed, usually out of memory: give a larger worker=.",
        codes=("OutOfMemoryError",),
        phrases=("Container killed due to memory usage",),
    ),
    Meaning(
        "start",
        _HOST,
        codes=(
            "CannotStartContainerError",
            "CannotCreateContainerError",
            "CannotCreateVolumeError",
            "ContainerRuntimeError",
            "ContainerRuntimeTimeoutError",
            "DockerTimeoutError",
            "ResourceInitializationError",
        ),
    ),
    Meaning(
        "quota",
        _QUOTA,
        codes=("MaxSpotInstanceCountExceeded", "VcpuLimitExceeded", "InstanceLimitExceeded"),
        phrases=(
            "Max spot instance count exceeded",
            "You have requested more vCPU capacity than your current vCPU limit",
            "instance(s) are already running",
        ),
    ),
    Meaning(
        "capacity",
        _CAPACITY,
        codes=(
            "InsufficientInstanceCapacity",
            "InsufficientReservedInstanceCapacity",
            "InsufficientHostCapacity",
            "UnfulfillableCapacity",
            "SpotMaxPriceTooLow",
            "Unsupported",
            "capacity-not-available",
        ),
        phrases=(
            "We currently do not have sufficient",
            "does not have sufficient compatible and available capacity",
            "Unable to fulfill capacity",
            "no Spot capacity available",
            "is not supported in your requested Availability Zone",
            "The requested configuration is currently not supported",
            "is lower than the minimum required Spot request fulfillment price",
        ),
    ),
    Meaning(
        "fault",
        "The launching identity lacks a permission: AWS's message names it, or"
        " `aws sts decode-authorization-message --encoded-message …` does.",
        codes=("UnauthorizedOperation", "AccessDenied", "AccessDeniedException"),
        phrases=("You are not authorized to perform this operation", "You are not authorized to use launch template"),
    ),
    Meaning(
        "fault",
        _FAULT,
        codes=("Blocked", "OptInRequired", "InvalidParameterValue", "InvalidAMIID.NotFound"),
        phrases=("Invalid IAM Instance Profile", "Launching EC2 instance failed"),
    ),
)
#: The default for a failed launch whose message matches no row.
UNKNOWN_LAUNCH = Meaning("fault", _FAULT)
#: Temporary failures of placement ("API failure reasons", ECS developer guide): the instance is full, still
#: runs another task or has just ended; its agent is reconnecting; ECS does not show it yet. RunTask returns them, or
#: DescribeTasks as the reason of a stopped task, with `_LATE` before it (real-aws R1).
_PLACEMENTS = (
    "RESOURCE",
    "AGENT",
    "DISTINCT",
    "MEMBEROF",
    "EMPTY CAPACITY PROVIDER",
    "NO ACTIVE INSTANCES",
    "MISSING",
    "INACTIVE",
    "DRAINING",
)
_LATE = "TASKFAILEDTOSTART"
#: Registry errors for an immutable tag: ECR's and Docker's.
_TAG_TAKEN = ("ImageTagAlreadyExistsException", "TAG_INVALID", "tag is immutable", "tag invalid")
#: ECR's error for an expired password (github.com/flipt-io/flipt/issues/3043).
_PASSWORD_OVER = "authorization token has expired"
_INSTANCE_TYPE = re.compile(r"\b[a-z]+\d+[a-z-]*\.(?:\d*x?large|medium|small|micro|nano|metal[\w-]*)\b")


def code_of(error: BaseException | None) -> str:
    """Return the AWS error code of an exception of boto3 or ours; empty if it has none."""
    if isinstance(error, StarburstError):
        return error.code or ""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def meaning(text: str) -> Meaning | None:
    """Return the row that matches a message of AWS; None if there is none. Not for output of user processes."""
    return next((row for row in TABLE if row.fits(text)), None)


def outage(error: BaseException) -> bool:
    """Return whether AWS was unavailable: throttling, a server error, no answer, or rejected credentials.

    The error says nothing about the requested resource; the same call may succeed later.
    """
    return isinstance(error, Throttled | AWSUnavailable | CredentialsExpired | NoCredentials)


def placement_passes(refusal: str) -> bool:
    """Return whether a placement failure of ECS is temporary, whether RunTask or DescribeTasks has returned it."""
    return refusal.upper().removeprefix(_LATE).lstrip(": ").startswith(_PLACEMENTS)


def tag_taken(text: str) -> bool:
    """Return whether a registry error means that the tag exists and is immutable."""
    return _says(text, *_TAG_TAKEN)


def password_over(text: str) -> bool:
    """Return whether an ECR error means that the password has expired."""
    return _says(text, _PASSWORD_OVER)


def _says(text: str, *phrases: str) -> bool:
    return any(_whole(phrase, re.IGNORECASE).search(text) for phrase in phrases)


def launch_meaning(text: str) -> Meaning:
    """Return the row of a failed launch's message, or the default."""
    return meaning(text) or UNKNOWN_LAUNCH


def lacks_capacity(text: str) -> bool:
    """Whether Auto Scaling's message about a failed launch means that there is no capacity."""
    return launch_meaning(text).kind == "capacity"


def launch_refusal(placement: Placement, text: str, at: float) -> Refusal:
    """Return the refusal of a failed launch from Auto Scaling's message, which has no code."""
    kind = launch_meaning(text).kind
    found = _INSTANCE_TYPE.search(text) if kind == "capacity" else None
    known = kind if kind in ("passing", "capacity", "quota") else "fault"
    return Refusal(placement, known, text, at, found.group() if found else "")
